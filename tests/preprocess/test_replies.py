"""Which replies may be learnt, and where rows without one go."""

import pytest

from so8t import records
from so8t.labels import Label
from so8t.preprocess.replies import usable
from so8t.records import Record
from so8t.thinking import parse, render
from tests.preprocess.test_review import ASKED, preprocess

GOOD = render("Read.", Label.DENY, "Secret.", "Decline.", "No.")


def row(response: str, label: Label = Label.ALLOW, **changes) -> Record:
    return Record("x", "text", "en", "what?", response, label=int(label), **changes)


def test_a_reply_in_the_format_stays_where_it_names_the_rows_class():
    assert usable(row(GOOD, Label.DENY)).response == GOOD
    assert usable(row(GOOD, Label.REFUSE)).response == ""
    assert usable(row(GOOD)).response == ""


def test_a_plain_reply_is_learnt_under_allow_alone():
    for language in ("ja", "en"):
        reply = parse(usable(row(" Boil it. ").with_(language=language)).response)
        assert (reply.final, reply.label) == ("Boil it.", Label.ALLOW)
        assert reply.task
        assert reply.policy
    for label in (Label.ESCALATION, Label.DENY, Label.REFUSE):
        assert usable(row("Here is how to do it.", label)).response == ""


@pytest.mark.parametrize(
    "said", ["", "  ", "<final>a</final>", "a <|allow|> b", GOOD + "more", GOOD.replace("No.", "")]
)
def test_what_is_no_reply_is_not_learnt(said):
    assert not usable(row(said)).response.strip()


def test_a_pictures_answer_is_what_it_is_asked_for():
    seen = row("It is a nine.", answer="9").with_(modality="image")
    assert parse(usable(seen).response).final == "9"
    assert parse(usable(seen.with_(response="")).response).final == "9"
    assert parse(usable(row("Because.", answer="9")).response).final == "Because."


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Every class with a reply in the format, with a plain one and with none; and rows that nobody labelled."""
    rows = []
    for label, text in ASKED.items():
        for n in range(48):
            reply = (render("読む。", label, "", "する。", "はい"), "はい、こうします。", "")[n % 3]
            rows.append(
                Record(f"{label.name}{n}", "text", "ja", text.format(n * 37), reply, label=int(label), group=f"{label}{n}", source="s", row=n)
            )  # fmt: skip
    rows += [
        Record(f"new{n}", "text", "ja", ASKED[Label.ALLOW].format(f"新{n * 41}"), "水は朝に。", group=f"n{n}", source="t", row=n)
        for n in range(15)
    ]  # fmt: skip
    rows += [
        Record(f"odd{n}", "text", "ja", f"{n}杯の{'茶湯酒酢油水'[n % 6]}を飲む話", "飲みます。", group=f"o{n}", source="u", row=n)
        for n in range(12)
    ]  # fmt: skip
    folder = tmp_path_factory.mktemp("mixed")
    facts = preprocess(rows, folder, near_duplicate=0.98, same_group=0.97, quality_worst=0.001)
    return rows, facts, {path.stem: records.read(path) for path in (folder / "out").glob("*.parquet")}


def test_a_row_without_a_reply_keeps_to_what_needs_none(mixed):
    rows, facts, found = mixed
    assert {parse(r.response).label for r in found["train"]} == set(Label)
    for name in ("train", "validation"):
        assert all(parse(r.response).label == r.label for r in found[name])
    alone = found["labelled"]
    assert {r.split for r in alone} == {"train", "validation"}
    assert {r.klass for r in alone} == set(Label)
    assert not any(r.response for r in alone)
    assert {bool(r.response) for r in found["test"]} == {True, False}
    everywhere = [r.id for part in found.values() for r in part]
    assert sorted(everywhere) == sorted(r.id for r in rows)
    assert sum(facts["without_reply"].values()) == len(alone) + sum(not r.response for r in found["test"])


def test_what_a_model_surely_finds_harmless_is_learnt_with_its_reply(mixed):
    _, _, found = mixed
    learnt = [r for r in found["train"] if r.label_source == "model"]
    assert len(learnt) >= 3
    assert all(r.klass == Label.ALLOW and r.label_confidence > 0.9 for r in learnt)
    assert not any(r.label_source == "model" for name in ("validation", "test", "labelled") for r in found[name])
    doubted = found["model_labelled"]
    assert len(doubted) >= 3
    assert all(r.klass != Label.ALLOW or r.label_confidence <= 0.9 for r in doubted)


def test_four_class_learns_from_both(mixed, tmp_path):
    from so8t.artifacts import Artifact, Manifest
    from so8t.four_class.config import Data
    from so8t.four_class.rows import load

    _, _, found = mixed
    for name in ("train", "validation", "labelled"):
        records.write(tmp_path / f"{name}.parquet", found[name])
    loaded = load(Data(), {"data": Artifact(tmp_path, Manifest.model_construct())})
    assert len(loaded.train) + len(loaded.validation) == sum(
        len(found[name]) for name in ("train", "validation", "labelled")
    )
    assert {r.id for r in found["labelled"] if r.split == "train"} <= {r.id for r in loaded.train}
