"""What an attempt leaves of itself; on a full disk it still ends as it ended."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from so8t import child
from so8t.attempt import LOGS_VARIABLE, recorded
from so8t.config import Notify
from so8t.errors import InputError, Interrupted, ResourceError, StepFailed
from so8t.faults import Fault, classify, evidence
from so8t.session import SessionFile, read
from so8t.step import Ref

ROOT = Path(__file__).parent.parent

SILENT = Notify(sound=False)
ENDS = [
    (KeyboardInterrupt("stopped"), "interrupted"),
    (Interrupted("stopped"), "interrupted"),
    (StepFailed("no"), "failed"),
]


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home, and no attempt of another test's process."""
    monkeypatch.setenv(LOGS_VARIABLE, "")
    return tmp_path / "home"


@pytest.fixture
def small(tmp_path):
    """A disk of 256 kB."""
    disk = tmp_path / "small"
    disk.mkdir()
    if (
        os.name == "nt"
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)], check=False).returncode
    ):
        pytest.skip("no right to mount here")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def _fill(disk):
    with (disk / "filler").open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            return


@pytest.mark.parametrize(("error", "state"), ENDS)
def test_an_end_is_noted(home, error, state):
    session = SessionFile.open(home, "run-1", "run")
    with pytest.raises(type(error)) as raised, recorded(home, session, SILENT):
        raise error
    assert raised.value is error
    logs = home / "logs" / "attempt_1"
    assert json.loads((logs / "summary.json").read_text(encoding="utf-8"))["state"] == state
    assert json.loads((logs / "errors.jsonl").read_text(encoding="utf-8"))["type"] == type(error).__name__
    assert read(session.folder).status == state


def test_the_password_of_an_address_is_told_to_nobody(home):
    session = SessionFile.open(home, "run-1", "run")
    with pytest.raises(StepFailed), recorded(home, session, SILENT):
        raise StepFailed("no answer of https://me:hushhush@mirror.example/api")
    child.write_error(home / "error.json", InputError("https://me:hushhush@mirror.example is gone", "it", "look"))
    noted = [path for path in home.rglob("*") if path.is_file()]
    assert {"summary.json", "errors.jsonl", "notices.jsonl", "error.json"} <= {path.name for path in noted}
    assert [path for path in noted if b"hushhush" in path.read_bytes()] == []


@pytest.mark.parametrize(("error", "state"), ENDS)
def test_on_a_full_disk_the_error_that_ends_a_run_is_the_one_that_arrives(home, small, capsys, error, state):
    session = SessionFile.open(small, "run-1", "run")
    with pytest.raises(type(error)) as raised, recorded(small, session, SILENT):
        _fill(small)
        raise error
    assert raised.value is error
    assert "took no note of how the run ended" in capsys.readouterr().err
    assert read(session.folder).status == "running"  # what was there is whole


def test_a_run_whose_notes_do_not_fit_has_not_completed(home, small):
    with pytest.raises(ResourceError, match="the disk is full"), recorded(small, None, SILENT):
        _fill(small)


def test_a_disk_too_full_for_the_error_is_told_by_the_exit_code(small, tmp_path):
    """Whoever runs the step waits for room; the log lies on that disk too."""
    logs = small / "logs"
    logs.mkdir()
    ref, files = Ref("collect.source", "prompts"), {"error": logs / "error.json", "log": logs / "log"}
    with files["log"].open("wb") as log:
        _fill(small)
        ended = subprocess.run(
            [sys.executable, "-m", "so8t", "step", "collect.source", "--part", "prompts", "--home", str(small / "home"),
             "--config", str(ROOT / "configs" / "smoke.yaml"), "--error-file", str(files["error"])],
            check=False, stdout=log, stderr=log, cwd=ROOT, env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
    assert not files["error"].exists()
    assert ended.returncode == child.NO_ROOM
    error = child._error(ref, ended.returncode, Fault.UNKNOWN, files)
    assert classify(error) is Fault.DISK_FULL
    assert evidence(error)["place"] == str(files["error"])


def test_on_a_full_disk_a_step_ends_with_its_own_error(home, small):
    _fill(small)
    ended = subprocess.run(
        [sys.executable, "-m", "so8t", "step", "nothing", "--home", str(home), "--error-file", str(small / "error.json")],
        check=False, capture_output=True, text=True, encoding="utf-8", cwd=ROOT,
    )  # fmt: skip
    assert ended.returncode == 2, ended.stderr
    assert "took no note of how the run ended" in ended.stderr
    assert "nothing" in ended.stderr
