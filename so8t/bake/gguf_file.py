"""One GGUF file, written in one pass with bounded memory, whole or not at all."""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import gguf
import numpy as np
from numpy.typing import NDArray

from so8t import durable
from so8t.so8.rounding import ITEM_BYTES, narrow

FileType = Literal["F32", "F16", "BF16"]
FTYPE = {
    "F32": gguf.LlamaFileType.ALL_F32,
    "F16": gguf.LlamaFileType.MOSTLY_F16,
    "BF16": gguf.LlamaFileType.MOSTLY_BF16,
}
# numpy has no bf16: its bits lie in 16-bit integers.
NUMPY_DTYPE: dict[str, Any] = {"F32": np.float32, "F16": np.float16, "BF16": np.uint16}
NOTED = ("license", "base_id", "base_revision")


@dataclass(frozen=True)
class Slot:
    """A tensor to be written: its GGUF name, shape `[rows, ...]`, type, and its rows, of that type or float64."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    rows: Iterable[NDArray[Any]]

    @property
    def size_bytes(self) -> int:
        """Bytes in the file, without padding."""
        return math.prod(self.shape) * ITEM_BYTES[self.dtype]


@contextmanager
def new_gguf(path: Path, architecture: str) -> Iterator[gguf.GGUFWriter]:
    """A writer whose file becomes `path`, whole and durable, when the block ends well."""
    with durable.explain_full_disk(path):
        durable.make_folder(path.parent)
        temporary = path.with_name(path.name + durable.TMP_SUFFIX)
        writer = gguf.GGUFWriter(temporary, architecture)
        try:
            yield writer
        finally:
            writer.close()
        durable.fsync_file(temporary)
        durable.replace(temporary, path)


def write_tensors(writer: gguf.GGUFWriter, slots: list[Slot]) -> Iterator[int]:
    """Write header, keys and tensors; yields the bytes of tensor data written so far.

    What is float64 is cast, once; InputError where a value would not be finite.
    """
    for slot in slots:
        kind = gguf.GGMLQuantizationType[slot.dtype]
        writer.add_tensor_info(slot.name, slot.shape, np.dtype(NUMPY_DTYPE[slot.dtype]), slot.size_bytes, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    (file,) = writer.fout
    writer.write_padding(file, file.tell())
    done = 0
    for slot in slots:
        written = 0
        for rows in slot.rows:
            written += _write(file, narrow(rows, slot.dtype, slot.name) if rows.dtype == np.float64 else rows)
            yield done + written
        assert written == slot.size_bytes, slot.name
        writer.write_padding(file, written)
        done += written


def _write(file: Any, data: NDArray[Any]) -> int:
    file.write(np.ascontiguousarray(data).data)
    return data.nbytes


def add_general(writer: gguf.GGUFWriter, name: str, kind: str, file_type: FileType, notes: dict[str, str]) -> None:
    """The `general.*` keys, and our own for what llama.cpp has no key: what the file was made from."""
    writer.add_type(kind)
    writer.add_name(name)
    writer.add_file_type(FTYPE[file_type])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    if notes.get("license"):
        writer.add_license(notes["license"])
    if notes.get("base_id"):
        writer.add_base_model_count(1)
        writer.add_base_model_name(0, notes["base_id"].rpartition("/")[2])
        writer.add_base_model_version(0, notes.get("base_revision", ""))
        writer.add_base_model_repo_url(0, f"https://huggingface.co/{notes['base_id']}")
    for key in sorted(set(notes) - set(NOTED)):
        writer.add_string(f"so8t.{key}", notes[key])
