import errno
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from so8t import durable
from so8t.errors import ResourceError


def test_write_replaces_whole(tmp_path):
    path = tmp_path / "deep" / "a.json"
    durable.write_json(path, {"b": 1, "a": "日本"})
    assert path.read_bytes() == '{\n  "a": "日本",\n  "b": 1\n}\n'.encode()
    durable.write_text(path, "x\n")
    assert path.read_bytes() == b"x\n"
    assert [p.name for p in path.parent.iterdir()] == ["a.json"]


def test_failed_write_keeps_the_old(tmp_path):
    path = tmp_path / "a"
    durable.write_bytes(path, b"old")
    with pytest.raises(RuntimeError), durable.open_for_write(path) as file:
        file.write(b"new, but not all of it")
        raise RuntimeError
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_kill_before_rename_keeps_the_old(tmp_path):
    path = tmp_path / "a"
    durable.write_bytes(path, b"old")
    code = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom so8t import durable\n"
        "durable.replace = lambda *a: os.kill(os.getpid(), getattr(signal, 'SIGKILL', signal.SIGTERM))\n"
        "durable.write_bytes(Path(sys.argv[1]), b'new')\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert done.returncode == (signal.SIGTERM if os.name == "nt" else -signal.SIGKILL)
    assert path.read_bytes() == b"old"


def test_sharing_violation_is_retried_for_a_bounded_time(monkeypatch):
    monkeypatch.setattr(durable, "SHARING_RETRY_S", 0.2)
    attempts = []

    def act(until):
        attempts.append(1)
        if len(attempts) < until:
            error = PermissionError(errno.EACCES, "busy")
            error.winerror = 32
            raise error
        return "done"

    assert durable.retry_sharing(lambda: act(3)) == "done"
    attempts.clear()
    with pytest.raises(PermissionError):
        durable.retry_sharing(lambda: act(10**9))
    assert 2 <= len(attempts) < 100


@pytest.mark.parametrize(
    ("code", "words"),
    [(errno.ENOSPC, "disk is full"), (errno.EDQUOT, "quota"), (errno.EIO, "disk failed"), (errno.EROFS, "cannot write"),
     (errno.EACCES, "cannot write"), (errno.EMFILE, "too many files"), (errno.EFBIG, "too large")],
)  # fmt: skip
def test_what_the_disk_refuses_is_explained(tmp_path, code, words):
    with pytest.raises(ResourceError, match=words) as caught, durable.explain_full_disk(tmp_path / "a"):
        raise OSError(code, os.strerror(code))
    assert str(tmp_path / "a") in caught.value.found
    assert caught.value.do.endswith("it goes on from here")


def test_an_error_that_names_its_file_is_told_of_that_file(tmp_path):
    with pytest.raises(ResourceError, match=r"b\.json ") as caught, durable.explain_full_disk(tmp_path / "a"):
        raise PermissionError(errno.EACCES, "denied", str(tmp_path / "b.json.0123abcd.tmp"))
    assert ".tmp" not in str(caught.value)


def test_other_errors_pass_unchanged(tmp_path):
    with pytest.raises(FileNotFoundError), durable.explain_full_disk(tmp_path):
        raise FileNotFoundError(errno.ENOENT, "gone", "x")


def test_two_writers_of_one_file_never_mix(tmp_path):
    path, sizes = tmp_path / "a", (40_000, 60_000)
    seen, stop = set(), threading.Event()

    def write(size: int) -> None:
        while not stop.is_set():
            durable.write_bytes(path, bytes([size % 251]) * size)

    threads = [threading.Thread(target=write, args=(size,)) for size in sizes]
    for thread in threads:
        thread.start()
    began = time.monotonic()
    while time.monotonic() - began < 0.5 or (len(seen) < 2 and time.monotonic() - began < 30):
        if path.exists():
            seen.add(durable.retry_sharing(path.read_bytes))
        time.sleep(0.002)
    stop.set()
    for thread in threads:
        thread.join()
    assert seen == {bytes([size % 251]) * size for size in sizes}
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_leftovers_of_killed_writers_go_when_they_are_old(tmp_path):
    old, young, other = (tmp_path / name for name in ("a.0123abcd.tmp", "a.0123abce.tmp", "ab.0123abcd.tmp"))
    for path in (old, young, other):
        path.write_bytes(b"torn")
    long_ago = time.time() - durable.STALE_S - 60
    for path in (old, other):
        os.utime(path, (long_ago, long_ago))
    durable.write_bytes(tmp_path / "a", b"whole")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "a.0123abce.tmp", "ab.0123abcd.tmp"]


def test_new_folders_are_durable_in_those_that_hold_them(tmp_path, monkeypatch):
    flushed = []
    real = durable.fsync_folder
    monkeypatch.setattr(durable, "fsync_folder", lambda folder: (flushed.append(folder), real(folder)))
    durable.write_bytes(tmp_path / "x" / "y" / "a", b"1")
    assert flushed == [tmp_path, tmp_path / "x", tmp_path / "x" / "y"]
    flushed.clear()
    durable.write_bytes(tmp_path / "x" / "y" / "a", b"2")
    assert flushed == [tmp_path / "x" / "y"]


def test_a_file_whose_fsync_failed_is_thrown_away(tmp_path, monkeypatch):
    """After a failed fsync the kernel may hold the pages for clean: the next fsync would succeed on lost bytes."""
    calls = []

    def fail(fd: int) -> None:
        calls.append(fd)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(ResourceError, match="disk failed"):
        durable.write_bytes(tmp_path / "a", b"bytes")
    (tmp_path / "b").write_bytes(b"bytes")
    with pytest.raises(OSError):
        durable.fsync_file(tmp_path / "b")
    assert len(calls) == 2
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_rename_is_repeated():
    attempts = []

    def act():
        attempts.append(1)
        if len(attempts) < 3:
            raise InterruptedError(errno.EINTR, "interrupted")
        return "done"

    assert durable.retry_sharing(act) == "done"


def test_nan_is_not_json(tmp_path):
    with pytest.raises(ValueError):
        durable.write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert not (tmp_path / "a.json").exists()
