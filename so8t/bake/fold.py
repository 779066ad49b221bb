"""bake.fold: fold the adapters into a stock Phi-3 folder, a stock image tower, and their F16 GGUFs.

Everything comes straight from base and adapter in float64 and is cast once. A file that exists is whole,
so an interrupted run goes on with the next one.
"""

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from so8t import __version__, durable
from so8t.bake.config import Fold
from so8t.bake.gguf_model import write_model
from so8t.bake.gguf_vision import write_mmproj
from so8t.errors import ResourceError
from so8t.progress import Progress
from so8t.so8.merge import (
    INDEX,
    ITEM_BYTES,
    Folded,
    Tensors,
    read_train_adapter,
    read_vision_adapter,
    shard_names,
    write_folded,
)

if TYPE_CHECKING:
    from so8t.step import Facts, Inputs

BASE_FILES = ("config.json", "generation_config.json")
# Room for headers, metadata and the file system's own needs.
SPARE_BYTES = 64 << 20


def run(config: Fold, inputs: "Inputs", out: Path, progress: Progress) -> "Facts":
    """Write hf/, vision/ and gguf/; facts count what was changed and how long it took."""
    base, train = inputs["base"].path, inputs["train"].path
    text = Folded(Tensors.of_model(base), read_train_adapter(train))
    vision = Folded(Tensors([train / "vision" / "model.safetensors"]), read_vision_adapter(train))
    _demand_room(out, base, text, vision)
    started = time.monotonic()
    _write_hf(base, train / "tokenizer", text, out / "hf", progress)
    vision_config = _write_vision(train / "vision", vision, out / "vision")
    notes = provenance(inputs)
    _once(
        out / "gguf" / f"{config.name}-F16.gguf",
        lambda path: write_model(
            path, base, text, train / "tokenizer", config.name, "F16", notes,
            lambda done, total: progress.update(done, total, f"writing {path.name}"),
        ),
    )  # fmt: skip
    _once(
        out / "gguf" / f"{config.name}-mmproj-F16.gguf",
        lambda path: write_mmproj(path, vision_config, vision, f"{config.name}-mmproj", "F16", notes),
    )
    return {
        "name": config.name,
        "changed_tensors": len(text.adapter.changes) + len(text.adapter.token_rows),
        "tensors": len(text.base.names()),
        "changed_vision_tensors": len(vision.adapter.changes),
        "rotation_error_max": max(rotation_error(text), rotation_error(vision)),
        "seconds": round(time.monotonic() - started, 3),
    }


def provenance(inputs: "Inputs") -> dict[str, str]:
    """What a GGUF was made from: contents of base and training, licence and version."""
    return {
        "license": str(inputs["base"].manifest.facts.get("licence") or ""),
        "base_content": inputs["base"].content,
        "train_content": inputs["train"].content,
        "version": __version__,
    }


def rotation_error(folded: Folded) -> float:
    """Largest entry of |R'R - I| over all blocks."""
    worst = 0.0
    for change in folded.adapter.changes.values():
        for blocks in (change.r_out, change.r_in):
            if blocks is not None:
                product = blocks.transpose(0, 2, 1) @ blocks
                worst = max(worst, float(np.abs(product - np.eye(product.shape[-1])).max()))
    return worst


def _once(path: Path, write: Callable[[Path], object]) -> None:
    if not path.exists():
        write(path)


def _write_hf(base: Path, tokenizer: Path, folded: Folded, target: Path, progress: Progress) -> None:
    names = shard_names(base)
    for number, name in enumerate(names):
        progress.update(number, len(names), f"folding {name}")
        _once(target / name, lambda path, name=name: write_folded(base / name, folded, path))  # type: ignore[misc]
    progress.update(len(names), len(names), "folding")
    copied = [base / name for name in (*BASE_FILES, INDEX) if (base / name).is_file()]
    copied += sorted(path for path in tokenizer.iterdir() if path.is_file() and path.name not in BASE_FILES)
    for source in copied:
        _once(target / source.name, lambda path, source=source: durable.write_bytes(path, source.read_bytes()))  # type: ignore[misc]


def _write_vision(train: Path, folded: Folded, target: Path) -> dict[str, Any]:
    _once(target / "model.safetensors", lambda path: write_folded(train / "model.safetensors", folded, path))
    config: dict[str, Any] = durable.read_json(train / "config.json")
    # The folded tower has no adapters, so nothing is left for alpha to scale.
    _once(target / "config.json", lambda path: durable.write_json(path, {**config, "alpha": 0.0}))
    return config


def _demand_room(out: Path, base: Path, *models: Folded) -> None:
    """ResourceError unless the disk has room for what is still to be written."""
    sizes = [model.base.info(name) for model in models for name in model.base.names()]
    as_stored = sum(info.size_bytes for info in sizes)
    as_f16 = sum(info.size_bytes // ITEM_BYTES.get(info.dtype, 2) * 2 for info in sizes)
    present = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    needed = max(as_stored + as_f16 + SPARE_BYTES - present, 0)
    free = shutil.disk_usage(out).free
    if free < needed:
        raise ResourceError(
            f"{free / 1e9:.1f} GB are free at {out}",
            f"{needed / 1e9:.1f} GB for the folded copies of {base.name}",
            "free some space or move the home with --home DIR",
        )
