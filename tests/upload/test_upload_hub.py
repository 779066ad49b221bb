"""The real client against the test Hub."""

import contextvars
import hashlib
import json
import sys
import threading
from types import SimpleNamespace

import httpx2
import huggingface_hub.constants
import numpy as np
import pytest
from huggingface_hub import ModelCard
from huggingface_hub.utils import _xet_progress_reporting

from so8t.artifacts import Store, hash_file
from so8t.errors import DamagedArtifact, InputError, ResourceError, StepFailed
from so8t.upload import sending
from so8t.upload.client import open_client
from so8t.upload.config import HubTarget, Upload
from so8t.upload.hub import LARGE_BYTES, Publisher
from so8t.upload.repository import Entry
from so8t.upload.retry import Backoff
from tests.hub import READ_TOKEN, WRITE_TOKEN, HubServer
from tests.upload.made import NAME, as_json, publish, results
from tests.upload.made import artifact as make

REPO = "tester/so8t-demo"
QUICK = Backoff(first_s=0.01, longest_s=0.05, patience_s=20.0)


@pytest.fixture
def hub(tmp_path, home, monkeypatch):
    # The client's own six tries pause for seconds; ours come after them.
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr("so8t.upload.publication.Backoff", lambda: QUICK)
    with HubServer(tmp_path / "hub", part_bytes=100_000, page_entries=7) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_TOKEN", WRITE_TOKEN)
        yield server


def to_hub(**more) -> Upload:
    return Upload(target=HubTarget(kind="hub", repo_id=REPO, **more))


def check_published(hub, artifact):
    """Every file of files.json lies on main, byte for byte, and nothing else does."""
    listed = {entry["path"]: entry for entry in json.loads((artifact.path / "files.json").read_text(encoding="utf-8"))}
    tree = hub.repo(REPO).tree("main")
    assert set(tree) == set(listed) | {".gitattributes"}
    for path, entry in listed.items():
        assert hashlib.sha256(hub.store.read("models", REPO, path)).hexdigest() == entry["sha256"], path


def test_publishes_privately_verifies_and_tags(hub, home, inputs):
    artifact, facts = publish(home, inputs, to_hub())
    repo = hub.repo(REPO)
    check_published(hub, artifact)
    assert repo.private
    assert facts["private"]
    assert facts["verified"] == facts["files"] == len(repo.tree("main")) - 1
    assert list(repo.branches) == ["main"]
    assert list(repo.tags.values()) == [repo.branches["main"]] == [facts["oid"]]
    assert facts["url"] == f"{hub.url}/{REPO}"
    receipt = json.loads((artifact.path / "receipt.json").read_text(encoding="utf-8"))
    assert receipt["oid"] == facts["oid"]
    assert WRITE_TOKEN not in (artifact.path / "receipt.json").read_text(encoding="utf-8") + str(artifact.manifest)
    assert hub.count("lfs-complete") > 0, "large files go in parts"
    # The model files are sent from their artifacts, not copied first.
    assert not list(artifact.path.rglob("*.gguf"))


def test_second_run_sends_nothing(hub, home, inputs, tmp_path):
    first, _ = publish(home, inputs, to_hub())
    before, commits = hub.sent_bytes(), hub.count("commit")
    (first.path).rename(tmp_path / "aside")
    second, _ = publish(home, inputs, to_hub())
    assert (hub.sent_bytes(), hub.count("commit")) == (before, commits)
    assert second.content == first.content


def test_changed_report_sends_only_what_changed_and_removes_strays(hub, home, inputs):
    publish(home, inputs, to_hub())
    puts = hub.count("lfs-put")
    files = {"results.json": as_json(results()), "report.md": b"# Another report\n"}
    changed = make(Store(home), "benchmark", files, key="b" * 64)
    more = {**inputs, "benchmark": changed}
    artifact, _ = publish(home, more, Upload(target=HubTarget(kind="hub", repo_id=REPO), tags=("so8t",)))
    check_published(hub, artifact)
    assert hub.count("lfs-put") == puts
    assert "eval/forest.png" not in hub.repo(REPO).tree("main")


ROUTES = ("whoami", "create", "info", "tree", "refs", "branch", "preupload", "lfs-batch", "lfs-put", "lfs-complete",
          "lfs-verify", "commit", "tag")  # fmt: skip


@pytest.mark.parametrize("status", [429, 503])
def test_passing_faults_are_outwaited(hub, home, inputs, status):
    for route in ROUTES:
        hub.fail(route, status, times=3, skip=1 if route == "commit" else 0, Retry_After="0")
    artifact, _ = publish(home, inputs, to_hub())
    check_published(hub, artifact)
    assert all(hub.count(route, status) == 3 for route in ROUTES)


@pytest.mark.parametrize("applied", [False, True])
def test_lost_connections_and_lost_answers(hub, home, inputs, applied):
    for route in ROUTES:
        hub.drop(route, times=2, applied=applied)
    artifact, facts = publish(home, inputs, to_hub())
    check_published(hub, artifact)
    repo = hub.repo(REPO)
    # A commit that was applied although its answer was lost is not made twice: first, staging, main.
    assert len(repo.commits) == 3
    assert repo.tags == {facts["tag"]: facts["oid"]}


def test_waiting_ends_with_an_error(hub, home, inputs, monkeypatch):
    monkeypatch.setattr(
        "so8t.upload.publication.Backoff", lambda: Backoff(first_s=0.01, longest_s=0.01, patience_s=0.3)
    )
    hub.fail("commit", 503, times=100_000)
    with pytest.raises(StepFailed, match="no success in 0 s of committing to staging"):
        publish(home, inputs, to_hub())


@pytest.mark.parametrize(
    ("token", "message"), [("no-such-token", "401"), (READ_TOKEN, "403"), ("", "no Hugging Face token")]
)
def test_bad_tokens_stop_at_once(hub, home, inputs, monkeypatch, token, message):
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(ResourceError, match=message) as caught:
        publish(home, inputs, to_hub())
    assert "do: " in str(caught.value)
    assert (token or "x" * 9) not in str(caught.value)
    assert hub.sent_bytes() == 0
    assert hub.count("whoami") <= 1


def test_another_owners_namespace_is_refused(hub, home, inputs):
    with pytest.raises(ResourceError, match="403"):
        publish(home, inputs, Upload(target=HubTarget(kind="hub", repo_id="someone/else")))


def test_existing_public_repository_is_refused_unless_asked_for(hub, home, inputs):
    hub.store.create("models", REPO, private=False)
    with pytest.raises(InputError, match="exists and is public"):
        publish(home, inputs, to_hub())
    assert hub.sent_bytes() == 0
    artifact, facts = publish(home, inputs, to_hub(private=False))
    check_published(hub, artifact)
    assert not facts["private"]


def test_wrong_bytes_on_the_hub_are_noticed(hub, home, inputs, monkeypatch):
    """A server that keeps other bytes than it was sent must not pass for a publication."""
    original = hub.store.put_blob

    def corrupting(data):
        return original(data.replace(b"# Report", b"# Rapport"))

    monkeypatch.setattr(hub.store, "put_blob", corrupting)
    with pytest.raises(StepFailed, match=r"are not what was sent: eval/report\.md"):
        publish(home, inputs, to_hub())
    assert set(hub.repo(REPO).tree("main")) == {".gitattributes"}, "main is touched only after staging was verified"


@pytest.mark.parametrize("name", ["report.md", "forest.png"])
def test_file_that_changes_after_the_check_is_noticed(hub, home, inputs, monkeypatch, name):
    def change(path):
        data = path.read_bytes()
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))

    original = Publisher._stage
    monkeypatch.setattr(Publisher, "_stage", lambda self: (change(inputs["benchmark"].path / name), original(self)))
    with pytest.raises(DamagedArtifact, match="changed while it was published"):
        publish(home, inputs, to_hub())
    assert set(hub.repo(REPO).tree("main")) == {".gitattributes"}


def test_three_repositories_and_a_collection(hub, home, inputs):
    gguf, adapter = f"{REPO}-gguf", f"{REPO}-adapter"
    config = to_hub(gguf_repo_id=gguf, adapter_repo_id=adapter, collection="SO8T models", gated="manual")
    artifact, facts = publish(home, inputs, config)
    assert [r["repo_id"] for r in facts["repositories"]] == [REPO, adapter, gguf]
    assert facts["verified"] == facts["files"]
    trees = {name: set(hub.repo(name).tree("main")) - {".gitattributes"} for name in (REPO, adapter, gguf)}
    every = {"README.md", "LICENSE", "provenance.json", "SHA256SUMS"}
    assert trees[gguf] == every | {"Modelfile", f"{NAME}-F16.gguf", f"{NAME}-Q8_0.gguf", f"{NAME}-mmproj-F16.gguf"}
    assert {"adapter.safetensors", "vision/adapter.safetensors", "head/head.json"} | every <= trees[adapter]
    assert {
        "model-00001-of-00001.safetensors",
        "eval/report.md",
        "data_card.md",
        "provenance_samples.jsonl",
    } | every <= trees[REPO]
    assert not [path for path in trees[REPO] if path.startswith(("gguf/", "adapter/", "head/")) or path == "Modelfile"]
    for name in trees:
        assert hub.repo(name).gated == "manual"
        sums = hub.store.read("models", name, "SHA256SUMS").decode().splitlines()
        assert {line.split("  ")[1] for line in sums} == trees[name] - {"SHA256SUMS"}
    assert "FROM ./" + NAME + "-Q8_0.gguf" in hub.store.read("models", gguf, "Modelfile").decode()
    cards = {name: ModelCard(hub.store.read("models", name, "README.md").decode()) for name in trees}
    assert (cards[gguf].data.base_model, cards[gguf].data.base_model_relation) == (REPO, "quantized")
    assert {result.metric_name for result in cards[REPO].data.eval_results} == {
        "accuracy of C-F16",
        "macro_f1 of C-F16",
    }
    assert len(cards[gguf].data.eval_results) == 4
    assert cards[adapter].data.eval_results is None
    assert f"(https://huggingface.co/{REPO}/blob/main/eval/report.md)" in cards[gguf].text
    (collection,) = hub.store.collections.values()
    assert [item["id"] for item in collection["items"]] == [REPO, adapter, gguf]
    assert facts["collection"] == f"{hub.url}/collections/{collection['slug']}"
    before = (hub.sent_bytes(), hub.count("commit"), hub.count("collection-items"))
    artifact.path.rename(home.with_name("aside"))
    publish(home, inputs, config)
    assert (hub.sent_bytes(), hub.count("commit"), hub.count("collection-items")) == before


def test_every_repository_is_judged_before_anything_is_sent(hub, home, inputs):
    hub.store.create("models", f"{REPO}-gguf", private=False)
    with pytest.raises(InputError, match="so8t-demo-gguf exists and is public"):
        publish(home, inputs, to_hub(gguf_repo_id=f"{REPO}-gguf"))
    assert hub.sent_bytes() == 0


def test_public_collection_is_refused_and_lost_answers_make_no_second_one(hub, home, inputs):
    for route in ("collections", "create-collection", "collection", "collection-items"):
        hub.drop(route, times=2, applied=True)
    publish(home, inputs, to_hub(collection="SO8T"))
    (collection,) = hub.store.collections.values()
    assert [item["id"] for item in collection["items"]] == [REPO]
    collection["private"] = False
    with pytest.raises(InputError, match="the collection 'SO8T' exists and is public"):
        publish(home, inputs, to_hub(collection="SO8T", gguf_repo_id=f"{REPO}-gguf"))


def test_silence_is_a_lost_connection(hub, home, inputs, monkeypatch):
    """The client's own requests have no limit of time: a server that never answers would hold the run for ever."""
    monkeypatch.setattr("so8t.upload.client.TIMEOUT", httpx2.Timeout(0.3))
    for route in ("info", "lfs-put", "commit"):
        hub.stall(route, 1.0, applied=True)
    artifact, _ = publish(home, inputs, to_hub())
    check_published(hub, artifact)
    assert len(hub.repo(REPO).commits) == 3


def test_told_to_be_offline_it_says_so(hub, home, inputs, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ResourceError, match="HF_HUB_OFFLINE is set"):
        publish(home, inputs, to_hub())


def test_incomplete_benchmark_is_not_published(hub, home, inputs):
    lacking = make(Store(home), "benchmark", {"results.json": as_json({**results(), "complete": False})}, key="d" * 64)
    with pytest.raises(InputError, match="the benchmark is incomplete"):
        publish(home, {**inputs, "benchmark": lacking}, to_hub())
    assert hub.requests == []


def test_repositories_must_differ():
    with pytest.raises(ValueError, match="must name different repositories"):
        HubTarget(kind="hub", repo_id="a/b", gguf_repo_id="A/b")


def test_publishes_by_xet_as_the_released_client_does(hub, home, inputs, monkeypatch, tmp_path):
    """The client's default way for large files, with hf_xet's own local store behind it."""
    pytest.importorskip("hf_xet")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", False)
    hub.xet = tmp_path / "xet"
    hub.xet.mkdir()
    artifact, facts = publish(home, inputs, to_hub())
    assert hub.count("lfs-put") == 0
    assert facts["verified"] == facts["files"]
    listed = {entry["path"]: entry for entry in json.loads((artifact.path / "files.json").read_text(encoding="utf-8"))}
    tree = hub.repo(REPO).tree("main")
    large = [path for path, file in tree.items() if file.lfs]
    assert len(large) > 5
    assert all(tree[path].lfs == listed[path]["sha256"] for path in large)
    stored = sum(path.stat().st_size for path in hub.xet.rglob("*") if path.is_file())
    assert stored > sum(listed[path]["size_bytes"] for path in large) / 2


def test_commit_by_someone_else_in_between_is_refused(hub, home, inputs, monkeypatch):
    original = Publisher._tree
    raced = []

    def racing(self, revision):
        tree = original(self, revision)
        if revision == "main" and hub.count("commit") == 1 and not raced:
            raced.append(True)
            repo = hub.repo(REPO)
            repo.append("main", "race", dict(repo.tree("main")))
        return tree

    monkeypatch.setattr(Publisher, "_tree", racing)
    with pytest.raises(StepFailed, match="412"):
        publish(home, inputs, to_hub())
    artifact, _ = publish(home, inputs, to_hub())
    check_published(hub, artifact)


@pytest.mark.parametrize("by_xet", [False, True])
def test_a_large_file_tells_how_far_it_is(hub, monkeypatch, tmp_path, by_xet):
    """On a slow line it takes hours, and whoever says nothing for an hour counts as hanging."""
    if by_xet:
        pytest.importorskip("hf_xet")
        hub.xet = tmp_path / "xet"
        hub.xet.mkdir()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", not by_xet)
    path = tmp_path / "model.gguf"
    path.write_bytes(np.random.default_rng(1).bytes(LARGE_BYTES))
    entry = Entry("model.gguf", path, LARGE_BYTES, hash_file(path))
    told, main = [], threading.get_ident()

    def report(done_bytes, message):
        told.append((done_bytes, message, threading.get_ident() == main))

    target = HubTarget(kind="hub", repo_id=REPO)
    Publisher(open_client(), target, "model", [entry], "c" * 64, report, QUICK).publish()
    sent = [done for done, message, _ in told if message == "sending model.gguf"]
    assert sent == sorted(sent)
    assert sent[-1] == LARGE_BYTES
    assert len(sent) >= (2 if by_xet else 80), "each part; of hf_xet, which is quick here, at least that all went"
    assert hub.count("lfs-put") == (0 if by_xet else 84)
    # hf_xet has a thread of its own, which a quick upload does not need.
    assert by_xet or all(here for _, _, here in told)
    assert huggingface_hub.utils.are_progress_bars_disabled(), "the library's bars are as they were"


def test_what_hf_xet_s_thread_says_is_told_in_the_caller_s_context():
    elsewhere = contextvars.ContextVar("elsewhere", default=None)
    elsewhere.set("here")
    told, sent = [], SimpleNamespace(total_bytes_completed=9, total_transfer_bytes_completed=7)
    with sending.heard(lambda sent_bytes: told.append((sent_bytes, elsewhere.get()))):
        ears = _xet_progress_reporting.XetUploadProgressReporter()
        for _ in range(2):
            thread = threading.Thread(target=ears.update_progress, args=(sent, {}))
            thread.start()
            thread.join()
    assert told == [(7, "here")], "Prefect cannot be asked without it; the same number again is no news"


def test_a_library_without_that_reporter_sends_all_the_same(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub.utils._xet_progress_reporting", None)
    monkeypatch.delattr(huggingface_hub.utils, "_xet_progress_reporting")
    with sending.heard(lambda sent_bytes: None):
        pass
