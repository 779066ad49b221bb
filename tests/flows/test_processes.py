"""Two processes of torchrun as the pipeline starts them: in the train step's child, by the config alone."""

import json
import shutil
from pathlib import Path

import pytest

from tests.conftest import TINY, run


@pytest.mark.soak
def test_a_pipeline_whose_training_is_shared(tiny, tiny_home, tmp_path):
    home = tmp_path / "home"
    shutil.copytree(tiny_home / "artifacts", home / "artifacts")
    shutil.rmtree(home / "artifacts" / "train")
    ended = run(*TINY, "--set", "machine.processes=2", "--set", "machine.threads=1", home=home)
    assert ended.code == 0, ended.err[-4000:]
    train = Path(ended.json["artifacts"]["train"])
    assert train.name == Path(tiny.json["artifacts"]["train"]).name
    assert not ended.json["steps"]["train"]["cached"]
    manifest = json.loads((train / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["facts"]["environment"]["processes"] == 2
    assert not list(home.glob("sessions/*/checkpoints/*.tmp*"))
