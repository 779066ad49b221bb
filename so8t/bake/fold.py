"""bake.fold: fold the adapters into a stock Phi-3 folder, a stock image tower, and their F16 GGUFs.

Everything comes straight from base and adapter in float64 and is cast once. A file that exists is whole,
so an interrupted run goes on with the next one.
"""

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from so8t import durable
from so8t.bake.config import Fold, named_phi3
from so8t.bake.gguf_model import write_model
from so8t.bake.gguf_vision import write_mmproj
from so8t.bake.gguf_vocab import strips_right
from so8t.bake.material import Material, material_of, provenance
from so8t.errors import InputError, ResourceError
from so8t.progress import Progress
from so8t.so8.merge import INDEX, Folded, shard_names, write_folded
from so8t.so8.rounding import ITEM_BYTES

if TYPE_CHECKING:
    from so8t.step import Facts, Inputs

BASE_FILES = ("config.json", "generation_config.json")
TOKENIZER_FILES = (
    "added_tokens.json", "chat_template.jinja", "merges.txt", "special_tokens_map.json", "tokenizer.json", "tokenizer.model",
    "tokenizer_config.json", "vocab.json",
)  # fmt: skip
# Room for headers, metadata and the file system's own needs.
SPARE_BYTES = 64 << 20


def run(config: Fold, inputs: "Inputs", out: Path, progress: Progress) -> "Facts":
    """Write hf/, vision/ and gguf/; facts count what was changed and how long it took."""
    material = material_of(inputs)
    text, vision = material.text, material.tower
    check_name(config.name, material.tokenizer)
    _demand_room(out, config, [text, *([vision] if vision else [])])
    started = time.monotonic()
    _write_hf(config, material, out / "hf", progress)
    notes = provenance(inputs, material)
    _once(
        out / "gguf" / f"{config.name}-F16.gguf",
        lambda path: write_model(
            path, material.base, text, material.tokenizer, config.name, "F16", notes,
            lambda done, total: progress.update(done, total, f"writing {path.name}"),
        ),
    )  # fmt: skip
    if vision and material.vision:
        vision_config = _write_vision(
            material.vision, vision, out / "vision", _share(progress, 0, 1, "folding the tower")
        )
        _once(
            out / "gguf" / f"{config.name}-mmproj-F16.gguf",
            lambda path: write_mmproj(path, vision_config, vision, f"{config.name}-mmproj", "F16", notes),
        )
    return {
        "name": config.name,
        "adapter": "PEFT" if material.is_peft else "SO8T",
        "changed_tensors": len(text.adapter.changes) + len(text.adapter.token_rows),
        "tensors": len(text.base.names()),
        "changed_vision_tensors": len(vision.adapter.changes) if vision else 0,
        "rotation_error_max": max(map(rotation_error, filter(None, (text, vision)))),
        "seconds": round(time.monotonic() - started, 3),
    }


def check_name(name: str, tokenizer: Path) -> None:
    """InputError unless the name makes llama.cpp treat white space after special tokens as transformers does."""
    strips = strips_right(tokenizer)
    if named_phi3(name) != strips:
        raise InputError(
            f"the name {name!r}, and a tokenizer that {'drops' if strips else 'keeps'} white space after special tokens",
            "a name with phi-3 or phi3 in it for the one that drops it, and without for the other",
            "set bake.fold.name: llama.cpp decides by the name",
        )


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


def _write_hf(config: Fold, material: Material, target: Path, progress: Progress) -> None:
    base = material.base
    names = shard_names(base) if config.stock else []
    for number, name in enumerate(names):
        report = _share(progress, number, len(names), f"folding {name}")
        if not (target / name).exists():
            write_folded(base / name, material.text, target / name, report)
    progress.update(len(names), len(names), "folding")
    for source in _copied(config, material):
        _once(target / source.name, lambda path, source=source: durable.write_bytes(path, source.read_bytes()))  # type: ignore[misc]


def _share(progress: Progress, number: int, count: int, doing: str) -> Callable[[int, int], None]:
    """Reports of one part of so many as reports of all; the first of it now."""
    progress.update(number, count, doing)
    return lambda done, total: progress.update(number + done / total, count, doing)


def _copied(config: Fold, material: Material) -> Iterator[Path]:
    """The files that are taken over byte for byte."""
    for folder, names in ((material.base, BASE_FILES), (material.tokenizer, TOKENIZER_FILES)):
        yield from (folder / name for name in names if (folder / name).is_file())
    if config.stock and (material.base / INDEX).is_file():
        yield material.base / INDEX


def _write_vision(source: Path, folded: Folded, target: Path, report: Callable[[int, int], None]) -> dict[str, Any]:
    _once(target / "model.safetensors", lambda path: write_folded(source / "model.safetensors", folded, path, report))
    config: dict[str, Any] = durable.read_json(source / "config.json")
    # The folded tower has no adapters, so nothing is left for alpha to scale.
    _once(target / "config.json", lambda path: durable.write_json(path, {**config, "alpha": 0.0}))
    return config


def _demand_room(out: Path, config: Fold, models: list[Folded]) -> None:
    """ResourceError unless the disk has room for what is still to be written."""
    sizes = [model.base.info(name) for model in models for name in model.base.names()]
    as_stored = sum(info.size_bytes for info in sizes) if config.stock else 0
    as_f16 = sum(info.size_bytes // ITEM_BYTES.get(info.dtype, 2) * 2 for info in sizes)
    present = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    needed = max(as_stored + as_f16 + SPARE_BYTES - present, 0)
    free = shutil.disk_usage(out).free
    if free < needed:
        raise ResourceError(
            f"{free / 1e9:.1f} GB are free at {out}",
            f"{needed / 1e9:.1f} GB for the folded weights",
            "free some space or move the home with --home DIR",
        )
