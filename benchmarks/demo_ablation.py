"""What do SO(8) rotations in the image tower and PPO bring to the demo's tasks?

    OMP_NUM_THREADS=1 python -m benchmarks.demo_ablation --home DIR [--config F] [--seeds 0 1 2] [--set K=V]

For each seed one training with rotations in the tower and one without, from the same data and base. A training is
measured on the test rows, which nothing else reads, when its warm-up ends and again when PPO ends: PPO changes nothing
before it begins, so the first is the training without PPO. Final alpha and the four-class head are left out.

Digits and tones are answers forced after `<final>`, classes the class token after `<think-safety>` (macro-F1). Means
over the seeds with Student's 95 % interval, and differences paired by seed; one seed gives no interval. Every
training leaves a JSON file under DIR/demo_ablation, and goes on from its checkpoints: run the same command again.
"""

import argparse
import hashlib
import json
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from scipy.stats import t as student
from torch import Tensor

from so8t import durable
from so8t.artifacts import Artifact, Store
from so8t.config import Config, load_config
from so8t.loop.checkpoint import Checkpoints
from so8t.loop.environment import fingerprint, prepare
from so8t.loop.phase import Commit
from so8t.loop.trainer import Trainer
from so8t.models import write_thinking_tokenizer
from so8t.progress import PlainLines, Progress
from so8t.session import SessionFile
from so8t.step import Ref, execute
from so8t.train.data import Sample
from so8t.train.evaluate import measure
from so8t.train.learner import Learner, build
from so8t.train.run import load_samples, make_phases
from so8t.wiring import BASE, COLLECT, PREPROCESS

TASKS = {"digits": ("image", "accuracy"), "tones": ("audio", "accuracy"), "classes": ("classes", "macro_f1")}
MOMENTS = {"warmup": "no PPO", "ppo": "PPO"}
ROTATED = {True: "rotations", False: "no rotations"}
LEVEL = 0.95
Cell = tuple[bool, str]
Numbers = dict[str, float]


class Look:
    """A phase without steps, which measures the state that the phase before it has left."""

    steps = 0

    def __init__(self, after: str, learner: Learner, rows: Sequence[Sample]) -> None:
        self.name, self.learner, self.rows = f"after {after}", learner, rows

    def begin(self) -> None:
        """See `Phase`."""

    def step(self, position: int) -> Commit:
        """See `Phase`."""
        raise AssertionError("it has none")

    def finish(self) -> Callable[[], dict[str, Any]]:
        """The measures."""
        found = measure(self.learner, self.rows)
        return lambda: found

    def tensors(self) -> dict[str, Tensor]:
        """See `Phase`."""
        return {}

    def values(self) -> dict[str, Any]:
        """See `Phase`."""
        return {}

    def restore(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """See `Phase`."""


def inputs_of(config: Config, home: Path) -> dict[str, Artifact]:
    """Data and base, made where they are not there."""
    store, sinks = Store(home), (PlainLines(),)
    sources = [Ref("collect.source", source.name) for source in config.collect.sources]
    made = {ref: execute(ref, config, store, sinks) for ref in (*sources, COLLECT, PREPROCESS, BASE)}
    return {"data": made[PREPROCESS], "base": made[BASE]}


def train(config: Config, inputs: dict[str, Artifact], home: Path) -> dict[str, Any]:
    """Metrics of one training by phase; from its file where it is done."""
    told = json.dumps([config.train.model_dump(mode="json"), *(inputs[n].content for n in sorted(inputs))])
    name = hashlib.sha256(told.encode()).hexdigest()[:12]
    target = home / "demo_ablation" / f"{name}.json"
    if target.is_file():
        done: dict[str, Any] = durable.read_json(target)
        return done
    session = SessionFile.open(home, f"ablation-{name}", "ablation")
    progress = Progress("ablation", config.machine, home, (PlainLines(),))
    device = prepare(config.machine)
    ids = write_thinking_tokenizer(inputs["base"].path, session.folder / "tokenizer")
    learner = build(config.train, inputs["base"].path, session.folder / "tokenizer", ids, str(device))
    parts = [load_samples(config.train, learner, inputs["data"], s) for s in ("train", "validation", "test")]
    phases = {phase.name: phase for phase in make_phases(config.train, learner, parts[0], parts[1])}
    looks = {name: Look(name, learner, parts[2]) for name in MOMENTS}
    trainer = Trainer(
        learner,
        [phases["tower"], phases["align"], phases["warmup"], looks["warmup"], phases["ppo"], looks["ppo"]],
        Checkpoints(session.folder / "checkpoints", config.machine.checkpoint_keep),
        session, progress, config.train.seed, fingerprint(config.train, device),
    )  # fmt: skip
    trainer.run()
    session.end("completed")
    durable.write_json(target, trainer.metrics)
    return trainer.metrics


def numbers_of(metrics: dict[str, Any], moment: str) -> Numbers:
    """One number a task."""
    found = metrics[f"after {moment}"]
    return {task: found[modality][measured] for task, (modality, measured) in TASKS.items()}


def interval(values: Sequence[float]) -> str:
    """Mean and half of Student's interval, in points."""
    mean = f"{100 * statistics.fmean(values):.1f}"
    if len(values) == 1:
        return mean
    half = student.ppf((1 + LEVEL) / 2, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return f"{mean} +- {100 * half:.1f}"


def table(cells: dict[Cell, list[Numbers]]) -> str:
    """Markdown: the four cells, and what each of the two changes, paired by seed."""
    rows = {f"{ROTATED[on]}, {MOMENTS[moment]}": found for (on, moment), found in cells.items()}
    pairs = {f"rotations ({MOMENTS[m]})": ((True, m), (False, m)) for m in MOMENTS}
    pairs |= {f"PPO ({ROTATED[on]})": ((on, "ppo"), (on, "warmup")) for on in ROTATED}
    for name, (of, against) in pairs.items():
        both = zip(cells[of], cells[against], strict=True)
        rows[f"difference by {name}"] = [{task: a[task] - b[task] for task in TASKS} for a, b in both]
    head = ["| tower, policy | " + " | ".join(TASKS) + " |", "|---|" + "---|" * len(TASKS)]
    lines = [
        f"| {name} | " + " | ".join(interval([one[task] for one in found]) for task in TASKS) + " |"
        for name, found in rows.items()
    ]
    return "\n".join([*head, *lines])


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--config", type=Path, default=Path("configs/demo.yaml"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    options = parser.parse_args()
    cells: dict[Cell, list[Numbers]] = {(on, moment): [] for on in ROTATED for moment in MOMENTS}
    for seed in options.seeds:
        for on in ROTATED:
            own = [f"train.seed={seed}", f"train.vision.adapters={json.dumps(on)}"]
            config = load_config(options.config, ["machine.threads=1", *options.overrides, *own], options.home)
            metrics = train(config, inputs_of(config, options.home), options.home)
            for moment in MOMENTS:
                cells[on, moment].append(numbers_of(metrics, moment))
                line = {"seed": seed, "rotations": on, "policy": MOMENTS[moment], **numbers_of(metrics, moment)}
                print(json.dumps(line), flush=True)
    print(table(cells))


if __name__ == "__main__":
    main()
