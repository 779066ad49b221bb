"""Windows' system: consoles and their code pages, signals, processes, the task scheduler, sound."""

import os
import signal
import subprocess
import winreg
from pathlib import Path

import psutil
import pytest

from deployments.autostart import logon
from deployments.autostart.entry import Entry
from deployments.autostart.windows import installing_user, render, system_program
from so8t import child, recoveries, sound
from so8t.births import birth
from so8t.cli import DEFAULT_CONFIG, raise_on_signals
from so8t.errors import Interrupted
from so8t.faults import Fault
from so8t.monitor import ending
from so8t.monitor.processes import Unit
from tests.windows.programs import HEEDS, SAVES, python, wait_for

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


def test_a_child_is_asked_to_save_before_it_ends(tmp_path):
    """Neither TerminateProcess, which asks nobody, nor Ctrl+Break, which needs a common console."""
    process = python(SAVES, tmp_path / "mark", flags=subprocess.CREATE_NEW_PROCESS_GROUP)
    wait_for(tmp_path / "mark")
    child._stop(process)
    assert (tmp_path / "mark").read_text(encoding="utf-8") == "saved"
    assert process.returncode == 143


def test_a_step_that_hangs_saves_before_it_is_ended(tmp_path):
    """Who ends it is not its parent, so neither holds its standard input nor may send it more than its end."""
    mark, place = tmp_path / "mark", tmp_path / "train.progress.jsonl"
    process = python(HEEDS, mark, place)
    wait_for(mark)
    unit = Unit("run", "train", process.pid, birth(process.pid), place, "", attended=True)
    assert "it ended when it was asked to" in ending.end(unit, "it hung", grace_s=30)
    assert mark.read_text(encoding="utf-8") == "saved"
    assert process.wait() == 143


def test_a_child_of_a_killed_parent_saves_and_ends(tmp_path):
    """No job object: the system closes the pipe of a parent that was killed."""
    parent = (
        "import subprocess, sys, time\n"
        "process = subprocess.Popen([sys.executable, '-c', sys.argv[1], sys.argv[2]], stdin=subprocess.PIPE)\n"
        "print(process.pid, flush=True)\ntime.sleep(600)\n"
    )
    mark = tmp_path / "mark"
    with python(parent, SAVES, mark, stdout=subprocess.PIPE) as process:
        below = psutil.Process(int(process.stdout.readline()))
        wait_for(mark)
        process.kill()
    below.wait(60)
    assert mark.read_text(encoding="utf-8") == "saved"


def test_the_sound_says_what_played_it_or_nothing(tmp_path):
    """Without a device neither raises nor claims."""
    assert sound.play(tmp_path, "failed") in {"PlaySound", "Beep", ""}


def test_a_process_is_known_by_its_birth():
    with python("input()") as child:
        born = birth(child.pid)
        assert born == birth(child.pid) != birth(os.getpid())
        child.communicate()
    with pytest.raises(psutil.NoSuchProcess):
        birth(child.pid)


@pytest.mark.skipif(not WINE, reason="it would change how this machine logs on")
def test_whether_the_machine_logs_on_by_itself():
    with winreg.CreateKey(winreg.HKEY_LOCAL_MACHINE, logon.WINLOGON) as key:
        winreg.SetValueEx(key, "AutoAdminLogon", 0, winreg.REG_SZ, "0")
        assert logon.check_logon().state == "warn"
        winreg.SetValueEx(key, "AutoAdminLogon", 0, winreg.REG_SZ, "1")
        winreg.SetValueEx(key, "DefaultUserName", 0, winreg.REG_SZ, "太郎")
        found = logon.check_logon()
        for name in ("AutoAdminLogon", "DefaultUserName"):
            winreg.DeleteValue(key, name)
    assert found.state == "ok"
    assert "太郎" in found.found
    assert logon.check_logon().state == "warn"


def test_what_recovery_did_is_read_while_it_is_written(tmp_path):
    """The monitor and the UI's page read what a training appends to."""
    for n in range(3):
        recoveries.record(tmp_path, "train-k", step="train", fault=Fault.NOT_FINITE, policy="roll back", detail=f"{n}")
        with (tmp_path / "sessions" / "train-k" / recoveries.FILE).open("rb"):
            recoveries.record(tmp_path, "train-k", step="train", fault=Fault.HANG, policy="restart", detail=f"{n}")
            assert [one.detail for one in recoveries.read(tmp_path)][-2:] == [f"{n}", f"{n}"]
    assert len(recoveries.read(tmp_path)) == 6
