"""A base in a folder of the user's own, after it was collected."""

import os
import shutil

import pytest

from so8t.artifacts import Store
from so8t.collect.basemodel import demo
from so8t.collect.config import DemoBase
from so8t.config import Machine, load_config
from so8t.preflight import local_base
from so8t.preflight.look import LASTS
from so8t.preflight.scene import set_scene
from so8t.progress import Progress
from so8t.step import execute
from tests.conftest import ROOT

TINY = {"steps": 1, "batch": 1, "length": 8, "hidden": 64, "layers": 2}


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    demo.make(DemoBase(kind="demo", **TINY), folder, Progress("collect.base", Machine(), folder))
    return folder


def test_a_base_that_changed_after_it_was_collected_is_told(original, tmp_path):
    folder = shutil.copytree(original, tmp_path / "my base")
    override = f"base={{kind: local, path: '{folder.as_posix()}'}}"
    config = load_config(ROOT / "configs" / "demo.yaml", [override], tmp_path / "home")

    def look():
        return local_base.check(set_scene(config, LASTS["pipeline"]))

    assert look() == []
    made = execute(local_base.COLLECTED, config, Store(tmp_path / "home"))
    assert [finding.state for finding in look()] == ["ok"]
    # What is no data of the model is not collected, and the same bytes written again are the same.
    (folder / "modeling.py").write_text("", encoding="utf-8", newline="\n")
    weights = min(folder.glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes())
    assert [finding.state for finding in look()] == ["ok"]
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    # The time that a copying tool keeps tells nothing.
    os.utime(weights, (1e9, 1e9))
    (folder / "README.md").unlink()
    (found,) = look()
    assert (found.state, str(made.path) in found.do) == ("warn", True)
    assert f"(README.md, {weights.name})" in found.found
    shutil.rmtree(folder)
    assert look() == []
