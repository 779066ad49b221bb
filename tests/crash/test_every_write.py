"""Processes killed before, in the middle of and after every durable change, and the same command again."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks, and asks /proc which file is flushed")
# One step of every shape: a part with a session, files of our own and of other libraries, a removal.
SHORT = ("collect.source[prompts]", "bake.fold", "bake.quantize[Q8_0]", "cleanup")


def campaign(folder, *steps):
    """In a process of its own: this one may have threads, and a fork would copy their locks."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    ended = subprocess.run(
        [sys.executable, "-m", "tests.crash.every_write", str(folder), *steps],
        cwd=ROOT, env=environment, capture_output=True, encoding="utf-8", check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout[-4000:] + ended.stderr[-4000:]
    return json.loads((folder / "points.json").read_text(encoding="utf-8"))


def moments(found, place):
    return {name.rsplit(" ", 1)[1] for name in found["list"] if place in name and not name.endswith(" removal")}


def test_killed_at_every_write_of_four_steps(tiny, tiny_home, tmp_path):
    for name in ("reference", "home"):
        shutil.copytree(tiny_home, tmp_path / name)
    found = campaign(tmp_path, *SHORT)
    assert {name.partition(" ")[0] for name in found["list"]} == set(SHORT)
    assert found["commands"] >= found["points"] > 80
    assert moments(found, ".partial/manifest.json ") == {"torn", "before", "after"}
    assert moments(found, "-Q8_0.gguf ") == {"torn", "before", "after"}
    assert {name for name in found["list"] if "/removed.json" in name}


@pytest.mark.soak
@pytest.mark.timeout(6 * 3600)
def test_killed_at_every_write_of_all_steps(tmp_path):
    found = campaign(tmp_path)
    for place in ("session.json by ", "/checkpoints/final-", "/checkpoints/rolling-", "samples.sqlite with "):
        assert moments(found, place) == {"torn", "before", "after"}, place
    assert found["points"] > 700
