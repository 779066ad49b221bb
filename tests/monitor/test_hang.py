"""A step's process that hangs: found, its stacks written, ended, and the step completes in a fresh process."""

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path

import psutil
import pytest

from so8t import child, hang, stacks
from so8t.artifacts import Store
from so8t.config import load_config
from so8t.errors import StepFailed
from so8t.faults import POLICIES, Fault, classify
from so8t.monitor import ending, processes, stalls
from so8t.monitor.config import Monitor
from so8t.monitor.processes import Unit
from so8t.monitor.state import State
from so8t.step import Ref
from tests.conftest import ROOT, TINY

STANDIN = Path(__file__).parent / "standin"
REF = Ref("collect.source", "digits")
RUN = "00000000-0000-4000-8000-000000000001"
WAIT_S = 120


def until(done):
    deadline = time.monotonic() + WAIT_S
    while not (found := done()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


@pytest.fixture
def tried(tmp_path, monkeypatch):
    """Starts the step in a child, as a task does; gives the thread's outcome."""
    config, logs = load_config(Path(TINY[1]), [], tmp_path / "home"), tmp_path / "home" / "logs"
    logs.mkdir(parents=True)
    path = os.pathsep.join([str(STANDIN), str(ROOT)])
    monkeypatch.setenv("PYTHONPATH", path)
    outcomes = []

    def attempt():
        try:
            outcomes.append(child.run(REF, config, Store(config.home()), (), logs))
        except StepFailed as error:
            outcomes.append(error)

    def start():
        thread = threading.Thread(target=attempt)
        thread.start()
        return thread

    return start, outcomes


def hung(once: Path) -> Unit:
    """The process that has begun to hang, as the monitor sees it."""
    until(once.exists)
    own = psutil.Process()
    return until(lambda: processes.steps_of(own, RUN))[0]


END = """
import json, sys
from pathlib import Path
from so8t.monitor import ending
from so8t.monitor.processes import Unit
unit, why, grace_s = json.loads(sys.argv[1])
print(ending.end(Unit(**{**unit, "place": Path(unit["place"])}), why, grace_s))
"""


def end_elsewhere(unit: Unit, why: str, grace_s: float) -> str:
    """In another process than the parent of what is ended, as in life: waiting here would take the exit code away."""
    given = json.dumps([{**asdict(unit), "place": str(unit.place)}, why, grace_s])
    done = subprocess.run(
        [sys.executable, "-c", END, given], cwd=ROOT, check=True, capture_output=True, text=True, encoding="utf-8"
    )
    return done.stdout


@pytest.mark.parametrize(("how", "halted", "end"), [("sleep", True, "asked to"), ("native", False, "killed")])
def test_a_step_that_hangs_is_ended_and_begins_again(tried, tmp_path, monkeypatch, how, halted, end):
    start, outcomes = tried
    monkeypatch.setenv("SO8T_HANG", f"{how}:{tmp_path / 'once'}")
    thread = start()
    unit = hung(tmp_path / "once")
    assert unit.step == "collect.source-digits"
    settings, state = Monitor(stall_minutes=10), State()
    stalls.note(state, [(unit.key, unit.sign)], 0.0)
    stalls.note(state, [(unit.key, unit.sign)], 599.0)
    assert stalls.hanging(state, [unit], settings) == []
    stalls.note(state, [(unit.key, unit.sign)], 1.0)
    assert stalls.hanging(state, [unit], settings) == [unit]
    # Wine tells nobody that a process is suspended; on Windows native code that keeps the interpreter writes nothing.
    halted, writes = halted and os.name != "nt", os.name != "nt" or how == "sleep"
    if halted:
        psutil.Process(unit.pid).suspend()
        until(lambda: stalls.is_stopped(unit.pid))
    finding = stalls.finding_of(unit, state)
    assert ("stopped by a signal" in finding.found) == halted

    said = end_elsewhere(unit, finding.found, grace_s=3.0)
    thread.join(WAIT_S)
    assert end in said, said
    written = stacks.file_of(unit.place, unit.pid).read_text(encoding="utf-8")
    assert ("sitecustomize.py" in written) == writes
    assert ("in execute" in written) == writes
    (error,) = outcomes
    assert classify(error) is Fault.HANG
    assert POLICIES[Fault.HANG].retry
    assert "reported nothing" in str(error)

    start().join(WAIT_S)
    assert outcomes[1].manifest.step == "collect.source"
    assert ending.end(unit, "", 1.0) == "it had ended meanwhile"


# A training that saves on SIGTERM, in Python or in native code that lets other threads run.
SAVES = """
import sys, threading, time
from pathlib import Path
from so8t import hang
from so8t.errors import Interrupted
from so8t.loop.signals import Signals
def keep():
    Path(sys.argv[2]).write_text("saved", encoding="utf-8")
    return ""
hang.watch(hang.note_of(Path(sys.argv[1])))
signals = Signals(keep, leave_grace_s=0.5)
try:
    with signals:
        print("ready", flush=True)
        if sys.argv[3] == "native":
            threading.Semaphore(0).acquire()
        while True:
            time.sleep(0.05)
except Interrupted as stop:
    signals.outcome()
    sys.exit(stop.exit_code)
"""


@pytest.mark.parametrize("where", ["python", "native"])
def test_the_note_itself_asks_where_no_signal_can(tmp_path, where):
    """As on Windows, where a signal from outside is the end."""
    place, saved = tmp_path / "train.progress.jsonl", tmp_path / "saved"
    with subprocess.Popen(
        [sys.executable, "-c", SAVES, str(place), str(saved), where],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
    ) as process:
        assert process.stdout.read(5) == b"ready"
        hang.say(place, "it hung")
        assert process.wait(30) == 143
    assert saved.read_text(encoding="utf-8") == "saved"


ASKED = """
import sys, threading, time
from pathlib import Path
from so8t import stacks
stacks.answer(Path(sys.argv[1]), by_signal=False)
def waiting_here():
    time.sleep(60)
threading.Thread(target=waiting_here, daemon=True).start()
print("ready", flush=True)
sys.stdin.read()
"""


def test_stacks_without_signals(tmp_path):
    """As on Windows: a file asks. What stayed empty goes with the process, what a killed one left with the next."""
    place = tmp_path / "train.progress.jsonl"
    killed = subprocess.Popen([sys.executable, "-c", "pass"])
    killed.wait()
    stacks.file_of(place, killed.pid).touch()
    process = subprocess.Popen(
        [sys.executable, "-c", ASKED, str(place)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    )
    assert process.stdout.readline().strip() == b"ready"
    assert not stacks.file_of(place, killed.pid).exists()
    stacks.request_of(place, process.pid).touch()
    assert stacks.answered(place, process.pid, 0, wait_s=30)
    assert "in waiting_here" in stacks.file_of(place, process.pid).read_text(encoding="utf-8")
    process.communicate(b"")
    assert process.returncode == 0


def test_nobody_is_asked_who_does_not_answer(tmp_path):
    """The signal ends a process that has not said that it answers it."""
    with subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE) as process:
        assert ending.dump(tmp_path / "train.progress.jsonl", [process.pid]) == []
        process.communicate(b"")
    assert process.returncode == 0
