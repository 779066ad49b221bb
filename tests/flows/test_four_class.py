"""`so8t run --flow four_class` and its deployment: a classifier on top of what a pipeline has made, under a real server."""

import json
import os
import shutil
import time
from pathlib import Path

import pytest

from so8t.artifacts import check_hashes
from so8t.classifier import Classifier
from so8t.labels import Label
from tests.conftest import TINY, run
from tests.crash.campaign import ARGUMENTS
from tests.crash.tree import Api, Tree, contents

FLOW = "so8t-four-class/so8t-four-class"
CHECKPOINT_S = 300


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
