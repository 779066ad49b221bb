"""bake.stock: the untouched base as F16 GGUFs, so that what was trained is compared with it in files of one type.

text    gguf/base*-F16.gguf from the base alone: no training makes it anew
vision  gguf/base-mmproj-F16.gguf: the tower and the projector as they were before training

The writers are those of bake.fold, with nothing to fold. The vocabulary is the base's own: the benchmark gives ids, and
what training calls its tags and class tokens are rows here that the base never used, as in transformers.
"""

import time
from pathlib import Path
from typing import TYPE_CHECKING

from so8t import __version__, durable
from so8t.bake.config import Stock
from so8t.bake.gguf_model import write_model
from so8t.bake.gguf_vision import write_mmproj
from so8t.bake.gguf_vocab import strips_right
from so8t.progress import Progress
from so8t.so8.merge import Adapter, Folded, Tensors

if TYPE_CHECKING:
    from so8t.artifacts import Artifact
    from so8t.step import Facts, Inputs


def run(config: Stock, inputs: "Inputs", out: Path, progress: Progress) -> "Facts":
    """Write the part's GGUF; facts name it and tell its size."""
    started = time.monotonic()
    path = _text(inputs["base"], out, progress) if config.part == "text" else _vision(inputs["train"].path, out)
    return {
        "file": path.name,
        "size_bytes": path.stat().st_size,
        "seconds": round(time.monotonic() - started, 3),
    }


def _text(base: "Artifact", out: Path, progress: Progress) -> Path:
    # llama.cpp decides by the name what white space means.
    name = "base-phi-3" if strips_right(base.path) else "base"
    path = out / "gguf" / f"{name}-F16.gguf"
    if not path.exists():
        facts = base.manifest.facts
        notes = {
            "license": str(facts.get("licence") or ""),
            "base_id": str(facts.get("id") or ""),
            "base_revision": str(facts.get("revision") or ""),
            "base_content": base.content,
            "version": __version__,
        }
        write_model(
            path, base.path, Folded(Tensors.of_model(base.path), Adapter({})), base.path, name, "F16", notes,
            lambda done, total: progress.update(done, total, f"writing {path.name}"),
        )  # fmt: skip
    return path


def _vision(train: Path, out: Path) -> Path:
    path = out / "gguf" / "base-mmproj-F16.gguf"
    if not path.exists():
        tower = Folded(Tensors([train / "vision" / "initial.safetensors"]), Adapter({}))
        shape = durable.read_json(train / "vision" / "config.json")
        write_mmproj(path, shape, tower, "base-mmproj", "F16", {"version": __version__})
    return path
