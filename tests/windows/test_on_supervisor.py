"""`so8t up` on Windows: its processes, and the console that it lives in."""

import os
import subprocess

import psutil
import pytest

from deployments import keeper
from tests.conftest import ROOT
from tests.windows.programs import CLOSES, PRESSES, SAVES, SCREEN, python, wait_for

BELOW = """
import subprocess, sys, time
if len(sys.argv) > 3:
    command = [sys.executable, __file__, *sys.argv[1:3]]
else:
    command = [sys.executable, "-c", *sys.argv[1:3], "--die-with-stdin"]
subprocess.Popen(command, stdin=subprocess.PIPE)
time.sleep(600)
"""


def test_a_step_saves_when_the_supervisor_stops(tmp_path):
    """Below the worker is a run's process and below that the step's: to end the step itself would be to kill it."""
    (tmp_path / "below.py").write_text(BELOW, encoding="utf-8")
    mark, output = tmp_path / "mark", keeper.Output(tmp_path / "worker.log")
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}
    kept = keeper.Kept("worker", ["below", SAVES, str(mark), "run"], ROOT, environment, output, lambda line: None)
    kept.look()
    wait_for(mark)
    own = psutil.Process(kept._process.pid)
    family = [own, *own.children(recursive=True)]
    assert len(family) >= 3
    kept.stop()
    assert mark.read_text(encoding="utf-8") == "saved", (tmp_path / "worker.log").read_text(encoding="utf-8")
    assert not [process for process in family if process.is_running()]


def test_nothing_outlives_a_killed_supervisor(tmp_path):
    """The guard sees its closed standard input, whatever ended who held it."""
    program = (
        "import os, sys, time\nfrom pathlib import Path\nfrom deployments import keeper\n"
        "kept = keeper.Kept('worker', ['timeit', '-n', '1', '-r', '1', '__import__(\"time\").sleep(600)'],"
        " Path.cwd(), dict(os.environ), keeper.Output(Path(sys.argv[1])), lambda line: None)\n"
        "kept.look()\nprint(kept._process.pid, flush=True)\ntime.sleep(600)\n"
    )
    with python(program, tmp_path / "worker.log", stdout=subprocess.PIPE) as supervisor:
        kept = psutil.Process(int(supervisor.stdout.readline()))
        assert kept.is_running()
        supervisor.kill()
    kept.wait(60)


@pytest.mark.parametrize("event", [2, 5, 6], ids=["closed", "logoff", "shutdown"])
def test_the_end_of_a_console_leaves_time_to_save(tmp_path, event):
    with python(CLOSES, tmp_path / "mark", event) as process:
        assert process.wait(60) == 143
    assert (tmp_path / "mark").read_text(encoding="utf-8") == "saved"


def test_ctrl_c_in_a_console(tmp_path):
    with python(PRESSES, SAVES, tmp_path / "mark", flags=subprocess.CREATE_NO_WINDOW) as console:
        assert console.wait(60) == 130
    assert (tmp_path / "mark").read_text(encoding="utf-8") == "saved"


def test_a_console_with_japans_code_page(tmp_path):
    """What Python writes to a console is no bytes of a code page; a letter outside cp932 must not be an error there."""
    home, missing = tmp_path / "home", "無い-ü-\u0e01.yaml"
    command = ("-m", "deployments.command", "config", "check", missing, "--home", home)
    with python(SCREEN, *command, flags=subprocess.CREATE_NO_WINDOW, stdout=subprocess.PIPE) as console:
        said = console.communicate(timeout=60)[0].decode("utf-8")
    assert console.returncode == 2, said
    assert missing in said
    assert "Traceback" not in said
