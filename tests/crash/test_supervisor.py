"""`so8t up` loses one of its processes, or is told to stop, while a run works."""

import json
import os
import re
import shutil
import signal
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

from tests.conftest import TINY
from tests.crash.tree import Api, Tree

STANDIN = Path(__file__).parent / "standin"
QUICK = [*TINY, "--set", "machine.server_port=0", "--set", "machine.resume_interval_s=2"]
# Another cleanup than that of the home's finished run: the only step that is not cached.
ONE_STEP = [*QUICK, "--set", "cleanup.keep_logs=49"]
LONG_TRAINING = [*QUICK, "--set", "train.warmup.steps=100000"]
WAIT_S = 180


def until(done, why="", timeout_s=WAIT_S):
    deadline = time.monotonic() + timeout_s
    while not (found := done()):
        assert time.monotonic() < deadline, why
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
        self.environment = {"SO8T_STANDIN": str(folder), "PYTHONPATH": path}

    def up(self) -> Tree:
        tree = Tree(self.home, *ONE_STEP, environment=self.environment)
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


def test_told_to_stop_in_training_it_saves_first(tiny, tiny_home, tmp_path):
    """SIGTERM: an emergency checkpoint, exit code 143, no process left; the next start goes on from there."""
    home = tmp_path / "home"
    shutil.copytree(tiny_home / "artifacts", home / "artifacts")
    tree = Tree(home, *LONG_TRAINING, "--set", "machine.checkpoint_interval_s=1000")
    tree.wait_for("worker  started")
    run_id = Api(home).start()
    until(lambda: list(home.glob("sessions/train-*/session.json")), tree.said)
    path = next(home.glob("sessions/train-*/session.json"))
    until(lambda: json.loads(path.read_text(encoding="utf-8"))["current_step"] > 0, tree.said)
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
    tree.cut()
