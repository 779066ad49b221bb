"""Disk by step, in bytes: what each leaves behind, and the highest point."""

from collections.abc import Sequence

from so8t.bake.config import GUIDED, Quantization
from so8t.plan.geometry import Geometry
from so8t.plan.memory import FP32, Shapes, align_need, rollout_need, tower_need, warmup_need
from so8t.plan.parameters import Counts

HALF = 2
# Bits a weight as llama.cpp's llama-quantize --help and its block layouts give them (k-quants mix types by tensor).
BITS = {"Q8_0": 8.5, "Q6_K": 6.5625, "Q5_K_M": 5.69, "Q4_K_M": 4.85}
TOKENIZER_BYTES = 8 << 20


def disk(
    shapes: Shapes,
    quantizations: tuple[Quantization, ...],
    base_types: Sequence[str],
    checkpoints_kept: int,
    trials: int,
) -> dict[str, int]:
    """By step, with `peak`, the sum: nothing is removed before cleanup. Collected data are not known beforehand."""
    geometry, counts = shapes.geometry, shapes.counts
    checkpoint = checkpoint_bytes(shapes)
    steps = {
        "collect.base": HALF * geometry.parameters + TOKENIZER_BYTES,
        **({"collect.tower[vision]": FP32 * counts.tower} if shapes.config.vision.pretrained else {}),
        "train": train_bytes(counts) + TOKENIZER_BYTES,
        # The kept ones, one being written, and the final one; a search's trials have theirs one after another.
        **({"train.search: checkpoints": (checkpoints_kept + 3) * checkpoint} if trials else {}),
        "train: checkpoints": (checkpoints_kept + 2) * checkpoint,
        "bake.fold": fold_bytes(geometry, counts),
        **{f"bake.quantize[{name}]": quantized_bytes(geometry, name) for name in quantizations},
    }
    # A published folder is linked or copied; copied is the worse case.
    steps["upload"] = steps["bake.fold"] + sum(size for name, size in steps.items() if name.startswith("bake.quantize"))
    steps |= base_bytes(geometry, counts, base_types)
    return {**steps, "peak": sum(steps.values())}


def checkpoint_bytes(shapes: Shapes) -> int:
    """The largest checkpoint of the training."""
    config = shapes.config
    needs = [rollout_need(shapes)] if config.ppo.updates else []
    needs += [tower_need(shapes)] if config.vision.epochs else []
    needs += [align_need(shapes, 1)] if config.align.steps else []
    needs += [warmup_need(shapes, 1)] if config.warmup.steps else []
    return max((need.host["checkpoint buffers"] for need in needs), default=FP32 * shapes.counts.own)


def train_bytes(counts: Counts) -> int:
    """Adapter, and the tower trained and as it was at the start."""
    return FP32 * (counts.own + counts.tower + counts.projector)


def fold_bytes(geometry: Geometry, counts: Counts) -> int:
    """A stock folder and its F16 GGUF, the folded tower and its mmproj."""
    vision = counts.tower + counts.projector
    return 2 * HALF * geometry.parameters + (FP32 + HALF) * vision


def base_bytes(geometry: Geometry, counts: Counts, types: Sequence[str]) -> dict[str, int]:
    """The untouched base as files, which are not published: F16, its tower, and each type."""
    if not types:
        return {}
    files = {
        "bake.stock[text]": HALF * geometry.parameters,
        "bake.stock[vision]": HALF * (counts.tower + counts.projector),
    }
    return files | {f"bake.quantize[A-{name}]": quantized_bytes(geometry, name) for name in types if name != "F16"}


def quantized_bytes(geometry: Geometry, name: str) -> int:
    """One quantized GGUF."""
    return int(geometry.parameters * BITS[name.removesuffix(GUIDED)] / 8)
