"""The power fails under `so8t up`, and only `so8t up` is started again."""

import os
import shutil
import time

import pytest

from tests.crash.campaign import ARGUMENTS, Report, campaign, compare, look
from tests.crash.tree import Api, Tree, contents

pytestmark = pytest.mark.skipif(os.name == "nt", reason="halts and kills a whole tree by POSIX signals")
# Cut as soon as one of these is at work: one that goes on from a checkpoint, and parts that run side by side. Any instant of
# any other is cut in the campaign of 300, and each single write in test_every_write.py.
STEPS = ("train", "bake", "benchmark.cell")
# What lies there before the first of them.
DONE = ("collect.base", "collect.source", "collect", "preprocess.shard", "preprocess")
STEP_S = 180


def test_cut_in_its_steps_a_run_completes_under_its_own_id(tiny, tiny_home, tmp_path):
    home, report = tmp_path / "home", Report()
    for done in DONE:
        shutil.copytree(tiny_home / "artifacts" / done, home / "artifacts" / done)
    tree = Tree(home, *ARGUMENTS)
    tree.wait_for("worker  started")
    run_id = Api(home).start()
    seen = look(home)
    for step in STEPS:
        deadline = time.monotonic() + STEP_S
        while not list((home / "artifacts" / step).glob("*.partial")):
            assert time.monotonic() < deadline, f"{step} never began: {tree.said()}"
            time.sleep(0.05)
        tree.cut()
        now = look(home)
        compare(report, home, seen, now, step)
        seen = now
        tree = Tree(home, *ARGUMENTS)
        assert "resumed" in tree.wait_for("worker  started")
    run = Api(home).wait(run_id, "Completed", "Failed")
    assert run["state_name"] == "Completed", run["state"]["message"]
    assert run["run_count"] == len(STEPS) + 1
    compare(report, home, seen, look(home), "the end")
    assert report.failures == []
    assert contents(home) == contents(tiny_home)
    assert not list((home / "artifacts").glob("*/*.damaged-*"))
    assert tree.stop() == 143


@pytest.mark.soak
@pytest.mark.timeout(4 * 3600)
def test_three_hundred_random_cuts(tmp_path):
    report = campaign(tmp_path, 300, int(time.time()), 10)
    assert report.failures == []
    assert report.cuts == 300
