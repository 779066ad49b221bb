"""The importance matrix as a file in llama.cpp's own format (tools/imatrix): its programs read it too."""

from collections.abc import Mapping
from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray

from so8t.bake.gguf_file import Slot, new_gguf, write_tensors
from so8t.errors import StepFailed

FILE = "imatrix.gguf"
SUMS, COUNTS = ".in_sum2", ".counts"
Columns = NDArray[np.float32]


def write(path: Path, sums: Mapping[str, NDArray[np.float64]], tokens: int, chunk_tokens: int) -> None:
    """Write the sums of squares over `tokens` positions; StepFailed for a linear whose inputs are all zero."""
    for name, total in sums.items():
        if not np.isfinite(total).all() or not total.any():
            raise StepFailed(f"the inputs of {name} are all zero or not finite: nothing to weigh its columns by")
    slots = [
        slot
        for name, total in sorted(sums.items())
        for slot in (
            Slot(name + SUMS, (1, len(total)), "F32", [total[None]]),
            Slot(name + COUNTS, (1, 1), "F32", [np.full((1, 1), float(tokens))]),
        )
    ]
    with new_gguf(path, "imatrix") as writer:
        writer.add_type("imatrix")
        writer.add_array("imatrix.datasets", ["training split"])
        writer.add_uint32("imatrix.chunk_count", max(1, tokens // chunk_tokens))
        writer.add_uint32("imatrix.chunk_size", chunk_tokens)
        for _ in write_tensors(writer, slots):
            pass


def read(path: Path) -> dict[str, Columns]:
    """Mean x^2 by tensor name, `[columns]` in fp32."""
    found = {tensor.name: tensor.data for tensor in gguf.GGUFReader(path).tensors}
    return {
        name.removesuffix(SUMS): (data.reshape(-1) / found[name.removesuffix(SUMS) + COUNTS].item()).astype(np.float32)
        for name, data in found.items()
        if name.endswith(SUMS)
    }
