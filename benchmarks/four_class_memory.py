"""An update and a measurement of the four-class training at Phi-3.5-mini's width: memory as measured, beside the plan's.

    OMP_NUM_THREADS=1 python -m benchmarks.four_class_memory [--length 512] [--dtype bfloat16] [--place DIR]

The base is that of benchmarks/geometry.py: Phi-3.5-mini's shapes, random weights, two layers. Resident bytes above those of
the same process after the same with a small model; peaks by VmHWM, so Linux with glibc only. The plan's interpreter and
checkpoint buffers are left out, since none is measured here.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks.geometry import LAYERS, MIB, SMALL, planned, reset_peak, resident
from benchmarks.random_phi3 import make_base
from so8t import durable
from so8t.config import Machine
from so8t.four_class.config import FourClass
from so8t.four_class.learner import Sample, build
from so8t.four_class.phases import Part
from so8t.four_class.rows import Row
from so8t.labels import Label
from so8t.loop.environment import prepare
from so8t.plan.four_class import needs
from so8t.plan.geometry import of_json, tower_of
from so8t.plan.memory import Shapes
from so8t.train.config import Train


def once(base: Path, config: FourClass) -> dict[str, int]:
    """Build as the training does; the peaks of one update and of one measurement, in resident bytes."""
    learner = build(config, base, torch.device("cpu"))
    # Of a file that is mapped only what is read is resident; here few rows would be.
    learner.reader.text.embed_tokens.weight.sum()
    size = config.micro_batch * config.gradient_accumulation_steps
    samples = [
        Sample(Row(str(n), "", Label(n % len(Label))), [100 + n] * config.max_seq_length, False) for n in range(size)
    ]
    part, peaks = Part(learner, 0, 1, 1, samples, samples), dict[str, int]()
    for name, do in (("update", lambda: part.step(0)()), ("measuring", part.finish)):
        reset_peak()
        do()
        peaks[name] = resident(peak=True)
    return peaks


def main() -> int:
    """Print both beside each other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--place", type=Path, help="for about 1 GB of weights")
    options = parser.parse_args()
    config = FourClass.model_validate({
        "max_seq_length": options.length, "gradient_accumulation_steps": 2, "evaluation_batch": 1,
        "adapter": {
            "targets": ["self_attn.qkv_proj", "self_attn.o_proj", "mlp.gate_up_proj", "mlp.down_proj"],
            "output": False, "rank": 32, "base_dtype": options.dtype, "gradient_checkpointing": True,
        },
    })  # fmt: skip
    prepare(Machine(threads=1, device="cpu"))
    with tempfile.TemporaryDirectory(dir=options.place) as folder:
        for name, shape in (("base", dict[str, Any]()), ("small", SMALL)):
            make_base(Path(folder) / name, LAYERS, shape)
        # Libraries load parts of themselves at their first use: that is no memory of the model.
        for _ in range(2):
            once(Path(folder) / "small", config)
        reset_peak()
        before = resident()
        found = once(Path(folder) / "base", config)
        geometry = of_json(durable.read_json(Path(folder) / "base" / "config.json"), "here")
    train = Train()
    shapes = Shapes.of(train, geometry, tower_of(train.vision, geometry), False, options.length)
    for name, need in needs(config, shapes).items():
        parts, measured = planned(need), found[name.partition(" ")[2]] - before
        plan = sum(parts.values())
        print(f"{name:<22} measured {measured / MIB:7.0f} MiB  plan {plan / MIB:7.0f} MiB  {plan / measured - 1:+.1%}")
        print("           " + ", ".join(f"{part} {size / MIB:.0f}" for part, size in parts.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
