"""A PPO update at Phi-3.5-mini's width with two layers: memory as measured, beside what `so8t plan` says.

    OMP_NUM_THREADS=1 python -m benchmarks.geometry [--dtypes bfloat16 nf4] [--reply 16] [--batch 2] [--place DIR]

The base has Phi-3.5-mini's hidden size, heads, FFN and vocabulary, random weights and two layers; SO8ViT has SigLIP's
base shape at 224 pixels. Each case is a process of its own, which builds the learner as training does, then makes one
whole update of PPO: rollout, and a backward pass and an optimizer step for every minibatch. Measured are resident
bytes above those of the same process after an update of a small model: after building, and the peaks of the rollout
and of the update (VmHWM, reset between them, so Linux with glibc only). "plan" is what so8t.plan says for the same, without its
allowance for the interpreter, which the difference excludes, and without checkpoint buffers, since none is saved here.
"""

import argparse
import ctypes
import gc
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.random_phi3 import make_base, make_rows
from so8t import durable, records
from so8t.config import Machine
from so8t.loop.environment import prepare
from so8t.plan.geometry import of_json, tower_of
from so8t.plan.memory import Need, Shapes, rollout_need, update_need
from so8t.train.config import Train

MIB = 1 << 20
LAYERS = 2
# Of the update that is made first, so that everything is loaded.
SMALL = {"hidden_size": 192, "num_attention_heads": 2, "num_key_value_heads": 2, "intermediate_size": 512}
IMAGE_SIZE, PATCH_SIZE = 224, 16
# In the plan, but not in what is measured here.
LEFT_OUT = ("process", "checkpoint buffers")


def config_of(dtype: str, checkpointing: bool, batch: int, reply: int, rank: int) -> Train:
    """Both sides of PPO small, the rest as for the real model."""
    return Train.model_validate({
        "adapter": {"base_dtype": dtype, "gradient_checkpointing": checkpointing, "rank": rank},
        "vision": {"image_size": IMAGE_SIZE, "patch_size": PATCH_SIZE, "epochs": 0},
        "align": {"steps": 0},
        "warmup": {"steps": 0},
        "ppo": {
            "updates": 1, "batch": batch, "minibatch": batch, "micro_batch": batch, "epochs": 1,
            "max_new_tokens": reply, "image_share": 0.5, "evaluation_prompts": 1,
        },
        "head": {"steps": 0},
    })  # fmt: skip


def resident(peak: bool = False) -> int:
    """Bytes resident now, or at most since the last reset."""
    wanted = "VmHWM:" if peak else "VmRSS:"
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(wanted)) * 1024


def reset_peak() -> None:
    """Forget the peak; what is garbage goes first."""
    gc.collect()
    # What glibc keeps of freed memory would hide as much of what is allocated next.
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def measure(folder: Path, config: Train) -> dict[str, Any]:
    """One update in this process; bytes by moment, and what the plan says of the same."""
    prepare(Machine(threads=1, device="cpu"))
    # Libraries load parts of themselves at their first use: that is no memory of the model.
    for _ in range(2):
        one_update(folder / "small", config)
    reset_peak()
    before = resident()
    told = one_update(folder / "world", config)
    geometry = of_json(durable.read_json(folder / "world" / "base" / "config.json"), "here")
    shapes = Shapes.of(config, geometry, tower_of(config.vision, geometry), False, told["prompt_tokens"])
    return {
        **told,
        "built": told["built"] - before,
        "measured": {name: peak - before for name, peak in told["peaks"].items()},
        "planned": {
            "rollout": planned(rollout_need(shapes)), "update": planned(update_need(shapes, config.ppo.minibatch))
        },
    }  # fmt: skip


def one_update(world: Path, config: Train) -> dict[str, Any]:
    """Build a learner as training does, and make the first update; resident bytes after building, and peaks."""
    from so8t.models import write_thinking_tokenizer
    from so8t.train.data import encode
    from so8t.train.learner import build
    from so8t.train.policy import Policy

    ids = write_thinking_tokenizer(world / "base", world / "tokenizer")
    learner = build(config, world / "base", world / "tokenizer", ids, "cpu")
    gc.collect()
    built = resident()
    rows = [
        encode(row, learner.tokenizer, learner.vision.tokens, 1.0)
        for row in records.iterate(world / "data" / "train.parquet")
    ]
    phase = Policy(learner, config, rows, [])
    phase.begin()
    started = time.process_time()
    reset_peak()
    watched = _Watched(phase)
    with watched:
        metrics = phase.step(0)()
    assert phase.buffer is not None
    return {
        "prompt_tokens": int(phase.buffer.context),
        "cpu_s": time.process_time() - started,
        "loss": metrics["loss"],
        "built": built,
        "peaks": watched.peaks,
    }


class _Watched:
    """Notes the peak before the first backward pass begins, and after the step."""

    def __init__(self, phase: Any) -> None:
        self.phase, self.peaks = phase, dict[str, int]()

    def __enter__(self) -> None:
        backward = type(self.phase)._backward

        def watched(*arguments: Any, **options: Any) -> Any:
            self.peaks["rollout"] = resident(peak=True)
            reset_peak()
            return backward(self.phase, *arguments, **options)

        self.phase._backward = watched

    def __exit__(self, *_: object) -> None:
        self.peaks["update"] = resident(peak=True)
        del self.phase._backward


def planned(need: Need) -> dict[str, int]:
    """The parts that are measured here."""
    return {name: size for name, size in {**need.device, **need.host}.items() if name not in LEFT_OUT}


def show(name: str, told: dict[str, Any]) -> float:
    """One case; the largest relative error."""
    print(
        f"\n{name}: prompts of {told['prompt_tokens']} tokens, {told['cpu_s']:.1f} CPU-s, built {told['built'] / MIB:.0f} MiB"
    )
    worst = 0.0
    for moment, parts in told["planned"].items():
        plan, found = sum(parts.values()), told["measured"][moment]
        error = plan / found - 1
        worst = max(worst, abs(error))
        print(f"  {moment:<8} measured {found / MIB:7.0f} MiB  plan {plan / MIB:7.0f} MiB  {error:+.1%}")
        print("           " + ", ".join(f"{part} {size / MIB:.0f}" for part, size in parts.items()))
    return worst


def main() -> int:
    """Make the world once, run each case, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtypes", nargs="+", default=["bfloat16"])
    parser.add_argument("--no-checkpointing", action="store_true", help="measure each case without recomputation too")
    parser.add_argument("--reply", type=int, default=16)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--rank", type=int, default=0)
    parser.add_argument("--place", type=Path, help="for about 1 GB of weights")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        dtype, checkpointing = json.loads(options.case)
        config = config_of(dtype, checkpointing, options.batch, options.reply, options.rank)
        print(json.dumps(measure(options.place, config)))
        return 0
    with tempfile.TemporaryDirectory(dir=options.place) as folder:
        world = Path(folder)
        for name, shape in (("world", {}), ("small", SMALL)):
            make_base(world / name / "base", LAYERS, shape)
            make_rows(world / name / "data", IMAGE_SIZE, 4)
        told = {}
        for dtype in options.dtypes:
            for checkpointing in (True, False) if options.no_checkpointing else (True,):
                name = f"{dtype}, {'recomputing' if checkpointing else 'all activations kept'}"
                told[name] = _in_process(world, json.dumps([dtype, checkpointing]), options)
    worst = max(show(name, case) for name, case in told.items())
    print(f"\nlargest error of the plan: {worst:.1%}")
    return 0


def _in_process(world: Path, case: str, options: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.geometry", "--place", str(world), "--case", case]
    command += ["--reply", str(options.reply), "--batch", str(options.batch), "--rank", str(options.rank)]
    done = subprocess.run(  # noqa: S603
        command, stdout=subprocess.PIPE, text=True, encoding="utf-8", check=True
    )
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


if __name__ == "__main__":
    sys.exit(main())
