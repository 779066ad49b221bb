"""An F32 GGUF that exists only to be measured: how exactly llama.cpp computes what transformers does."""

import shutil
from pathlib import Path

from so8t.bake import checks
from so8t.bake.gguf_model import write_model
from so8t.bake.material import Material
from so8t.bake.parity import Floats, Parity
from so8t.bake.reference import Report, unheard
from so8t.errors import ResourceError
from so8t.so8.rounding import ITEM_BYTES


def measure_f32(
    path: Path,
    material: Material,
    name: str,
    notes: dict[str, str],
    ids: list[list[int]],
    plain: list[Floats],
    threads: int,
    wrote: Report = unheard,
    read: Report = unheard,
) -> Parity:
    """Write `path`, compare it with the folded model's logits and remove it; ResourceError without room for it.

    `wrote` is told bytes, `read` texts.
    """
    infos = [material.text.base.info(tensor) for tensor in material.text.base.names()]
    needed = sum(4 * info.size_bytes // ITEM_BYTES.get(info.dtype, 2) for info in infos)
    free = shutil.disk_usage(path.parent).free
    if free < needed:
        raise ResourceError(
            f"{free / 1e9:.1f} GB are free at {path.parent}", f"{needed / 1e9:.1f} GB for a passing F32 copy"
        )
    try:
        write_model(path, material.base, material.text, material.tokenizer, name, "F32", notes, wrote)
        return checks.measure(path, ids, plain, threads, read)
    finally:
        path.unlink(missing_ok=True)
