"""Killed, refused, stalled and cut off at every request: what is published is published once, whole."""

import hashlib
import json
import os

import pytest

from so8t.artifacts import Store
from so8t.upload.config import HubTarget, Upload
from tests.hub import WRITE_TOKEN, HubServer
from tests.upload.campaign import run_campaign

pytestmark = pytest.mark.skipif(os.name == "nt", reason="kills by a signal, forks the client")
MODEL, ADAPTER, GGUF = "tester/so8t", "tester/so8t-adapter", "tester/so8t-gguf"
SEVERAL = {"adapter_repo_id": ADAPTER, "gguf_repo_id": GGUF, "collection": "SO8T models"}


def history(repo):
    """Titles of the commits of main, the newest first."""
    oid, titles = repo.branches["main"], []
    while oid:
        titles.append(repo.commits[oid].title)
        oid = repo.commits[oid].parent
    return titles


def undergo(tmp_path, home, stride, **more):
    config = Upload(target=HubTarget(kind="hub", repo_id=MODEL, **more))
    with HubServer(tmp_path / "hub", part_bytes=100_000, page_entries=9) as hub:
        environment = {"HF_ENDPOINT": hub.url, "HF_TOKEN": WRITE_TOKEN, "HF_HOME": str(tmp_path / "no-login")}
        found = run_campaign(hub, home, config, environment, stride)
    artifact = next(a for a in Store(home).all() if a.manifest.step == "upload")
    listed = json.loads((artifact.path / "files.json").read_text(encoding="utf-8"))
    for receipt in artifact.manifest.facts["repositories"]:
        check(hub, receipt, listed, {MODEL: "model", ADAPTER: "adapter", GGUF: "gguf"}[receipt["repo_id"]])
    assert [r.path for r in hub.requests if r.repeated] == [], "a large object that was whole on the Hub was sent again"
    print(f"{len(found.kills)} kills, {len(hub.requests)} requests, faults met: {found.faults}")  # noqa: T201
    return hub, artifact, found


def check(hub, receipt, listed, kind):
    """One visible commit, and every hash as files.json says."""
    repo = hub.repo(receipt["repo_id"])
    assert history(repo) == [f"Publish {receipt['tag']}", "initial commit"]
    assert len(repo.commits) == 3, "beside them the one of the staging branch"
    assert (list(repo.branches), repo.tags) == (["main"], {receipt["tag"]: receipt["oid"]})
    wanted = {entry["path"]: entry["sha256"] for entry in listed if entry["repository"] == kind}
    tree = repo.tree(receipt["oid"])
    assert set(tree) == wanted.keys() | {".gitattributes"}
    assert all(
        hashlib.sha256(hub.store.path_of(tree[path]).read_bytes()).hexdigest() == digest
        for path, digest in wanted.items()
    )
    assert receipt["verified"] == len(wanted)


def test_killed_and_disturbed_it_publishes_once(tmp_path, home, inputs):
    _, _, found = undergo(tmp_path, home, stride=18)
    assert len(found.kills) >= 5
    assert len(set(found.kills)) == len(found.kills)


@pytest.mark.soak
def test_killed_at_every_request_of_three_repositories(tmp_path, home, inputs):
    hub, artifact, found = undergo(tmp_path, home, stride=1, **SEVERAL)
    assert len(found.kills) >= 15
    assert all(met > 0 for met in found.faults.values())
    (collection,) = hub.store.collections.values()
    assert [item["id"] for item in collection["items"]] == [MODEL, ADAPTER, GGUF]
    assert collection["private"]
    assert artifact.manifest.facts["collection"].endswith(collection["slug"])
