"""Datasets by licence query: what the Hub lists is judged one by one, pinned, and gone on with after a stop."""

import json

import pytest

from so8t import durable, records
from so8t.collect import source
from so8t.collect.config import HubQuery
from so8t.config import Machine
from so8t.progress import Progress
from so8t.session import SessionFile

JA = "license: {}\nlanguage: ja\ntags: ['language:ja'{}]"


def lines(*rows) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


@pytest.fixture
def shelf(remote):
    """Datasets of every kind; {id: revision}."""
    _, commit = remote
    talk = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]
    made = {
        "lab/chat": (JA.format("mit", ""), {"a.jsonl": lines({"messages": talk}), "test.jsonl": lines({"text": "no"})}),
        "lab/pairs": (
            JA.format("apache-2.0", ""),
            {"a.jsonl": lines({"instruction": "i", "output": "o", "input": ""})},
        ),
        "lab/closed": (JA.format("cc-by-nc-4.0", ", 'license:mit'"), {"a.jsonl": lines({"text": "closed"})}),
        "lab/odd": (JA.format("mit", ""), {"a.jsonl": lines({"unheard": "of"})}),
        "lab/code": (JA.format("mit", ""), {"load.py": b"print()"}),
        "lab/english": ("license: mit\nlanguage: en\ntags: ['language:en']", {"a.jsonl": lines({"text": "x"})}),
        "lab/never": (JA.format("mit", ""), {"a.jsonl": lines({"text": "never"})}),
    }
    return {repo: commit(card, files, repo) for repo, (card, files) in made.items()}


def query(**changes) -> HubQuery:
    return HubQuery(kind="hub_query", name="found", language="ja", exclude=("lab/never",), **changes)


def run(config, out, home, session=None, sinks=()):
    out.mkdir(exist_ok=True)
    facts = source.run(config, {}, out, Progress("collect.source", Machine(), home, sinks, session))
    evidence = durable.read_json(out / "sources.json")["evidence"]
    return facts, records.read(out / "records.parquet"), {one["id"]: one for one in evidence["datasets"]}


def test_the_listing_proposes_and_the_gate_decides(shelf, remote, tmp_path):
    server, _ = remote
    facts, kept, judged = run(query(), tmp_path / "out", tmp_path / "home")
    assert {repo: one["outcome"] for repo, one in judged.items()} == {
        "lab/chat": "accepted", "lab/pairs": "accepted", "lab/closed": "quarantined", "lab/odd": "unreadable",
        "lab/code": "unreadable",
    }  # fmt: skip
    assert facts["datasets"] == 2
    assert sorted((row.source, row.prompt, row.response, row.licence, row.revision) for row in kept) == [
        ("lab/chat", "u", "a", "mit", shelf["lab/chat"]),
        ("lab/pairs", "i", "o", "apache-2.0", shelf["lab/pairs"]),
    ]
    assert len({row.id for row in kept}) == 2
    read = {request.path.split("/resolve/")[0] for request in server.requests if request.route == "resolve"}
    assert read == {"/datasets/lab/chat", "/datasets/lab/pairs", "/datasets/lab/odd"}
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "quarantine.parquet", "records.parquet", "sources.json",
    ]  # fmt: skip


def test_no_more_than_asked_for_and_nothing_too_large(shelf, tmp_path):
    _, _, judged = run(query(datasets_max=1), tmp_path / "one", tmp_path / "home")
    assert [one["outcome"] for one in judged.values()].count("accepted") <= 1
    facts, kept, judged = run(query(bytes_max=10), tmp_path / "none", tmp_path / "home")
    assert (facts["rows"], kept) == (0, [])
    assert judged["lab/pairs"]["outcome"] == "too large"


class Stop:
    def __init__(self, message):
        self.message = message

    def report(self, step, done, total, message, metrics):
        if message == self.message:
            raise KeyboardInterrupt


def test_a_stopped_query_goes_on_with_its_plan_and_says_what_has_moved(shelf, remote, tmp_path):
    server, commit = remote
    fresh = run(query(), tmp_path / "fresh", tmp_path / "home")
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        run(query(), out, tmp_path / "home", sinks=(Stop("fetching a.jsonl"),))
    newer = commit(JA.format("mit", ""), {"a.jsonl": lines({"text": "newer"})}, "lab/chat")
    commit(JA.format("mit", ""), {"a.jsonl": lines({"text": "another"})}, "lab/another")
    session = SessionFile.open(tmp_path / "home", "s", "collect.source")
    assert run(query(), out, tmp_path / "home", session) == fresh
    assert [f"lab/chat has moved on to {newer}" in problem for problem in session.session.problems] == [True]
    # A commit that is gone, as after a force-push: nothing of before is mixed with what comes.
    again = tmp_path / "again"
    with pytest.raises(KeyboardInterrupt):
        run(query(), again, tmp_path / "home", sinks=(Stop("fetching a.jsonl"),))
    repo = server.repo("lab/pairs", "datasets")
    repo.commits[shelf["lab/pairs"]].tree["b.jsonl"] = server.store.put_blob(lines({"text": "b"}))
    _, kept, judged = run(query(), again, tmp_path / "home", session)
    assert "gathering anew" in session.session.problems[-1]
    assert judged["lab/chat"]["revision"] == newer
    assert "newer" in {row.prompt for row in kept}
