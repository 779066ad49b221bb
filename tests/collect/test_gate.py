"""The gate of Hub datasets: card, tags, upstreams and licence file, with the server's log as witness."""

import json
import os
from pathlib import Path

import pytest

from so8t import durable
from so8t.collect import source
from so8t.collect.config import HubSource
from so8t.collect.gate import OWN_TERMS, TEXTS, recognise
from so8t.config import Machine
from so8t.progress import Progress
from tests.hub import READ_TOKEN, WRITE_TOKEN

ROWS = b'{"text": "hello"}\n'
MIT = (
    b"MIT License\n\nPermission is hereby granted, free of charge, to any person ...\n"
    b"The above copyright notice and this\npermission notice shall be included ..."
)
GPL = b"GNU GENERAL PUBLIC LICENSE\nVersion 3, 29 June 2007\n"


def gathered(revision, out, repo_id="lab/talk", **changes):
    """(facts, sources.json) of one dataset."""
    config = HubSource(
        kind="hub", name="talk", id=repo_id, revision=revision, files=("data/*",), columns={"prompt": "text"},
        language="en", **changes,
    )  # fmt: skip
    out.mkdir()
    facts = source.run(config, {}, out, Progress("collect.source", Machine(), out.parent / "home"))
    return facts, durable.read_json(out / "sources.json")


def read_files(server) -> list[str]:
    return [request.path.partition("/resolve/")[2][41:] for request in server.requests if request.route == "resolve"]


CASES = {
    # card, tags (None: as the card), licence file, expected outcome, what the reason names
    "mit": ("license: mit", None, None, "accepted", ""),
    "padded": ('license: " MIT "', ["mit"], None, "accepted", ""),
    "list": ("license: [mit, apache-2.0]", None, None, "accepted", ""),
    "without tags": ("license: apache-2.0", [], None, "accepted", ""),
    "with its file": ("license: mit", None, MIT, "accepted", ""),
    "synthetic": ("license: mit\ntags: [synthetic]\nsource_datasets: [original]", None, None, "accepted", ""),
    "none": ("language: ja", None, None, "refused", "no licence"),
    "other": ("license: other\nlicense_name: mixed", None, None, "refused", "other"),
    "non-commercial": ("license: cc-by-nc-4.0", None, None, "refused", "cc-by-nc-4.0"),
    "not listed": ("license: cc0-1.0", None, None, "refused", "cc0-1.0"),
    "one of two": ("license: [mit, gpl-3.0]", None, None, "refused", "gpl-3.0"),
    "number": ("license: 3", ["3"], None, "refused", "3"),
    "only the tag": ("language: ja", ["mit"], None, "quarantined", "card says nothing"),
    "other tag": ("license: mit", ["apache-2.0"], None, "quarantined", "tags says apache-2.0"),
    "named otherwise": ("license: mit\nlicense_name: my-terms", None, None, "quarantined", "my-terms"),
    "other file": ("license: mit", None, GPL, "quarantined", "files say gpl"),
    "unknown file": ("license: mit", None, b"Ask me first.", "quarantined", "no text that is known"),
    "closed upstream": ("license: mit\nsource_datasets: [lab/closed]", None, None, "quarantined", "cc-by-nc-4.0"),
    "absent upstream": ("license: mit\nsource_datasets: ['extended|lab/gone']", None, None, "quarantined", "lab/gone"),
    "open upstream": ("license: mit\nsource_datasets: [lab/open]", None, None, "accepted", ""),
    "another model": ("license: mit\nsource_datasets: [lab/chatgpt-talk]", None, None, "quarantined", "terms"),
    "its tag": ("license: mit\ntags: [gpt-4]", None, None, "quarantined", "terms"),
}


@pytest.mark.parametrize("case", CASES)
def test_decision_and_what_was_read(case, remote, tmp_path):
    server, commit = remote
    card, tags, file, outcome, said = CASES[case]
    commit("license: cc-by-nc-4.0", {}, "lab/closed")
    commit("license: apache-2.0", {}, "lab/open")
    revision = commit(card, {"data/1.jsonl": ROWS, **({"LICENSE": file} if file else {})})
    server.repo("lab/talk", "datasets").licence_tags = tags
    facts, summary = gathered(revision, tmp_path / "out")
    evidence = summary["evidence"]
    assert (facts["outcome"], evidence["outcome"]) == (outcome, outcome)
    assert said in evidence["reason"]
    assert bool(evidence["reason"]) == (outcome != "accepted")
    assert facts["rows"] == (outcome == "accepted")
    licence_file = ["LICENSE"] if file else []
    assert read_files(server) == licence_file + (["README.md", "data/1.jsonl"] if outcome == "accepted" else [])
    assert evidence["evidence_id"] == f"hub:lab/talk@{revision}"


READMES = {
    "The answers were generated using GPT-4 Turbo.": "GPT-4",
    "ChatGPT（gpt-3.5-turbo）で日本語に翻訳しました。": "ChatGPT",
    "- Collected from Common Crawl snapshots": "Common Crawl",
    "発話は Zundamon の音声合成で作成した。": "Zundamon",
    "We beat ChatGPT on this test.": "",
    "Written by hand. See the GPT-4 report for a comparison.": "",
    "Translated from English by a person.": "",
}


@pytest.mark.parametrize("text", READMES)
def test_a_readme_that_says_what_it_was_made_from_is_heard(text, remote, tmp_path):
    server, commit = remote
    page = f"---\nlicense: mit\n---\n# Talk\n\nTwo lines of text.\n{text}\n".encode()
    revision = commit("license: mit", {"README.md": page, "data/1.jsonl": ROWS})
    facts, summary = gathered(revision, tmp_path / "out")
    named = READMES[text]
    assert facts["outcome"] == ("quarantined" if named else "accepted")
    assert [entry["mentions"] for entry in summary["evidence"]["readme"]][:1] == ([named] if named else [])
    assert read_files(server) == ["README.md"] + ([] if named else ["data/1.jsonl"])
    if named:
        assert named in summary["evidence"]["reason"]
        checked = {entry["mentions"]: "its terms, read in November" for entry in summary["evidence"]["readme"]}
        facts, summary = gathered(revision, tmp_path / "again", checked_upstreams=checked)
        assert facts["outcome"] == "accepted"
        assert summary["evidence"]["readme"], "believed, and kept"


def test_a_base_model_with_terms_of_its_own_is_an_upstream(remote, tmp_path):
    _, commit = remote
    revision = commit("license: mit\nbase_model: lab/vicuna-7b", {"data/1.jsonl": ROWS})
    facts, summary = gathered(revision, tmp_path / "out")
    assert facts["outcome"] == "quarantined"
    assert "vicuna" in summary["evidence"]["reason"]
    assert summary["evidence"]["base_model"] == "lab/vicuna-7b"


def test_an_upstream_that_the_user_has_checked_is_believed_and_kept(remote, tmp_path):
    _, commit = remote
    revision = commit("license: mit\nsource_datasets: [lab/chatgpt-talk]", {"data/1.jsonl": ROWS})
    where = "https://terms.example, read in November"
    facts, summary = gathered(revision, tmp_path / "out", checked_upstreams={"lab/chatgpt-talk": where})
    assert facts["outcome"] == "accepted"
    assert summary["evidence"]["upstreams"] == [{"id": "lab/chatgpt-talk", "checked": where}]


@pytest.mark.parametrize(
    ("token", "outcome"), [("", "gated"), (READ_TOKEN, "gated"), (WRITE_TOKEN, "accepted")]
)  # fmt: skip
def test_a_gated_dataset_wants_a_token_with_access(token, outcome, remote, tmp_path, monkeypatch):
    server, commit = remote
    revision = commit("license: mit", {"data/1.jsonl": ROWS})
    server.repo("lab/talk", "datasets").gated = "manual"
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    facts, summary = gathered(revision, tmp_path / "out")
    assert facts["outcome"] == outcome
    assert facts["rows"] == (outcome == "accepted")
    assert ("HF_TOKEN" in facts.get("reason", "")) == (token == "")
    assert not token or token not in json.dumps(summary)
    assert bool(read_files(server)) == bool(token)


def test_absent_private_and_disabled_datasets_and_models_are_unavailable(remote, tmp_path, monkeypatch):
    server, commit = remote
    commit("license: mit", {"data/1.jsonl": ROWS}, "lab/model", "models")
    revision = commit("license: mit", {"data/1.jsonl": ROWS})
    repo = server.repo("lab/talk", "datasets")
    for number, (changes, repo_id) in enumerate(
        (({}, "lab/gone"), ({}, "lab/model"), ({"private": True}, "lab/talk"), ({"disabled": True}, "lab/talk"))
    ):
        repo.private = repo.disabled = False
        for name, value in changes.items():
            setattr(repo, name, value)
        facts, _ = gathered(revision, tmp_path / f"out{number}", repo_id)
        assert (facts["outcome"], facts["rows"]) == ("unavailable", 0)
        assert facts["reason"]
    repo.private, repo.disabled = True, False
    monkeypatch.setenv("HF_TOKEN", READ_TOKEN)
    assert gathered(revision, tmp_path / "mine")[0]["outcome"] == "accepted"


def test_rows_of_a_dataset_tagged_nsfw_are_marked(remote, tmp_path):
    from so8t import records

    _, commit = remote
    revision = commit("license: mit\ntags: [not-for-all-audiences]", {"data/1.jsonl": ROWS})
    gathered(revision, tmp_path / "out")
    assert [row.nsfw for row in records.read(tmp_path / "out" / "records.parquet")] == [True]


def test_texts_are_told_apart():
    assert recognise(MIT) == "mit"
    assert recognise(GPL) == "gpl"
    assert recognise(b"Apache License\n   Version 2.0, January 2004") == "apache-2.0"
    assert recognise(b"Creative Commons Attribution-NonCommercial 4.0") == "cc-nc"
    assert recognise(b"") == ""
    assert set(TEXTS) >= {"mit", "apache-2.0"}
    assert OWN_TERMS


def real_cases():
    folder = Path(os.environ.get("SO8T_REALDATA", "")) / "hf-card-metadata"
    path = folder / "license_cases.json"
    return json.loads(path.read_text(encoding="utf-8")) if os.environ.get("SO8T_REALDATA") and path.is_file() else []


# The decision table's words and what the gate says of such a dataset.
EXPECTED = {
    "accept": {"accepted"}, "reject": {"refused", "unavailable"}, "skip_gated_unless_token": {"gated"},
    "unavailable_403": {"unavailable"},
}  # fmt: skip


@pytest.mark.realdata
@pytest.mark.skipif(not real_cases(), reason="SO8T_REALDATA names no folder with hf-card-metadata/license_cases.json")
def test_real_cards_are_decided_as_expected(remote, tmp_path):
    server, commit = remote
    for number, case in enumerate(real_cases()):
        kind = "models" if "MODEL repo" in case["note"] else "datasets"
        revision = commit(f"license: {case['card_license']}", {"data/1.jsonl": ROWS}, case["id"], kind)
        repo = server.repo(case["id"], kind)
        repo.gated = "manual" if case["gated"] else False
        repo.disabled = case["expected"] == "unavailable_403"
        if "lack license" in case["note"]:
            repo.licence_tags = []
        before = len(read_files(server))
        facts, _ = gathered(revision, tmp_path / f"out{number}", case["id"])
        assert facts["outcome"] in EXPECTED[case["expected"]], case
        assert len(read_files(server)) - before == 2 * (facts["outcome"] == "accepted"), case
