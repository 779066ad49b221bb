"""Checkpoints: a folder that exists under its name is whole, and its hashes say so.

    <sessions/id>/checkpoints/<kind>-<global_step>/
        tensors.safetensors   everything numeric
        state.json            counters, RNG of Python and NumPy, history
        manifest.json         sizes and sha256 of the two, written last

kind is rolling, emergency (a signal) or final. A folder that does not verify is set aside as
`<name>.damaged-<n>` and the one before is taken; nothing is ever loaded with pickle.
"""

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from so8t import durable
from so8t.artifacts import hash_file

Kind = Literal["rolling", "emergency", "final"]
FORMAT = "so8t-checkpoint-1"
TENSORS, STATE, MANIFEST = "tensors.safetensors", "state.json", "manifest.json"
_NAME = re.compile(r"(rolling|emergency|final)-(\d+)")


@dataclass(frozen=True)
class Snapshot:
    """The whole state at the start of a step: host tensors and JSON values."""

    step: int
    tensors: Mapping[str, Tensor]
    values: Mapping[str, Any]


class Checkpoints:
    """The checkpoints of one session."""

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self.keep = folder, keep
        self.problems: list[str] = []
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob("*" + durable.TMP_SUFFIX):
            shutil.rmtree(leftover)

    def save(self, kind: Kind, snapshot: Snapshot) -> Path:
        """Write durably, then prune. The same kind and step is the same state: it is not written twice."""
        target = self.folder / f"{kind}-{snapshot.step}"
        if target.exists():
            return target
        temporary = target.with_name(target.name + durable.TMP_SUFFIX)
        with durable.explain_full_disk(temporary):
            temporary.mkdir()
            durable.write_bytes(temporary / TENSORS, save_tensors(dict(snapshot.tensors)))
            durable.write_json(temporary / STATE, dict(snapshot.values))
            files = {
                name: {"size_bytes": (temporary / name).stat().st_size, "sha256": hash_file(temporary / name)}
                for name in (TENSORS, STATE)
            }
            durable.write_json(temporary / MANIFEST, {"format": FORMAT, "step": snapshot.step, "files": files})
            durable.fsync_folder(temporary)
            durable.replace(temporary, target)
        self._prune()
        return target

    def names(self) -> list[str]:
        """What lies there, oldest first."""
        return [path.name for path in self._found()]

    def load_newest(self) -> Snapshot | None:
        """The newest that verifies; damaged ones are set aside and named in `problems`."""
        for path in reversed(self._found()):
            problem = verify(path)
            if problem is None:
                values = durable.read_json(path / STATE)
                return Snapshot(int(_step(path)), load_tensors((path / TENSORS).read_bytes()), values)
            aside = self._set_aside(path)
            self.problems.append(f"{path.name}: {problem}; set aside as {aside.name}")
        return None

    def _found(self) -> list[Path]:
        paths = [path for path in self.folder.iterdir() if path.is_dir() and _NAME.fullmatch(path.name)]
        return sorted(paths, key=lambda path: (_step(path), path.name))

    def _set_aside(self, path: Path) -> Path:
        number = 1
        while (target := path.with_name(f"{path.name}.damaged-{number}")).exists():
            number += 1
        durable.replace(path, target)
        return target

    def _prune(self) -> None:
        passing = [path for path in self._found() if not path.name.startswith("final-")]
        for path in passing[: -self.keep]:
            # Renamed first: a cut in the middle of a deletion must not leave half a checkpoint under its name.
            dying = path.with_name(path.name + durable.TMP_SUFFIX)
            durable.replace(path, dying)
            shutil.rmtree(dying)


def verify(path: Path) -> str | None:
    """What is wrong with a checkpoint; None if its bytes are the bytes that were written."""
    try:
        manifest = durable.read_json(path / MANIFEST)
        if manifest["format"] != FORMAT or manifest["step"] != _step(path):
            return "its manifest is of another format or step"
        entries = {name: manifest["files"][name] for name in (TENSORS, STATE)}
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"unreadable manifest ({type(error).__name__})"
    for name, entry in entries.items():
        file = path / name
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != entry["size_bytes"] or hash_file(file) != entry["sha256"]:
            return f"{name} differs from its recorded hash"
    return None


def _step(path: Path) -> int:
    match = _NAME.fullmatch(path.name)
    return int(match[2]) if match else -1
