"""Checkpoints as folders on a disk, read without torch; `checkpoint.py` writes and loads them."""

import re
from pathlib import Path

from so8t import durable
from so8t.artifacts import hash_file

FORMAT = "so8t-checkpoint-2"
TENSORS, STATE, MANIFEST = "tensors.safetensors", "state.json", "manifest.json"
_NAME = re.compile(r"(rolling|emergency|final)-(\d+)")


def is_name(name: str) -> bool:
    """Whether a folder of this name is a checkpoint under its own name: neither temporary nor set aside."""
    return _NAME.fullmatch(name) is not None


def step_of(path: Path) -> int:
    """The step at whose start the state was taken; -1 for what is no checkpoint."""
    match = _NAME.fullmatch(path.name)
    return int(match[2]) if match else -1


def verify(path: Path) -> str | None:
    """What is wrong with a checkpoint; None if its bytes are the bytes that were written."""
    try:
        manifest = durable.read_json(path / MANIFEST)
        if manifest["format"] != FORMAT:
            return f"it is of the format {manifest['format']!r}, not {FORMAT!r}"
        if manifest["step"] != step_of(path):
            return "its manifest is of another step"
        entries = {name: manifest["files"][name] for name in (TENSORS, STATE)}
        recorded = {name: (int(entry["size_bytes"]), str(entry["sha256"])) for name, entry in entries.items()}
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"unreadable manifest ({type(error).__name__})"
    for name, (size_bytes, sha256) in recorded.items():
        file = path / name
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != size_bytes or hash_file(file) != sha256:
            return f"{name} differs from its recorded hash"
    return None


def tag_of(path: Path) -> str:
    """The tag of a checkpoint that was asked for by hand; empty for any other, or where none can be read."""
    try:
        return str(durable.read_json(path / MANIFEST).get("tag", ""))
    except (OSError, ValueError, AttributeError):
        return ""
