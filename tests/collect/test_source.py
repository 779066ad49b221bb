"""One source: files from outside, the Hub, and what is refused."""

import json
import pickle

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from so8t import durable, records
from so8t.artifacts import Artifact, Manifest
from so8t.collect import run as collect
from so8t.collect import source
from so8t.collect.config import Collect, FilesSource, HubSource
from so8t.config import Machine
from so8t.errors import InputError
from so8t.progress import Progress

ROWS = [
    {"prompt": "駅はどこですか。", "language": "ja", "label": "allow", "licence": "MIT", "group": "g"},
    {"prompt": "Where is the station?", "language": "en", "label": 0},
    {"prompt": "", "language": "en"},
    {"prompt": "Wo ist der Bahnhof?", "language": "de"},
    {"prompt": "Is this legal?", "language": "en", "label": "perhaps"},
    {"prompt": "Nobody labelled me.", "language": "en", "licence": "gpl-3.0"},
]


def files(*paths, **changes) -> FilesSource:
    return FilesSource(**{"kind": "files", "name": "mine", "paths": paths, "licence": "mit", **changes})


def run(config, out, home):
    out.mkdir(exist_ok=True)
    return source.run(config, {}, out, Progress("collect.source", Machine(), home))


def lines(path, rows=ROWS):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8", newline="\n")
    return path


def test_jsonl_rows_and_the_reasons_of_the_refused(tmp_path):
    facts = run(files(lines(tmp_path / "rows.jsonl")), tmp_path / "out", tmp_path)
    assert (facts["rows"], facts["quarantined"]) == (3, 3)
    kept = records.read(tmp_path / "out" / "records.parquet")
    assert [row.label for row in kept] == [0, 0, -1]
    assert [row.licence for row in kept] == ["mit", "mit", "gpl-3.0"]
    assert kept[0].group == "mine:g"
    assert {row.revision for row in kept} == {facts["revision"]}
    assert len(facts["revision"]) == 40
    reasons = pq.read_table(tmp_path / "out" / "quarantine.parquet")["reason"].to_pylist()
    assert reasons == ["no prompt", "language 'de' is neither ja nor en", "unknown label 'perhaps'"]


def test_our_own_parquet_comes_back(tmp_path):
    run(files(lines(tmp_path / "rows.jsonl")), tmp_path / "first", tmp_path)
    again = run(files(tmp_path / "first" / "records.parquet", name="again"), tmp_path / "second", tmp_path)
    assert again["rows"] == 3
    assert str(tmp_path) not in (tmp_path / "second" / "sources.json").read_text(encoding="utf-8")


BAD = {
    "pointer.parquet": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n", "Git-LFS pointer"),
    "page.jsonl": (b"<!DOCTYPE html><html><body>502</body></html>", "HTML"),
    "empty.parquet": (b"", "empty"),
    "text.parquet": (b"hello, I am text", "not Parquet"),
    "cut.parquet": (b"PAR1" + b"\x00" * 50, "truncated"),
    "pickle.jsonl": (pickle.dumps({"a": 1}), "pickle"),
    "broken.jsonl": (b'{"prompt": "x"\n', "not JSON"),
    "cp932.jsonl": ('{"prompt": "日本語です", "language": "ja"}\n'.encode("cp932"), "not UTF-8"),
    "list.jsonl": (b"[1, 2]\n", "holds list"),
    "keys.jsonl": (b'{"prompt": "x", "language": "en", "lable": 1}\n', "lable"),
    "rows.txt": (b"x", "unknown format"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_is_something_else_is_named_as_what_it_is(name, tmp_path):
    data, said = BAD[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=said) as caught:
        run(files(tmp_path / name), tmp_path / "out", tmp_path)
    assert caught.value.exit_code == 2


def test_a_missing_file_and_a_foreign_parquet(tmp_path):
    with pytest.raises(InputError, match="not there"):
        run(files(tmp_path / "no.parquet"), tmp_path / "out", tmp_path)
    pq.write_table(pa.table({"text": ["x"]}), tmp_path / "foreign.parquet")
    with pytest.raises(InputError, match="lacks the columns"):
        run(files(tmp_path / "foreign.parquet"), tmp_path / "out", tmp_path)


def talk(revision, **changes) -> HubSource:
    wanted = {"kind": "hub", "name": "talk", "id": "lab/talk", "revision": revision, "files": ("data/*",)}
    return HubSource(**{**wanted, "columns": {"prompt": "text", "label": "class"}, "language": "ja", **changes})


def test_a_class_that_the_config_vouches_for_is_for_rows_without_one(remote, tmp_path):
    _, commit = remote
    lines = b'{"text": "a b c", "class": "DENY"}\n{"text": "d e f", "class": null}\n'
    run(talk(commit("license: mit", {"data/1.jsonl": lines}), label="ALLOW"), tmp_path / "out", tmp_path / "home")
    wanted = [(2, "human", 1.0), (0, "rule", 1.0)]
    kept = records.read(tmp_path / "out" / "records.parquet")
    assert [(row.label, row.label_source, row.label_confidence) for row in kept] == wanted
    ours = [row.with_(label=-1, label_source="", label_confidence=0.0) if row.label == 0 else row for row in kept]
    records.write(tmp_path / "ours.parquet", ours)
    for number, name in enumerate(("ours.parquet", "rows.jsonl")):
        (tmp_path / "rows.jsonl").write_bytes(
            b'{"prompt": "a", "language": "en", "label": "DENY"}\n{"prompt": "b", "language": "en"}\n'
        )
        local = files(tmp_path / name).model_copy(update={"label": "ALLOW"})
        run(local, tmp_path / f"local{number}", tmp_path / f"home{number}")
        kept = records.read(tmp_path / f"local{number}" / "records.parquet")
        assert [(row.label, row.label_source, row.label_confidence) for row in kept] == wanted


def test_a_hub_dataset_is_mapped_and_evidenced(remote, tmp_path):
    _, commit = remote
    first = b'{"text": "a b c", "class": "DENY"}\n{"text": null, "class": null}\n'
    revision = commit("license: mit", {"data/1.jsonl": first, "data/2.csv": b"text,class\r\nhello there,\r\n"})
    facts = run(talk(revision), tmp_path / "out", tmp_path / "home")
    assert facts == {"rows": 2, "quarantined": 1, "revision": revision, "outcome": "accepted"}
    kept = records.read(tmp_path / "out" / "records.parquet")
    assert [(row.prompt, row.label, row.file, row.row) for row in kept] == [
        ("a b c", 2, "data/1.jsonl", 0),
        ("hello there", -1, "data/2.csv", 0),
    ]
    assert {(row.source, row.revision, row.licence) for row in kept} == {("lab/talk", revision, "mit")}
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "quarantine.parquet", "records.parquet", "sources.json",
    ]  # fmt: skip


@pytest.mark.parametrize("card", ["license: cc-by-nc-4.0", "license: other", "language: ja", "license: [mit, gpl-3.0]"])
def test_of_a_refused_dataset_only_metadata_is_read(card, remote, tmp_path):
    server, commit = remote
    revision = commit(card, {"data/1.jsonl": b'{"text": "secret", "class": null}\n'})
    assert run(talk(revision), tmp_path / "out", tmp_path / "home")["rows"] == 0
    summary = durable.read_json(tmp_path / "out" / "sources.json")
    assert summary["evidence"]["reason"]
    assert not [request.path for request in server.requests if "resolve" in request.path]


class Cut:
    """A progress sink that ends the run when the second file begins."""

    def report(self, step, done, total, message, metrics):
        if message == "data/2.jsonl":
            raise KeyboardInterrupt


def test_a_stopped_hub_source_goes_on_with_the_next_file(remote, tmp_path):
    server, commit = remote
    revision = commit("license: mit", {f"data/{n}.jsonl": b'{"text": "hello %d", "class": null}\n' % n for n in (1, 2)})
    config, out = talk(revision), tmp_path / "out"
    out.mkdir()
    with pytest.raises(KeyboardInterrupt):
        source.run(config, {}, out, Progress("collect.source", Machine(), tmp_path / "home", (Cut(),)))
    before = len(server.requests)
    assert any("data/1.jsonl" in request.path for request in server.requests)
    assert run(config, out, tmp_path / "home")["rows"] == 2
    assert not any("data/1.jsonl" in request.path for request in server.requests[before:])
    run(config, tmp_path / "fresh", tmp_path / "other")
    for name in ("records.parquet", "quarantine.parquet", "sources.json"):
        assert (out / name).read_bytes() == (tmp_path / "fresh" / name).read_bytes()


def test_wrong_columns_revision_and_file_are_said(remote, tmp_path):
    _, commit = remote
    revision = commit("license: mit", {"data/1.jsonl": b'{"text": "hello", "class": null}\n'})
    for changes, said in (
        ({"columns": {"prompt": "question"}}, "lacks the columns"),
        ({"files": ("**/2.jsonl",)}, "has no file"),
        ({"files": ("train/*",)}, "has no file"),
        ({"revision": "0" * 40}, "revision"),
        ({"id": "lab/none", "unavailable": "fail"}, "no such dataset"),
        ({"revision": "unpinned"}, "not pinned"),
    ):
        with pytest.raises(InputError, match=said):
            run(talk(**{"revision": revision, **changes}), tmp_path / "out", tmp_path / "home")
    with pytest.raises(ValidationError):
        talk(revision, columns={"label": "class"})
    with pytest.raises(ValidationError):
        talk("main")


def artifact(path) -> Artifact:
    whole = Manifest(
        step="collect.source", version=1, key="k", content="c", inputs={}, config={}, files=[], facts={}, code={},
        packages={}, machine={}, started_at="2025-01-01T00:00:00+00:00", finished_at="2025-01-01T00:00:00+00:00",
    )  # fmt: skip
    return Artifact(path, whole)


def test_collect_gates_every_row_and_accepts_per_source(tmp_path):
    first = files(lines(tmp_path / "rows.jsonl"))
    second = files(lines(tmp_path / "more.jsonl"), name="more", accept=("gpl-3.0",))
    inputs = {}
    for config in (first, second):
        run(config, tmp_path / config.name, tmp_path)
        inputs[f"source.{config.name}"] = artifact(tmp_path / config.name)
    out = tmp_path / "out"
    out.mkdir()
    facts = collect.run(Collect(sources=(first, second)), inputs, out, Progress("collect", Machine(), tmp_path))
    assert (facts["rows"], facts["refused"]) == (5, 1)
    assert pq.read_table(out / "refused.parquet")["reason"].to_pylist() == ["licence not allowed: gpl-3.0"]
    assert [s["passed"] for s in durable.read_json(out / "sources.json")["sources"]] == [2, 3]
    with pytest.raises(InputError, match="no row passed"):
        collect.run(
            Collect(sources=(first,), licences=("apache-2.0",)), inputs, out, Progress("collect", Machine(), tmp_path)
        )


def test_two_sources_of_one_name_are_refused(tmp_path):
    one = files(tmp_path / "a.jsonl")
    with pytest.raises(ValidationError, match="two sources"):
        Collect(sources=(one, one))


def test_patterns_name_files_in_folders_and_beside_them_once_each(remote, tmp_path):
    _, commit = remote
    row = b'{"text": "hello", "class": null}\n'
    revision = commit("license: mit", {"a.jsonl": row, "x/b.jsonl": row, "x/c.csv": b"text\n"})
    facts = run(talk(revision, files=("x/b.jsonl", "**/*.jsonl")), tmp_path / "out", tmp_path / "home")
    assert facts["rows"] == 2
    assert [row.file for row in records.read(tmp_path / "out" / "records.parquet")] == ["x/b.jsonl", "a.jsonl"]


def test_pictures_and_conversations_in_parquet(remote, tmp_path):
    import io

    from PIL import Image

    _, commit = remote
    buffer, file = io.BytesIO(), io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, format="PNG")
    said = [{"role": "user", "content": "これは何?"}, {"role": "assistant", "content": "黒です"}]
    rows = [
        {"image": {"bytes": buffer.getvalue(), "path": "a.png"}, "talk": said},
        {"image": {"bytes": b"x"}, "talk": said},
    ]
    pq.write_table(pa.Table.from_pylist(rows), file)
    revision = commit("license: mit", {"a.parquet": file.getvalue()})
    config = talk(revision, files=("*.parquet",), columns={"media": "image", "messages": "talk"})
    assert run(config, tmp_path / "out", tmp_path / "home")["quarantined"] == 1
    [kept] = records.read(tmp_path / "out" / "records.parquet")
    assert (kept.modality, kept.prompt, kept.response) == ("image", "これは何?", "黒です")
    assert kept.media == buffer.getvalue()
