"""How long training takes, as measured, beside what `so8t plan` says.

    OMP_NUM_THREADS=1 python -m benchmarks.plan_times --home DIR [--config configs/demo.yaml] [--steps 3] [--set K=V]

DIR holds the base and the preprocessed data (`so8t step collect.base`, ..., `so8t step preprocess`). A few real steps of
each phase are made, in CPU-seconds of one thread, and multiplied by how many the config asks for; reviews between
PPO's updates are left out, as in the plan, and an update is made whole whatever its KL. The plan is that for one core, once with the prompt length that it assumes and
once with the mean of the rows. "off" is how far the measured time lies outside of the plan's range: 1 is inside.
"""

import argparse
import json
import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from so8t import durable
from so8t.artifacts import Store
from so8t.config import load_config
from so8t.loop.phase import Phase
from so8t.loop.watched import Watched
from so8t.models import write_thinking_tokenizer
from so8t.plan.duration import Range, durations
from so8t.plan.geometry import of_json, tower_of
from so8t.plan.hardware import CPU_BYTES_PER_S, CPU_FLOPS_PER_CORE, Speed
from so8t.plan.memory import Shapes
from so8t.plan.report import assumed_tokens
from so8t.step import Inputs, plan
from so8t.train.config import Train
from so8t.train.learner import build
from so8t.train.policy import Policy
from so8t.train.run import load_samples, make_phases, pretrained_tower
from so8t.wiring import TRAIN

NAMES = {"tower": "tower", "align": "align", "warmup": "warm-up", "ppo": "ppo", "alpha": "alpha"}


def assemble(config: Train, inputs: Inputs, folder: Path) -> tuple[list[Phase], float]:
    """The phases as training has them, and the mean length of a prompt in tokens."""
    base = inputs["base"].path
    learner = build(config, base, folder, write_thinking_tokenizer(base, folder), "cpu", pretrained_tower(inputs))
    train, held_out = (load_samples(config, learner, inputs["data"], split) for split in ("train", "validation"))
    return make_phases(config, learner, train, held_out), statistics.fmean(len(row.prompt) for row in train)


def seconds_of(phase: Phase, steps: int) -> float:
    """CPU-seconds of the whole phase, from so many of its steps after the first."""
    inside = phase.phase if isinstance(phase, Watched) else phase
    phase.begin()
    phase.step(0)()
    first, count, total = 1, min(steps, phase.steps - 1), phase.steps
    if isinstance(inside, Policy):
        # The second update, whole; before the first one the state is reviewed.
        first = count = inside.per_epoch * inside.config.epochs
        total = count * inside.config.updates
    started = time.process_time()
    for position in range(first, first + count):
        phase.step(position)()
    return (time.process_time() - started) / count * total


def off(measured: float, span: Range) -> float:
    """1 within the range, else how many times shorter (below 1) or longer (above) than its nearer end."""
    low, high = span
    return measured / low if measured < low else measured / high if measured > high else 1.0


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--config", type=Path, default=Path("configs/demo.yaml"))
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = load_config(options.config, options.overrides, options.home)
    inputs = plan(TRAIN, config, Store(options.home), read_only=True).inputs
    ppo = config.train.ppo.model_copy(update={"kl_stop": 0.0})
    with TemporaryDirectory() as folder:
        phases, prompt = assemble(config.train.model_copy(update={"ppo": ppo}), inputs, Path(folder))
        measured = {NAMES[p.name]: seconds_of(p, options.steps) for p in phases if p.name in NAMES and p.steps}
    geometry = of_json(durable.read_json(inputs["base"].path / "config.json"), "the base")
    tower = tower_of(config.train.vision, geometry)
    speed = Speed("one core", CPU_FLOPS_PER_CORE, CPU_BYTES_PER_S)
    found: dict[str, Any] = {}
    for what, tokens in (("assumed", assumed_tokens(config) + tower.tokens), ("real", round(prompt))):
        shapes = Shapes.of(config.train, geometry, tower, False, tokens)
        spans = durations(shapes, speed, config.search.model_copy(update={"trials": 0}))
        for name, seconds in measured.items():
            span = spans[f"train: {name}"]
            found[f"{name}, {what} prompts of {tokens}"] = ratio = off(seconds, span)
            print(
                f"{name:8} {seconds:8.1f} CPU-s  plan {span[0]:7.1f} to {span[1]:7.1f}  off {ratio:5.2f}  ({what} prompts of {tokens})"
            )
    print(json.dumps(found))


if __name__ == "__main__":
    main()
