"""Windows' system: consoles and their code pages, signals, processes, the task scheduler, sound."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from deployments.autostart.entry import Entry
from deployments.autostart.windows import installing_user, render, system_program
from so8t import child, sound
from so8t.cli import DEFAULT_CONFIG, raise_on_signals
from so8t.errors import Interrupted
from tests.conftest import ROOT

WINE = (Path(os.environ.get("SYSTEMROOT", r"C:\Windows")) / "System32" / "winecfg.exe").exists()


@pytest.mark.skipif(not WINE, reason="it would register a task of the person who runs this")
def test_the_scheduler_takes_our_definition(tmp_path):
    entry = Entry(tmp_path / "日本 home", DEFAULT_CONFIG)
    task = tmp_path / "task.xml"
    task.write_bytes(render(entry, installing_user()))

    # Not captured: Wine's services would hold the pipe open.
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}

    def schtasks(*words):
        return subprocess.run([system_program("schtasks.exe"), *words], check=False, **quiet).returncode

    assert schtasks("/create", "/xml", str(task), "/tn", entry.name) == 0
    assert schtasks("/create", "/xml", str(task), "/tn", entry.name) == 1, "the first one was not kept"
    assert schtasks("/delete", "/tn", entry.name, "/f") == 0
    assert schtasks("/delete", "/tn", entry.name, "/f") == 1


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGBREAK"])
def test_signals_become_an_exception(name):
    """SIGBREAK is Ctrl+Break and a console that closes."""
    before = {each: signal.getsignal(getattr(signal, each)) for each in ("SIGINT", "SIGTERM", "SIGBREAK")}
    try:
        raise_on_signals()
        with pytest.raises(Interrupted, match=name):
            signal.raise_signal(getattr(signal, name))
    finally:
        child.stopping.clear()
        for each, handler in before.items():
            signal.signal(getattr(signal, each), handler)


SAVES = (
    "import sys, time\nfrom pathlib import Path\nfrom so8t import child\nfrom so8t.cli import raise_on_signals\n"
    "from so8t.errors import Interrupted\nraise_on_signals(); child.die_with_stdin()\nPath(sys.argv[1]).touch()\n"
    "try:\n    while True:\n        time.sleep(0.05)\n"
    "except Interrupted as stop:\n    Path(sys.argv[1]).write_text('saved', encoding='utf-8'); sys.exit(stop.exit_code)\n"
)


def _started(path):
    process = subprocess.Popen(
        [sys.executable, "-c", SAVES, str(path)], cwd=ROOT, stdin=subprocess.PIPE,
        creationflags=subprocess.CREATE_NEW_PROCESS_GROUP,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    return process


def test_a_child_is_asked_to_save_before_it_ends(tmp_path):
    """Neither TerminateProcess, which asks nobody, nor Ctrl+Break, which needs a common console."""
    process = _started(tmp_path / "mark")
    child._stop(process)
    assert (tmp_path / "mark").read_text(encoding="utf-8") == "saved"
    assert process.returncode == 143


def test_a_child_of_a_killed_parent_saves_and_ends(tmp_path):
    """No job object: the system closes the pipe of a parent that was killed."""
    parent = (
        "import subprocess, sys, time\n"
        "process = subprocess.Popen([sys.executable, '-c', sys.argv[1], sys.argv[2]], stdin=subprocess.PIPE)\n"
        "print(process.pid, flush=True)\ntime.sleep(600)\n"
    )
    mark = tmp_path / "mark"
    with subprocess.Popen(
        [sys.executable, "-c", parent, SAVES, str(mark)], cwd=ROOT, stdout=subprocess.PIPE, stdin=subprocess.PIPE
    ) as process:
        below = psutil.Process(int(process.stdout.readline()))
        deadline = time.monotonic() + 60
        while not mark.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        process.kill()
    below.wait(60)
    assert mark.read_text(encoding="utf-8") == "saved"


def test_the_sound_says_what_played_it_or_nothing(tmp_path):
    """Without a device neither raises nor claims."""
    assert sound.play(tmp_path, "failed") in {"PlaySound", "Beep", ""}
