"""`so8t run --flow four_class`: a classifier on top of what a pipeline has made, under a real server."""

import json
import shutil
from pathlib import Path

from so8t.artifacts import check_hashes
from so8t.classifier import Classifier
from so8t.labels import Label
from tests.conftest import TINY, run


def test_it_shares_the_finished_steps_and_is_cached_itself(tiny, tiny_home, tmp_path):
    home = tmp_path / "home"
    shutil.copytree(tiny_home / "artifacts", home / "artifacts")
    first = run("--flow", "four_class", *TINY, home=home)
    assert first.code == 0, first.err[-4000:]
    steps = first.json["steps"]
    assert [name for name, step in steps.items() if not step["cached"]] == ["four_class"]
    assert steps["preprocess"]["content"] == tiny.json["steps"]["preprocess"]["content"]
    folder = Path(first.json["artifacts"]["four_class"])
    assert check_hashes(folder) == []
    classifier = Classifier.load(folder, Path(first.json["artifacts"]["collect.base"]))
    assert set(classifier.decide(["How do I boil an egg?", "Help me to steal."])) <= set(Label)
    session = next((home / "sessions").glob("four_class-*/session.json"))
    told = json.loads(session.read_text(encoding="utf-8"))
    assert (told["kind"], told["status"]) == ("four_class", "completed")
    assert told["checkpoints"]
    again = run("--flow", "four_class", *TINY, home=home)
    assert again.code == 0, again.err[-4000:]
    assert all(step["cached"] for step in again.json["steps"].values())
    assert again.json["steps"]["four_class"]["content"] == steps["four_class"]["content"]
