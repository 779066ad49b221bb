"""`so8t up` loses one of its processes, or is told to stop, while a run works."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

from tests.conftest import ROOT, TINY
from tests.crash.tree import Api, Tree

STANDIN = Path(__file__).parent / "standin"
QUICK = [*TINY, "--set", "machine.server_port=0", "--set", "machine.resume_interval_s=2"]
# Another cleanup than that of the home's finished run: the only step that is not cached.
ONE_STEP = [*QUICK, "--set", "cleanup.keep_logs=49"]
LONG_TRAINING = [*QUICK, "--set", "train.warmup.steps=200"]
WAIT_S = 180


def until(done, why=lambda: "", timeout_s=WAIT_S):
    """What `done` gives, once it gives something; `why` says what was seen instead."""
    deadline = time.monotonic() + timeout_s
    while not (found := done()):
        assert time.monotonic() < deadline, why()
        time.sleep(0.1)
    return found


def session(home: Path, run_id: str) -> dict:
    return json.loads((home / "sessions" / f"run-{run_id}" / "session.json").read_text(encoding="utf-8"))


class Standin:
    """A home whose finished run lacks its last step, and that step waits for a word."""

    def __init__(self, finished: Path, folder: Path) -> None:
        self.home, self.folder = folder / "home", folder
        shutil.copytree(finished / "artifacts", self.home / "artifacts")
        path = os.pathsep.join([str(STANDIN), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
        self.trees: list[Tree] = []
        self.environment = {"SO8T_STANDIN": str(folder), "PYTHONPATH": path}

    def up(self, *settings: str) -> Tree:
        tree = Tree(self.home, *ONE_STEP, *settings, environment=self.environment)
        self.trees.append(tree)
        tree.wait_for("worker  started")
        return tree

    def entered(self) -> list[int]:
        path = self.folder / "entered"
        return [int(line) for line in path.read_text(encoding="utf-8").split()] if path.exists() else []

    def go(self) -> None:
        (self.folder / "go").touch()


@pytest.fixture
def standin(tiny, tiny_home, tmp_path):
    made = Standin(tiny_home, tmp_path)
    yield made
    made.go()
    for tree in made.trees:  # of a test that failed
        if tree.process.poll() is None:
            tree.cut()
    for pid in made.entered():
        if psutil.pid_exists(pid):
            psutil.Process(pid).kill()


def worker_of(said: str) -> int:
    return int(re.findall(r"worker  started \(pid (\d+)\)", said)[-1])


def server_of(home: Path) -> dict[str, int]:
    return json.loads((home / "prefect" / "server.json").read_text(encoding="utf-8"))


def test_a_run_outlives_worker_server_and_supervisor(standin):
    """Each is killed alone. The run goes on, nobody doubles it, and it ends under its id with each task done once."""
    tree = standin.up()
    run_id = Api(standin.home).start()
    (pid,) = until(standin.entered, tree.said)
    flow, created = psutil.Process(pid), psutil.Process(pid).create_time()

    os.kill(worker_of(tree.said()), signal.SIGKILL)
    tree.wait_for("again in 2 s")
    until(lambda: tree.said().count("worker  started") == 2, tree.said)

    before = server_of(standin.home)
    os.kill(before["pid"], signal.SIGKILL)
    tree.wait_for("server  stopped")
    until(lambda: server_of(standin.home)["pid"] != before["pid"], tree.said)
    assert server_of(standin.home)["port"] == before["port"], "or the run would never find it again"

    below = [process for process in tree.family() if process.pid != pid]
    tree.process.kill()
    tree.process.wait()
    _, left = psutil.wait_procs([process for process in below if process.pid != tree.process.pid], timeout=30)
    assert not left, [process.cmdline() for process in left]

    tree = standin.up()
    assert server_of(standin.home)["port"] == before["port"]
    time.sleep(6)  # three looks
    assert "resume  " not in tree.said()
    assert (flow.is_running(), flow.create_time(), standin.entered()) == (True, created, [pid])
    assert Api(standin.home).run(run_id)["state_name"] == "Running"

    standin.go()
    Api(standin.home).wait(run_id, "Completed")
    assert (session(standin.home, run_id)["attempts"], standin.entered()) == (1, [pid])
    executed = Counter(task["name"] for task in Api(standin.home).tasks(run_id))
    assert set(executed.values()) == {1}
    assert tree.stop() == 143


@pytest.mark.soak
def test_told_to_stop_in_training_it_saves_first(tiny, tiny_home, tmp_path):
    """SIGTERM: an emergency checkpoint, exit code 143, no process left; the next start goes on from there to the end."""
    home = tmp_path / "home"
    shutil.copytree(tiny_home / "artifacts", home / "artifacts")
    tree = Tree(home, *LONG_TRAINING, "--set", "machine.checkpoint_interval_s=1000")
    tree.wait_for("worker  started")
    run_id = Api(home).start()
    until(lambda: list(home.glob("sessions/train-*/session.json")), tree.said)
    path = next(home.glob("sessions/train-*/session.json"))
    (said,) = until(lambda: list(home.glob("logs/*/train.progress.jsonl")), tree.said)
    until(lambda: '"warmup 20/200"' in said.read_text(encoding="utf-8"), tree.said)
    family = tree.family()
    began = time.monotonic()
    assert tree.stop() == 143, tree.said()
    took_s = time.monotonic() - began
    assert not [process for process in family if process.is_running()]
    saved = [p.name for p in home.glob("sessions/train-*/checkpoints/emergency-*") if "." not in p.name]
    assert saved, list(home.glob("sessions/train-*/checkpoints/*"))
    assert session(home, run_id)["status"] == "interrupted"
    assert took_s < 60

    tree = Tree(home, *LONG_TRAINING)
    resumes = until(lambda: json.loads(path.read_text(encoding="utf-8"))["resumes"], tree.said)
    assert resumes[-1]["checkpoint"] in saved
    assert f"resumed: {Api(home).run(run_id)['name']} ({run_id})" in tree.said()
    Api(home).wait(run_id, "Completed", timeout_s=900)
    assert tree.stop() == 143


def started(home: Path, environment: dict[str, str]) -> tuple[subprocess.Popen[str], Path]:
    """`so8t run` with the stand-in, and the file of its terminal output."""
    log = home.parent / f"run-{time.monotonic_ns()}.log"
    with log.open("w", encoding="utf-8") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "deployments.command", "run", "--home", str(home), *ONE_STEP],
            stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, cwd=ROOT,
            env={**os.environ, **environment}, text=True,
        )  # fmt: skip
    return process, log


def runs(home: Path) -> dict[str, dict]:
    """The pipeline's runs by id."""
    found = Api(home).post("/flow_runs/filter", limit=50, sort="START_TIME_ASC")
    return {run["id"]: run for run in found if "so8t" in run["tags"]}


@pytest.mark.soak
def test_a_killed_so8t_run_is_finished_by_so8t_up(standin):
    """The same flow run; `so8t resume` said twice at once beside the look of `so8t up` reschedules nothing twice."""
    process, log = started(standin.home, standin.environment)
    (pid,) = until(standin.entered, log.read_text)
    assert pid == process.pid
    process.kill()
    process.wait()

    tree = standin.up()
    (run_id,) = runs(standin.home)
    until(lambda: len(standin.entered()) == 2, tree.said)
    Api(standin.home).wait(run_id, "Running")
    flow = psutil.Process(standin.entered()[1])
    flow.kill()
    Api(standin.home).wait(run_id, "Crashed", "AwaitingRetry")
    command = [sys.executable, "-m", "deployments.command", "resume", run_id, "--home", str(standin.home)]
    twice = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) for _ in range(2)]
    codes = [process.wait(120) for process in twice]
    assert sorted(codes) in ([0, 1], [1, 1]), "at most one of them resumed it"
    until(lambda: len(standin.entered()) == 3, tree.said)
    standin.go()
    Api(standin.home).wait(run_id, "Completed")
    assert len(standin.entered()) == 3
    assert list(runs(standin.home)) == [run_id]
    assert session(standin.home, run_id)["attempts"] == 3
    assert tree.stop() == 143


@pytest.mark.soak
def test_ctrl_c_and_so8t_run_again(standin):
    """Exit code 130; the later run finishes, and `so8t up` lets the earlier one lie."""
    process, log = started(standin.home, standin.environment)
    until(standin.entered, log.read_text)
    process.send_signal(signal.SIGINT)
    assert process.wait(120) == 130, log.read_text(encoding="utf-8")

    again, log = started(standin.home, standin.environment)
    until(lambda: len(standin.entered()) == 2, log.read_text)
    again.kill()  # so its state stays Running, and both are interrupted
    again.wait()
    tree = standin.up()
    tree.wait_for("resume  superseded")
    earlier, later = runs(standin.home)
    standin.go()
    Api(standin.home).wait(later, "Completed")
    assert runs(standin.home)[earlier]["state_type"] == "CRASHED"
    assert tree.stop() == 143
