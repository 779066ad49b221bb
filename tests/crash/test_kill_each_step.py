"""SIGKILL of the whole run inside each of the seven steps, then the same command again."""

import os
from pathlib import Path

import pytest

from so8t.wiring import SEVEN
from tests.conftest import run

INJECT = Path(__file__).parent / "inject"
# The same pipeline with hardly any training: the promise under test does not depend on how well it learns.
TINY = [
    "base.steps=4", "train.warmup.steps=4", "train.vision.epochs=1", "train.head.steps=5", "train.ppo.updates=2",
    "train.ppo.batch=4", "train.ppo.minibatch=4", "train.ppo.evaluation_prompts=4", "machine.step_retries=0",
    "bake.gates.f16_top1_min=0.5", "bake.gates.f16_kl_max=1", "bake.gates.f32_logit_max=1", "bake.gates.texts=4", "bake.gates.images=2",
    "bake.gates.quantized.Q8_0={kl_max: 9, top1_min: 0.01, perplexity_ratio_max: 9}",
    "bake.quantizations=[Q8_0]", "benchmark.tasks=[safety]", "benchmark.resamples=200", "benchmark.replies=1",
    "collect.sources.1.count=64", "machine.checkpoint_interval_s=0.5",
]  # fmt: skip
ARGUMENTS = [part for override in TINY for part in ("--set", override)]
# Step -> which durable rename inside it is the last thing that happens.
KILLS = {"collect": 1, "preprocess": 2, "train": 4, "bake": 1, "benchmark": 2, "upload": 3, "cleanup": 1}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    ended = run(*ARGUMENTS, home=tmp_path_factory.mktemp("whole") / "home")
    assert ended.code == 0, ended.err[-4000:]
    return ended.json


def test_killed_in_every_step_it_ends_in_the_same_bytes(uninterrupted, tmp_path):
    home = tmp_path / "home"
    finished: set[str] = set()
    for step, nth in KILLS.items():
        fired = tmp_path / f"killed-{step}"
        environment = {
            "PYTHONPATH": os.pathsep.join([str(INJECT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
            "SO8T_KILL_AT": f"{step}:{nth}",
            "SO8T_KILL_ROOT": str(fired),
        }
        killed = run(*ARGUMENTS, home=home, environment=environment)
        assert fired.exists(), f"no kill happened in {step}: {killed.err[-2000:]}"
        assert killed.code == -9, (step, killed.code, killed.err[-2000:])
        done = {p.parent.name + "/" + p.name for p in (home / "artifacts").glob("*/*") if "." not in p.name}
        assert finished <= done, f"a finished artifact vanished in {step}"
        assert not any(name.startswith(step + "/") for name in done - finished), f"{step} was whole already"
        finished = done
    last = run(*ARGUMENTS, home=home)
    assert last.code == 0, last.err[-4000:]
    assert [ref.step for ref in SEVEN if not last.json["steps"][ref.step]["cached"]] == ["cleanup"]
    assert {n: s["content"] for n, s in last.json["steps"].items()} == {
        n: s["content"] for n, s in uninterrupted["steps"].items()
    }
    assert not list((home / "artifacts").glob("*/*.damaged-*"))
