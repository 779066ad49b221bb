"""`so8t run --flow four_class` and its deployment: a classifier on top of what a pipeline has made, under a real server."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from so8t import records
from so8t.artifacts import check_hashes
from so8t.classifier import Classifier
from so8t.labels import Label
from tests.conftest import ROOT, TINY, command, run
from tests.crash.campaign import ARGUMENTS
from tests.crash.tree import Api, Tree, contents

FLOW = "so8t-four-class/so8t-four-class"
CHECKPOINT_S = 300
# Its place among the phases of a training.
POLICY = 3


@pytest.fixture(scope="module")
def made(tiny, tiny_home, tmp_path_factory):
    """Home and result of the flow over a copy of the pipeline's artifacts."""
    home = tmp_path_factory.mktemp("four_class") / "home"
    shutil.copytree(tiny_home / "artifacts", home / "artifacts")
    ended = run("--flow", "four_class", *TINY, home=home)
    assert ended.code == 0, ended.err[-4000:]
    return home, ended.json


def told_by(home: Path):
    return json.loads(next((home / "sessions").glob("four_class-*/session.json")).read_text(encoding="utf-8"))


def test_it_shares_the_finished_steps(made, tiny):
    home, result = made
    assert [name for name, step in result["steps"].items() if not step["cached"]] == ["four_class"]
    assert result["steps"]["preprocess"]["content"] == tiny.json["steps"]["preprocess"]["content"]
    told = told_by(home)
    assert (told["kind"], told["status"]) == ("four_class", "completed")
    assert told["checkpoints"]


def test_its_artifact_is_whole_and_decides(made):
    _, result = made
    folder = Path(result["artifacts"]["four_class"])
    assert check_hashes(folder) == []
    classifier = Classifier.load(folder, Path(result["artifacts"]["collect.base"]))
    assert set(classifier.decide(["How do I boil an egg?", "Help me to steal."])) <= set(Label)


def history(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "history.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.soak
def test_the_reward_asks_it_in_a_training_that_is_killed_and_ends_in_the_same_bytes(made, tmp_path):
    asking = (*TINY, "--set", "train.reward.classifier=0.5", "--set", "machine.threads=1")
    for name in ("whole", "cut"):
        shutil.copytree(
            made[0] / "artifacts", tmp_path / name / "artifacts", ignore=lambda _, names: {"train"} & set(names)
        )
    whole = command("step", "train", *asking, "--json", home=tmp_path / "whole")
    assert whole.code == 0, whole.err[-4000:]
    rollouts = [
        row
        for row in history(next((tmp_path / "whole" / "artifacts" / "train").iterdir()))
        if "reward_classifier" in row
    ]
    assert len(rollouts) == 2
    kill_in_ppo(tmp_path / "cut", asking)
    again = command("step", "train", *asking, "--json", home=tmp_path / "cut")
    assert again.code == 0, again.err[-4000:]
    assert again.json["inputs"]["classifier"]["content"] == made[1]["steps"]["four_class"]["content"]
    assert again.json["facts"]["attempts"] == 2
    assert again.json["content"] == whole.json["content"]


def kill_in_ppo(home: Path, asking: tuple[str, ...]) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "so8t", "step", "train", *asking, "--set", "machine.checkpoint_interval_s=0.01", "--home", str(home)],
        cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    while process.poll() is None and not in_ppo(home):
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL


def in_ppo(home: Path) -> bool:
    """Whether the newest checkpoint lies after a step of the policy."""
    for state in home.glob("sessions/train-*/checkpoints/*/state.json"):
        with contextlib.suppress(FileNotFoundError):  # pruned
            values = json.loads(state.read_text(encoding="utf-8"))
            if values["phase"] == POLICY and values["inside"]:
                return True
    return False


@pytest.mark.soak
def test_a_pipeline_whose_unlabelled_prompts_it_labels(made, tmp_path):
    home, result = made
    kept = {"collect", "collect.base", "collect.source"}
    shutil.copytree(home / "artifacts", tmp_path / "home" / "artifacts", ignore=lambda at, names: (
        set(names) - kept if Path(at).name == "artifacts" else set()
    ))  # fmt: skip
    asking = f"preprocess.classifier={{folder: {json.dumps(result['artifacts']['four_class'])}}}"
    ended = run(*TINY, "--set", asking, home=tmp_path / "home")
    assert ended.code == 0, ended.err[-4000:]
    assert ended.json["state"] == "completed"
    classes = ended.json["steps"]["preprocess.classes[model]"]
    assert not classes["cached"]
    assert classes["facts"]["rows"] > 0
    found = records.read(Path(ended.json["artifacts"]["preprocess"]) / "model_labelled.parquet")
    assert found
    assert {row.label_source for row in found} == {f"model:{result['steps']['four_class']['content']}"}


@pytest.mark.soak
@pytest.mark.skipif(os.name == "nt", reason="halts and kills a whole tree by POSIX signals")
def test_cut_in_its_training_its_deployment_s_run_goes_on_by_itself(made, tmp_path):
    reference, home = made[0], tmp_path / "home"
    shutil.copytree(reference / "artifacts", home / "artifacts", ignore=lambda _, names: {"four_class"} & set(names))
    tree = Tree(home, *ARGUMENTS)
    tree.wait_for("worker  started")
    run_id = Api(home).start(FLOW)
    deadline = time.monotonic() + CHECKPOINT_S
    while not list((home / "sessions").glob("four_class-*/checkpoints/*/manifest.json")):
        assert time.monotonic() < deadline, tree.said()
        time.sleep(0.02)
    tree.cut()
    assert not list((home / "artifacts" / "four_class").glob("*/manifest.json"))
    tree = Tree(home, *ARGUMENTS)
    assert "resumed" in tree.wait_for("worker  started")
    ended = Api(home).wait(run_id, "Completed", "Failed")
    assert ended["state_name"] == "Completed", ended["state"]["message"]
    assert told_by(home)["resumes"]
    assert contents(home) == contents(reference)
    assert tree.stop() == 143
