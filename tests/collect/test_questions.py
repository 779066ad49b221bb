"""Questions for the benchmark: pinned, their licence recorded, unlike rows for training not limited to two licences."""

import json

import pytest

from so8t import durable
from so8t.artifacts import hash_file
from so8t.collect import questions
from so8t.config import Machine
from so8t.errors import InputError
from so8t.progress import Progress
from so8t.questions import FileQuestions, HubQuestions

LINES = b'{"input": "\xe9\x9b\xa8\xe3\x81\xaf\xef\xbc\x9f", "label": 0}\n{"input": "b", "label": 1}\n'


@pytest.fixture
def run(tmp_path):
    def make(config):
        out = tmp_path / "out"
        out.mkdir(exist_ok=True)
        facts = questions.run(config, {}, out, Progress("collect.questions", Machine(), tmp_path))
        items = [json.loads(line) for line in (out / "items.jsonl").read_text(encoding="utf-8").splitlines()]
        return facts, items, durable.read_json(out / "source.json"), sorted(path.name for path in out.iterdir())

    return make


def on_the_hub(revision: str, **changes) -> HubQuestions:
    return HubQuestions(
        **{"kind": "hub", "id": "lab/talk", "revision": revision, "files": ("data/*.jsonl",), "licence": "cc-by-sa-4.0", **changes}
    )  # fmt: skip


def test_from_the_hub_at_a_pinned_commit(remote, run):
    _, commit = remote
    revision = commit("license: cc-by-sa-4.0", {"data/test.jsonl": LINES})
    commit("license: cc-by-sa-4.0", {"data/test.jsonl": b'{"input": "later"}\n'})
    facts, items, source, left = run(on_the_hub(revision))
    assert [(item["id"], item["row"]["label"]) for item in items] == [("data/test.jsonl-000000", 0), ("data/test.jsonl-000001", 1)]  # fmt: skip
    assert (facts["rows"], source["origin"]) == (2, f"lab/talk@{revision}")
    assert (source["licence"], source["evidence"]) == ("cc-by-sa-4.0", "the card states cc-by-sa-4.0")
    assert len(source["files"][0]["sha256"]) == 64
    assert left == ["items.jsonl", "source.json"]


def test_a_card_that_states_another_licence_or_none_stops(remote, run):
    _, commit = remote
    with pytest.raises(InputError, match=r"licence not allowed: cc-by-nc-4\.0"):
        run(on_the_hub(commit("license: cc-by-nc-4.0", {"data/a.jsonl": LINES})))
    silent = commit("pretty_name: x", {"data/a.jsonl": LINES})
    with pytest.raises(InputError, match="no licence stated"):
        run(on_the_hub(silent, licence="mit"))
    source = run(on_the_hub(silent, licence="mit", checked="its repository, LICENSE"))[2]
    assert source["evidence"] == "the card states none; read at its repository, LICENSE"


def test_what_is_not_pinned_is_not_fetched(remote, run):
    server, _ = remote
    with pytest.raises(InputError, match="is not pinned"):
        run(on_the_hub("unpinned"))
    assert server.sent_bytes() == 0


def test_local_files_count_by_their_content(tmp_path, run):
    path = tmp_path / "test.csv"
    durable.write_text(path, "sent,label\nあ,1\n")
    config = FileQuestions(kind="files", paths=(path,), licence="mit", origin="lab/morals@1")
    pinned = config.pinned()
    assert pinned.sha256 == (hash_file(path),)
    facts, items, source, _ = run(pinned)
    assert (facts["rows"], items[0]["row"], source["origin"]) == (1, {"sent": "あ", "label": "1"}, "lab/morals@1")
    durable.write_text(path, "sent,label\nい,1\n")
    assert config.pinned().sha256 != pinned.sha256
    with pytest.raises(InputError, match="have the hashes"):
        run(pinned)
    with pytest.raises(InputError, match="no file"):
        FileQuestions(kind="files", paths=(tmp_path / "absent.csv",), licence="mit", origin="x").pinned()
