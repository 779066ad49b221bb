"""Memory and disk of the four-class classifier's training: a frozen base, adapters and a head, no image tower."""

from dataclasses import replace

from so8t.four_class.config import FourClass
from so8t.labels import Label
from so8t.plan.memory import (
    CUDA_CONTEXT_BYTES,
    DTYPE_BYTES,
    FP32,
    NF4,
    PROCESS_BYTES,
    Need,
    Shapes,
    backward_parts,
    forward_bytes,
    moving_added,
    rotations_bytes,
    weights_bytes,
)

NAME = "four_class"
# What the head reads beside the mean: config.pooling.
WIDTHS = {"mean": 1, "wide": 4}


def shapes_of(config: FourClass, shapes: Shapes) -> Shapes:
    """The base of `shapes` with this training's adapters."""
    train = shapes.config.model_copy(update={"adapter": config.adapter})
    return Shapes.of(train, shapes.geometry, shapes.tower, shapes.on_gpu, shapes.prompt_tokens, shapes.row_tokens)


def parameters(config: FourClass, shapes: Shapes) -> dict[str, int]:
    """By name, for people and JSON."""
    counts = shapes_of(config, shapes).counts
    return {
        "base": counts.base,
        "text adapters": counts.adapters,
        "class head": trained(config, shapes) - counts.adapters,
        "checkpoint_bytes": checkpoint_bytes(config, shapes),
    }


def trained(config: FourClass, shapes: Shapes) -> int:
    """Numbers that it trains: adapters and head."""
    width = WIDTHS[config.pooling] * shapes.geometry.hidden
    return shapes_of(config, shapes).counts.adapters + (width + 1) * len(Label)


def needs(config: FourClass, shapes: Shapes) -> dict[str, Need]:
    """Peaks of an update and of a measurement, with the longest prompts that the config allows and the data have."""
    own = shapes_of(config, shapes)
    known = 0 if config.data.train_data else own.row_tokens
    length = min(config.max_seq_length, known or config.max_seq_length)
    update = backward_parts(own, config.micro_batch * length, length, 0)
    measuring = {
        "kept rotations": rotations_bytes(own),
        "activations": forward_bytes(own, config.evaluation_batch * length, length),
    }
    standing = _standing(config, own)
    resting = replace(standing, device={name: size for name, size in standing.device.items() if name != "gradients"})
    return {
        f"{NAME} update": moving_added(standing, own, update),
        f"{NAME} measuring": moving_added(resting, own, measuring),
    }


def _standing(config: FourClass, own: Shapes) -> Need:
    count = trained(config, own)
    device = {
        "base": weights_bytes(own) - _head_bytes(own),
        # The best state so far is kept beside the one that is trained.
        "adapters, rows, heads": 2 * FP32 * count,
        "gradients": FP32 * count,
        "Adam": 2 * FP32 * count,
    }
    if own.on_gpu:
        device["CUDA context"] = CUDA_CONTEXT_BYTES
    return Need(device, {"checkpoint buffers": checkpoint_bytes(config, own), "process": PROCESS_BYTES})


def _head_bytes(own: Shapes) -> int:
    """The base's own head, which is let go; 4-bit bases have it in bfloat16."""
    dtype = own.config.adapter.base_dtype
    return own.geometry.vocabulary * own.geometry.hidden * (2 if dtype == NF4 else DTYPE_BYTES[dtype])


def checkpoint_bytes(config: FourClass, shapes: Shapes) -> int:
    """Trained and best state, and Adam's two numbers for each."""
    return 4 * FP32 * trained(config, shapes)


def disk(config: FourClass, shapes: Shapes, checkpoints_kept: int) -> dict[str, int]:
    """The artifact, and the kept checkpoints, one being written and the final one."""
    return {
        NAME: FP32 * trained(config, shapes),
        f"{NAME}: checkpoints": (checkpoints_kept + 2) * checkpoint_bytes(config, shapes),
    }
