"""Checkpoints: a folder that exists under its name is whole, and its hashes say so.

    <sessions/id>/checkpoints/<kind>-<global_step>/
        tensors.safetensors   everything numeric
        state.json            counters, RNG of Python and NumPy, plain values
        manifest.json         sizes and sha256 of the two, and the tag of one that was asked for by hand

kind is rolling, emergency (a signal or an error) or final. A folder that does not verify is set aside as
`<name>.damaged-<n>` and the one before is taken; nothing is ever loaded with pickle.
"""

import json
import math
import shutil
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors.torch import load as load_tensors
from torch import Tensor

from so8t import durable
from so8t.errors import InputError, NotFinite
from so8t.loop.directio import BlockWriter
from so8t.loop.saved import FORMAT, MANIFEST, STATE, TENSORS, is_name, step_of, tag_of, verify

Kind = Literal["rolling", "emergency", "final"]
_DTYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.bool: "BOOL",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8",
}  # fmt: skip


@dataclass(frozen=True)
class Snapshot:
    """The whole state at the start of a step: tensors and JSON values."""

    step: int
    tensors: Mapping[str, Tensor]
    values: Mapping[str, Any]


class GivenUp(Exception):
    """A save that was not wanted any more; nothing of it is left."""


class Checkpoints:
    """The checkpoints of one session. One thread at a time may save."""

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self.keep = folder, keep
        self.problems: list[str] = []
        # What this process wrote or read and hashed, by step.
        self._whole: dict[int, Path] = {}
        self._writer = BlockWriter()
        with durable.explain_full_disk(folder):
            durable.make_folder(folder)
            for leftover in folder.glob("*" + durable.TMP_SUFFIX):
                shutil.rmtree(leftover)

    def save(self, kind: Kind, snapshot: Snapshot, tag: str = "", unwanted: Callable[[], bool] = lambda: False) -> Path:
        """Write tensors of the CPU durably, then prune; a step that is known to be there whole is not written twice.

        A tag keeps it from being pruned. NotFinite where a number is not finite, GivenUp once `unwanted` says so,
        ResourceError where the disk refuses: what was there before is untouched then, and nothing half is left.
        """
        target = self.folder / f"{kind}-{snapshot.step}"
        there = self._whole.get(snapshot.step, target)
        if there.exists():
            # Whoever renamed it may have been killed before the rename was durable.
            durable.fsync_folder(self.folder)
            return there
        _refuse_not_finite(snapshot)
        temporary = target.with_name(target.name + durable.TMP_SUFFIX)
        with durable.explain_full_disk(temporary):
            try:
                temporary.mkdir()
                _write(self._writer, temporary, snapshot, tag, unwanted)
                durable.replace(temporary, target)
            except BaseException:
                shutil.rmtree(temporary, ignore_errors=True)
                raise
        self._whole[snapshot.step] = target
        with durable.explain_full_disk(self.folder):
            self.prune()
        return target

    def names(self) -> list[str]:
        """What lies there, oldest first."""
        return [path.name for path in self._found()]

    def load_newest(self) -> Snapshot | None:
        """The newest that verifies; damaged ones are set aside and named in `problems`."""
        for path in reversed(self._found()):
            problem = verify(path)
            if problem is None:
                self._whole[step_of(path)] = path
                return _load(path)
            aside = self._set_aside(path, "damaged")
            self.problems.append(f"{path.name}: {problem}; set aside as {aside.name}")
        return None

    def load(self, path: Path) -> Snapshot:
        """The one that lies at `path`, wherever that is; InputError if it does not verify."""
        problem = verify(path)
        if problem is not None:
            raise InputError(
                f"{path} is no whole checkpoint: {problem}",
                "the folder of a checkpoint, such as <home>/sessions/<id>/checkpoints/rolling-120",
                "choose another (so8t checkpoint verify) or leave --resume out: the newest that verifies is taken",
            )
        return _load(path)

    def pass_over(self, step: int) -> list[str]:
        """Set aside what is newer than `step`, so that later starts go on from there; what they are called now."""
        return [self._set_aside(path, "passed-over").name for path in self._found() if step_of(path) > step]

    def _found(self) -> list[Path]:
        paths = [path for path in self.folder.iterdir() if path.is_dir() and is_name(path.name)]
        return sorted(paths, key=lambda path: (step_of(path), path.name))

    def _set_aside(self, path: Path, why: str) -> Path:
        number = 1
        while (target := path.with_name(f"{path.name}.{why}-{number}")).exists():
            number += 1
        durable.replace(path, target)
        return target

    def prune(self) -> None:
        """Remove what is older than the newest `keep`; a final or a tagged one stays."""
        passing = [path for path in self._found() if not path.name.startswith("final-") and not tag_of(path)]
        for path in passing[: -self.keep]:
            # Renamed first: a cut in the middle of a deletion must not leave half a checkpoint under its name.
            dying = path.with_name(path.name + durable.TMP_SUFFIX)
            durable.replace(path, dying)
            # What a reader on Windows holds open goes at the next start.
            shutil.rmtree(dying, ignore_errors=True)


def serialise(tensors: Mapping[str, Tensor]) -> Iterator[bytes | memoryview]:
    """The bytes of a safetensors file in pieces that are not copied.

    safetensors' own `save` holds the interpreter's lock while it copies everything, and the training waits.
    Layout: https://github.com/huggingface/safetensors, "Format"; wide types first, so that all are aligned.
    """
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0]))
    header, offset = dict[str, Any](), 0
    for name, tensor in ordered:
        end = offset + tensor.nbytes
        header[name] = {"dtype": _DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield struct.pack("<Q", len(text)) + text
    for _, tensor in ordered:
        yield host_bytes(tensor).data


def host_bytes(tensor: Tensor) -> "np.ndarray[Any, np.dtype[np.uint8]]":
    """A CPU tensor's own memory; a copy where it is not contiguous."""
    flat: np.ndarray[Any, np.dtype[np.uint8]] = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy()
    return flat


def _write(writer: BlockWriter, folder: Path, snapshot: Snapshot, tag: str, unwanted: Callable[[], bool]) -> None:
    try:
        state = json.dumps(dict(snapshot.values), ensure_ascii=False, sort_keys=True, allow_nan=False).encode()
    except ValueError as error:
        raise NotFinite(
            f"a measure of step {snapshot.step} is NaN or infinite: this state is not saved, and the checkpoint "
            "before it stands"
        ) from error
    # Hashed in memory, so that a disk that keeps other bytes than it was given is found out.
    files = {
        TENSORS: _write_hashed(writer, folder / TENSORS, serialise(snapshot.tensors), unwanted),
        STATE: _write_hashed(writer, folder / STATE, [state], unwanted),
    }
    manifest = {"format": FORMAT, "step": snapshot.step, "files": files}
    durable.write_json(folder / MANIFEST, manifest | ({"tag": tag} if tag else {}))
    durable.fsync_folder(folder)


def _write_hashed(
    writer: BlockWriter, path: Path, pieces: Iterable[bytes | memoryview], unwanted: Callable[[], bool]
) -> dict[str, Any]:
    def check() -> None:
        if unwanted():
            raise GivenUp(path.parent.name)

    with durable.open_for_write(path) as file:
        hashed = writer.write(file, pieces, check)
    return {"size_bytes": hashed.size_bytes, "sha256": hashed.sha256}


def _refuse_not_finite(snapshot: Snapshot) -> None:
    for name, tensor in snapshot.tensors.items():
        if not tensor.is_floating_point() or not tensor.numel():
            continue
        numbers = tensor.detach().float().numpy() if tensor.dtype == torch.bfloat16 else tensor.detach().numpy()
        with np.errstate(all="ignore"):
            # One pass without a second array; a sum can also overflow, so it only says where to look.
            suspicious = not math.isfinite(float(numbers.sum()))
        if suspicious and not np.isfinite(numbers).all():
            raise NotFinite(
                f"{name} holds NaN or infinity at step {snapshot.step}: this state is not saved, "
                "and the checkpoint before it stands"
            )


def _load(path: Path) -> Snapshot:
    return Snapshot(step_of(path), load_tensors((path / TENSORS).read_bytes()), durable.read_json(path / STATE))
