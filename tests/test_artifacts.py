import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from so8t import artifacts
from so8t.artifacts import Store, check_hashes, check_sizes
from so8t.errors import ResourceError, StepFailed


def manifest(key="k1", step="demo"):
    return {
        "step": step, "version": 1, "key": key, "inputs": {}, "config": {}, "facts": {"n": 1}, "code": {}, "packages": {},
        "machine": {}, "started_at": "2026-01-01T00:00:00+00:00", "finished_at": "2026-01-01T00:00:02+00:00",
    }  # fmt: skip


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


def make(store, key="k1", files=None, volatile=frozenset()):
    with store.working("demo", key) as out:
        for name, data in (files or {"a.txt": b"one", "sub/b.bin": b"two"}).items():
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            (out / name).write_bytes(data)
        return store.commit(out, manifest(key), volatile)


def test_commit_then_find(store):
    made = make(store)
    found = store.find("demo", "k1")
    assert found == made
    assert found.seconds == 2.0
    assert {f.path: f.size_bytes for f in found.manifest.files} == {"a.txt": 3, "sub/b.bin": 3}
    assert check_hashes(found.path) == []
    assert [p.name for p in store.root.glob("demo/*")] == ["k1"]


def test_partial_is_no_artifact_and_keeps_its_files(store):
    with store.working("demo", "k1") as out:
        (out / "begun").write_bytes(b"x")
    assert store.find("demo", "k1") is None
    with store.working("demo", "k1") as out:
        assert (out / "begun").read_bytes() == b"x"


def test_tmp_files_are_dropped(store):
    made = make(store, files={"a": b"1", "a.tmp": b"torn", "d/c.tmp": b"torn"})
    assert [f.path for f in made.manifest.files] == ["a"]


def test_content_ignores_volatile_files_and_the_key(store):
    first = make(store, "k1", {"a": b"1", "speed.json": b"3 s", "live/x": b"1"}, frozenset({"speed.json", "live/"}))
    second = make(store, "k2", {"a": b"1", "speed.json": b"9 s", "live/x": b"2"}, frozenset({"speed.json", "live/"}))
    third = make(store, "k3", {"a": b"2", "speed.json": b"3 s", "live/x": b"1"}, frozenset({"speed.json", "live/"}))
    assert first.content == second.content != third.content


@pytest.mark.parametrize("damage", ["shorter", "gone", "no manifest", "torn manifest"])
def test_damage_seen_at_find_is_set_aside(store, damage):
    folder = make(store).path
    if damage == "shorter":
        (folder / "a.txt").write_bytes(b"on")
    elif damage == "gone":
        (folder / "a.txt").unlink()
    elif damage == "no manifest":
        (folder / "manifest.json").unlink()
    else:
        text = (folder / "manifest.json").read_bytes()
        (folder / "manifest.json").write_bytes(text[: len(text) // 2])
    assert store.peek("demo", "k1") is None
    assert folder.exists(), "peek changes nothing"
    assert store.find("demo", "k1") is None
    assert (store.root / "demo" / "k1.damaged-1").is_dir()
    make(store)
    (store.path("demo", "k1") / "a.txt").unlink()
    assert store.find("demo", "k1") is None
    assert (store.root / "demo" / "k1.damaged-2").is_dir(), "never deleted silently, never overwritten"


def test_one_flipped_byte_is_named(store):
    folder = make(store).path
    (folder / "sub" / "b.bin").write_bytes(b"twO")
    assert check_sizes(folder) == []
    problems = check_hashes(folder)
    assert [p.file for p in problems] == ["sub/b.bin"]
    assert "sha256" in problems[0].what


def test_foreign_file_is_named(store):
    folder = make(store).path
    (folder / "extra").write_bytes(b"?")
    assert [p.file for p in check_hashes(folder)] == ["extra"]


def _hold(home, ready, release):
    with Store(Path(home)).working("demo", "k1"):
        ready.set()
        release.wait(30)


def test_one_worker_a_key(store, monkeypatch):
    monkeypatch.setattr(artifacts, "LOCK_WAIT_S", 0.3)
    context = multiprocessing.get_context("spawn")
    ready, release = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(str(store.home), ready, release))
    other.start()
    try:
        assert ready.wait(30)
        with pytest.raises(ResourceError, match="another process"), store.working("demo", "k1"):
            pass
    finally:
        release.set()
        other.join()
    with store.working("demo", "k1"):
        pass


KILLED_COMMIT = """
import os, signal, sys
from pathlib import Path
from so8t import artifacts, durable
from tests.test_artifacts import make
calls = {"n": 0}
def die(real):
    def act(*args):
        calls["n"] += 1
        if calls["n"] == int(sys.argv[2]):
            os.kill(os.getpid(), getattr(signal, 'SIGKILL', signal.SIGTERM))
        return real(*args)
    return act
for name in ("fsync_file", "fsync_folder", "replace", "write_json"):
    setattr(durable, name, die(getattr(durable, name)))
make(artifacts.Store(Path(sys.argv[1])))
"""


@pytest.mark.parametrize("nth", range(1, 9))
def test_killed_commit_is_all_or_nothing(tmp_path, nth):
    done = subprocess.run([sys.executable, "-c", KILLED_COMMIT, str(tmp_path), str(nth)], check=False)
    store = Store(tmp_path)
    found = store.find("demo", "k1")
    if found is None:
        assert done.returncode == (signal.SIGTERM if os.name == "nt" else -signal.SIGKILL)
        found = make(store)
    assert check_hashes(found.path) == []
    assert not list(store.root.glob("demo/*.damaged-*"))


def test_two_commits_of_one_key_are_refused(store):
    make(store)
    with store.working("demo", "k1") as out:
        (out / "a").write_bytes(b"1")
        with pytest.raises(StepFailed, match="exists already"):
            store.commit(out, manifest(), frozenset())
