import errno
import os
import subprocess
import sys

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


def test_kill_before_rename_keeps_the_old(tmp_path):
    path = tmp_path / "a"
    durable.write_bytes(path, b"old")
    code = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom so8t import durable\n"
        "durable.replace = lambda *a: os.kill(os.getpid(), signal.SIGKILL)\n"
        "durable.write_bytes(Path(sys.argv[1]), b'new')\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert done.returncode == -9
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


def test_full_disk_says_what_to_do(tmp_path):
    with pytest.raises(ResourceError, match="disk is full"), durable.explain_full_disk(tmp_path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_nan_is_not_json(tmp_path):
    with pytest.raises(ValueError):
        durable.write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert not (tmp_path / "a.json").exists()
