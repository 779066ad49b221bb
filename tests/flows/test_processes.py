"""Two processes of torchrun as the pipeline starts them: in the train step's child, by the config alone."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT, TINY, command, listeners, run

SHARED = ("--set", "machine.processes=2", "--set", "machine.threads=1")


@pytest.fixture
def home(tiny, tiny_home, tmp_path):
    """Everything but the training."""
    shutil.copytree(tiny_home / "artifacts", tmp_path / "home" / "artifacts")
    shutil.rmtree(tmp_path / "home" / "artifacts" / "train")
    return tmp_path / "home"


def processes_of(train: Path) -> int:
    return json.loads((train / "manifest.json").read_text(encoding="utf-8"))["facts"]["environment"]["processes"]


@pytest.mark.soak
def test_a_pipeline_whose_training_is_shared(tiny, home):
    ended = run(*TINY, *SHARED, home=home)
    assert ended.code == 0, ended.err[-4000:]
    train = Path(ended.json["artifacts"]["train"])
    assert train.name == Path(tiny.json["artifacts"]["train"]).name
    assert not ended.json["steps"]["train"]["cached"]
    assert processes_of(train) == 2
    assert not list(home.glob("sessions/*/checkpoints/*.tmp*"))


@pytest.mark.soak
def test_the_step_alone_is_shared_stopped_and_goes_on_to_the_same_bytes(tiny, home, tmp_path):
    shutil.copytree(home, tmp_path / "cut")
    whole = command("step", "train", *TINY, *SHARED, home=home)
    assert whole.code == 0, whole.err[-4000:]
    reached = stopped_in_training(tmp_path / "cut")
    assert reached == {"127.0.0.1"}
    again = command("step", "train", *TINY, *SHARED, "--json", home=tmp_path / "cut")
    assert again.code == 0, again.err[-4000:]
    assert again.json["facts"]["environment"]["processes"] == 2
    assert again.json["facts"]["attempts"] == 2
    assert again.json["content"][:12] in whole.out


def stopped_in_training(home: Path) -> set[str]:
    """SIGTERM once the first steps are done; where the processes listened before."""
    process = subprocess.Popen(
        [sys.executable, "-m", "so8t", "step", "train", *TINY, *SHARED, "--home", str(home)],
        cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    reached = set()
    while process.poll() is None and not any(home.glob("sessions/train-*/checkpoints/*")):
        reached |= listeners(process.pid)
        time.sleep(0.05)
    reached |= listeners(process.pid)
    process.terminate()
    told = process.communicate()[1].decode("utf-8")
    assert process.returncode == 128 + signal.SIGTERM, told
    return reached
