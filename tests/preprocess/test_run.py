"""The whole step on the demo data: every gate works, nothing leaks, the bytes repeat."""

from collections import Counter

import numpy as np
import pyarrow.parquet as pq
import pytest

from so8t import durable, records
from so8t.labels import Label
from so8t.preprocess.config import Preprocess
from so8t.preprocess.normalise import compare_key
from tests.preprocess import whole
from tests.preprocess.conftest import make

RAW = ("090-1234-5678", "9018", "4111", "5555-5555", "taro.yamada", "alice", "佐藤花子", "山田太郎", "架空町")


@pytest.fixture(scope="module")
def splits(demo):
    return {name: records.read(demo.path / f"{name}.parquet") for name in ("train", "validation", "test")}


def test_the_test_split_is_large_enough(splits):
    counts = Counter(record.category for record in splits["test"])
    assert counts["digit"] >= 300
    assert counts["tone"] >= 250
    classes = Counter(record.klass for record in splits["test"] if record.modality == "text")
    assert sum(classes.values()) >= 100
    assert min(classes[label] for label in Label) >= 25


def test_no_group_and_no_text_lies_in_two_splits(splits):
    where: dict[str, set[str]] = {}
    for name, rows in splits.items():
        for record in rows:
            assert record.split == name
            where.setdefault(record.group, set()).add(name)
    assert all(len(names) == 1 for names in where.values())
    texts = [{r.prompt for r in rows if r.modality == "text"} for rows in splits.values()]
    assert not texts[0] & texts[1] | texts[0] & texts[2] | texts[1] & texts[2]


def test_every_gate_had_something_to_do(demo):
    card = durable.read_json(demo.path / "data_card.json")
    assert {
        "exact duplicate", "near duplicate", "mojibake", "fragments between bars", "one character repeated",
        "hardly any letters", "too short", "held out",
    } <= set(card["removed"])  # fmt: skip
    assert any(reason.startswith("odd ") for reason in card["removed"])
    assert {"PHONE", "MY_NUMBER", "EMAIL", "CARD", "ADDRESS", "POSTCODE", "NAME"} <= set(card["masked"])
    assert sum(card["masked"].values()) >= 20
    assert card["rows"]["nsfw"] >= 12
    assert card["opposite_pairs"] >= 2
    assert sum(card["model_labelled"].values()) >= 3
    assert card["labeller"]["macro_f1"] > 0.4  # four classes by chance: 0.25


def test_no_raw_personal_data_anywhere(demo):
    for path in sorted(demo.path.glob("*.parquet")):
        whole = " ".join(record.prompt + record.response for record in records.iterate(path))
        assert not [raw for raw in RAW if raw in whole], path.name
    text = (demo.path / "data_card.json").read_text(encoding="utf-8") + (demo.path / "data_card.md").read_text(
        encoding="utf-8"
    )
    assert not [raw for raw in RAW if raw in text + str(demo.manifest.facts)]


def test_every_removed_row_has_a_reason_and_nsfw_keeps_to_itself(demo, splits):
    removed = pq.read_table(demo.path / "removed.parquet")
    assert removed.num_rows >= 40
    assert all(removed["reason"].to_pylist())
    assert all(record.nsfw for record in records.iterate(demo.path / "nsfw.parquet"))
    assert not any(record.nsfw for rows in splits.values() for record in rows)


def test_no_file_meant_for_generation_holds_what_is_nsfw(demo, tmp_path):
    """Nor does a copy whose flag somebody forgot, in other letters, with an edit, or under another label."""
    from so8t.artifacts import Artifact

    collected = next((demo.path.parent.parent / "collect").iterdir())
    folder, out = tmp_path / "collected", tmp_path / "out"
    folder.mkdir()
    rows = [r for r in records.read(collected / "records.parquet") if r.modality == "text"]
    flagged = [r for r in rows if r.nsfw]
    copies = [
        r.with_(id=f"copy{n}", prompt=r.prompt.upper() + ("!!" if n % 2 else "x"), nsfw=False, label=n % 4)
        for n, r in enumerate(flagged)
    ]
    durable.write_bytes(folder / "sources.json", (collected / "sources.json").read_bytes())
    records.write(folder / "records.parquet", rows + copies)
    inputs = {"collected": Artifact(folder, demo.manifest)}
    whole.run(Preprocess(), inputs, out)
    pool = list(records.iterate(out / "nsfw.parquet"))
    assert {r.id for r in pool} == {r.id for r in flagged + copies}
    assert all(r.nsfw for r in pool)
    said = {compare_key(r.prompt) for r in pool}
    for name in ("train", "validation", "test", "model_labelled"):
        rest = list(records.iterate(out / f"{name}.parquet"))
        assert not [r.id for r in rest if r.nsfw or compare_key(r.prompt) in said], name


def test_rows_balance(demo, splits):
    collected = next((demo.path.parent.parent / "collect").glob("*/records.parquet"))
    kept = sum(len(rows) for rows in splits.values())
    beside = sum(pq.read_metadata(demo.path / f"{n}.parquet").num_rows for n in ("nsfw", "removed", "model_labelled"))
    assert kept + beside == pq.read_metadata(collected).num_rows


def test_every_kept_row_can_be_trained_on(splits):
    for rows in splits.values():
        for record in rows:
            assert record.response
            assert record.label_source == "human"
            assert 0 <= record.label_confidence <= 1
            assert bool(record.image) == (record.modality != "text")


def test_the_tower_can_tell_tones_apart(splits):
    """The mean picture of each key, learnt on train, names the keys of test: so the pictures hold the answer."""
    import io

    from PIL import Image

    def pixels(record):
        return np.asarray(Image.open(io.BytesIO(record.image)).convert("L"), float).mean(axis=1)

    means = {}
    for key in "123A456B789C*0#D":
        means[key] = np.mean([pixels(r) for r in splits["train"] if r.category == "tone" and r.answer == key], axis=0)
    tones = [r for r in splits["test"] if r.category == "tone"]
    right = sum(min(means, key=lambda k: float(((means[k] - pixels(r)) ** 2).sum())) == r.answer for r in tones)
    assert right / len(tones) > 0.9


def test_two_runs_give_the_same_bytes(demo, tmp_path):
    assert make(tmp_path).content == demo.content


def test_the_order_of_the_rows_changes_nothing(demo, tmp_path):
    from so8t.artifacts import Artifact

    collected = next((demo.path.parent.parent / "collect").iterdir())
    folder = tmp_path / "collected"
    folder.mkdir()
    rows = [r for r in records.read(collected / "records.parquet") if r.modality == "text"][::2]
    durable.write_bytes(folder / "sources.json", (collected / "sources.json").read_bytes())
    contents = []
    for name, ordered in (("a", rows), ("b", rows[::-1])):
        records.write(folder / "records.parquet", ordered)
        inputs = {"collected": Artifact(folder, demo.manifest)}
        whole.run(Preprocess(), inputs, tmp_path / name)
        contents.append({path.name: path.read_bytes() for path in sorted((tmp_path / name).iterdir())})
    assert contents[0] == contents[1]
