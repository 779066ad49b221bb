"""The texts inside binary files that are published: what GGUF, safetensors and PNG files say beside their numbers."""

import json
import re
import struct
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from so8t.errors import InputError

# Of any other type of binary file: runs of printable bytes.
PRINTABLE = re.compile(rb"[\x20-\x7e]{8,}")
CHUNK_BYTES = 16 << 20
# A run that two chunks share is seen whole by one of them.
OVERLAP_BYTES = 4096
SAFETENSORS_HEADER_MAX_BYTES = 100 << 20


def texts(name: str, path: Path) -> Iterator[tuple[str, str]]:
    """(where, text) of everything that can be read in a binary file; InputError where it is not what its name says."""
    readers = {".gguf": _gguf, ".safetensors": _safetensors, ".png": _png}
    reader = readers.get(PurePosixPath(name).suffix.lower(), _printable)
    try:
        yield from reader(path)
    except (ValueError, KeyError, IndexError, OSError, struct.error) as error:
        raise InputError(
            f"{name} cannot be searched for what must not be published: {error}",
            "a whole file of the type that its name says",
            "look at the step that wrote it; nothing was published",
        ) from error


def _gguf(path: Path) -> Iterator[tuple[str, str]]:
    from gguf import GGUFReader

    reader = GGUFReader(path)
    for key, field in reader.fields.items():
        yield "keys", key
        yield from _strings(key, field.contents())
    yield "tensor names", "\n".join(tensor.name for tensor in reader.tensors)


def _safetensors(path: Path) -> Iterator[tuple[str, str]]:
    with path.open("rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        if size > SAFETENSORS_HEADER_MAX_BYTES:
            raise ValueError(f"a header of {size} bytes")
        header = json.loads(file.read(size).decode("utf-8"))
    for key, text in (header.pop("__metadata__", None) or {}).items():
        yield "keys", key
        yield from _strings(key, text)
    yield "tensor names", "\n".join(header)


def _png(path: Path) -> Iterator[tuple[str, str]]:
    from PIL import Image

    with Image.open(path) as image:
        image.load()
        for key, value in image.info.items():
            yield "keys", str(key)
            yield from _strings(str(key), value)
        yield from _strings("Exif", list(image.getexif().values()))


def _printable(path: Path) -> Iterator[tuple[str, str]]:
    with path.open("rb") as file:
        tail = b""
        while chunk := file.read(CHUNK_BYTES):
            yield "", "\n".join(run.decode("ascii") for run in PRINTABLE.findall(tail + chunk))
            tail = chunk[-OVERLAP_BYTES:]


def _strings(where: str, value: Any) -> Iterator[tuple[str, str]]:
    """The texts of a value, lists of them as one."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", errors="replace")
    if isinstance(value, str):
        yield where, value
    elif isinstance(value, list) and value and isinstance(value[0], str):
        yield where, "\n".join(value)
