"""Folding adapters into plain weights: W' = R_out (W + s B A) R_in, in float64, cast once.

Column vectors: the live adapter computes y = R_out (W + s B A) R_in x, with R = Cayley(alpha A), A skew and
block-diagonal over consecutive groups of 8 channels (Cayley, 1846; OFT, Qiu et al. 2023, section 4). Code on
row vectors transposes; folding the transpose, which is the inverse rotation, is wrong by the whole effect.

Weights are read row slice by row slice from safetensors, so that no tensor is ever whole in memory.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import expm

from so8t import durable
from so8t.errors import InputError
from so8t.so8.rounding import ITEM_BYTES, STORED, beyond, rounded, widen

Floats64 = NDArray[np.float64]

BLOCK = 8
ENTRIES = BLOCK * (BLOCK - 1) // 2  # 28: the upper triangle of a skew 8x8, row by row
# A slice of a tensor: so many values at most, 8 MiB in float64, which a processor's cache holds about.
SLICE_VALUES = 1 << 20
PIECE_BYTES = 4 << 20
INDEX = "model.safetensors.index.json"
FORMAT = "so8t-adapter-1"
MAPS = ("cayley", "expm")
PARTS = ("so8_out", "so8_in", "lora_a", "lora_b")
TOKEN_ROWS = {"token_rows.embed_tokens": "model.embed_tokens.weight", "token_rows.lm_head": "lm_head.weight"}


def rotations(generators: NDArray[Any], alpha: float, rotation_map: str = "cayley") -> Floats64:
    """R `[blocks, 8, 8]` of generators `[blocks, 28]`: (I - alpha A/2)^-1 (I + alpha A/2), or exp(alpha A)."""
    skew = skew_of(generators)
    if rotation_map == "expm":
        exponential: Floats64 = expm(alpha * skew)
        return exponential
    half = alpha / 2 * skew
    identity = np.eye(skew.shape[-1])
    solved: Floats64 = np.linalg.solve(identity - half, identity + half).astype(np.float64, copy=False)
    return solved


def skew_of(entries: NDArray[Any]) -> Floats64:
    """Skew matrices `[blocks, b, b]` of their upper triangles, row by row, `[blocks, b (b - 1) / 2]`."""
    size = (1 + math.isqrt(1 + 8 * entries.shape[1])) // 2
    rows, columns = np.triu_indices(size, 1)
    skew = np.zeros((len(entries), size, size))
    skew[:, rows, columns] = entries
    skew[:, columns, rows] = -skew[:, rows, columns]
    return skew


@dataclass(frozen=True)
class Change:
    """What an adapter does to one linear; any part may be absent. PEFT's blocks may have another size b than 8."""

    r_out: Floats64 | None = None  # [out/8, 8, 8]
    r_in: Floats64 | None = None  # [in/b, b, b]
    lora_a: Floats64 | None = None  # [r, in], scaled
    lora_b: Floats64 | None = None  # [out, r]

    def apply(self, weight: Floats64, start: int = 0) -> Floats64:
        """Fold rows `start ...` of W `[rows, in]`; start and row count are multiples of 8."""
        folded = weight
        if self.lora_a is not None and self.lora_b is not None:
            folded = folded + self.lora_b[start : start + len(weight)] @ self.lora_a
        if self.r_in is not None:
            folded = _right(folded, self.r_in)
        if self.r_out is not None:
            folded = _left(self.r_out[start // BLOCK : (start + len(weight)) // BLOCK], folded)
        return folded

    def revert(self, weight: Floats64) -> Floats64:
        """The inverse of `apply` on a whole tensor."""
        plain = weight
        if self.r_out is not None:
            plain = _left(self.r_out.transpose(0, 2, 1), plain)
        if self.r_in is not None:
            plain = _right(plain, self.r_in.transpose(0, 2, 1))
        if self.lora_a is not None and self.lora_b is not None:
            plain = plain - self.lora_b @ self.lora_a
        return plain


def _left(blocks: Floats64, weight: Floats64) -> Floats64:
    rows, columns = weight.shape
    rotated: Floats64 = np.matmul(blocks, weight.reshape(-1, BLOCK, columns)).reshape(rows, columns)
    return rotated


def _right(weight: Floats64, blocks: Floats64) -> Floats64:
    rows, columns = weight.shape
    grouped = weight.reshape(rows, -1, blocks.shape[-1]).transpose(1, 0, 2)
    rotated: Floats64 = np.matmul(grouped, blocks).transpose(1, 0, 2).reshape(rows, columns)
    return rotated


@dataclass(frozen=True)
class Adapter:
    """Changes by weight name, and whole replacement rows `[k, hidden]` for some token ids."""

    changes: Mapping[str, Change]
    token_rows: dict[str, Floats64] = field(default_factory=dict)
    token_ids: tuple[int, ...] = ()

    def touches(self, name: str) -> bool:
        """Whether this tensor differs from the base's."""
        return name in self.changes or name in self.token_rows


def read_adapter(
    tensors: Path,
    alpha: float,
    lora_scale: float,
    token_ids: dict[str, int] | None = None,
    rotation_map: str = "cayley",
) -> Adapter:
    """Read an adapter file, each change when it is asked for; InputError names a tensor that is odd in name or shape."""
    found = Tensors([tensors])
    parts: dict[str, dict[str, str]] = {}
    token_rows: dict[str, Floats64] = {}
    for name in found.names():
        module, _, part = name.rpartition(".")
        if name in TOKEN_ROWS:
            token_rows[TOKEN_ROWS[name]] = found.whole(name)
        elif part in PARTS:
            parts.setdefault(module, {})[part] = name
        else:
            raise InputError(f"{tensors}: unknown tensor {name!r}", f"names that end in {', '.join(PARTS)}")
    ids = tuple(sorted((token_ids or {}).values()))  # the rows lie in the order of their ids
    for target, rows in token_rows.items():
        if len(rows) != len(ids):
            raise InputError(f"{tensors}: {len(rows)} rows for {target}", f"one for each of the {len(ids)} token ids")
    for module, have in parts.items():
        _check_parts(module, {part: found.info(name).shape for part, name in have.items()})

    def read(module: str) -> Change:
        return _change(module, {part: found.whole(name) for part, name in parts[module].items()}, alpha, lora_scale, rotation_map)  # fmt: skip

    return Adapter(Changes({f"{module}.weight": module for module in parts}, read), token_rows, ids)


class Changes(Mapping[str, Change]):
    """Changes by weight name, made from the file each time: those of a whole model would take more room than its slices."""

    def __init__(self, modules: Mapping[str, str], read: Callable[[str], Change]) -> None:
        """`modules` names the adapter's module of each weight."""
        self._modules, self._read = modules, read

    def __getitem__(self, name: str) -> Change:
        return self._read(self._modules[name])

    def __contains__(self, name: object) -> bool:
        return name in self._modules

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __len__(self) -> int:
        return len(self._modules)


def _check_parts(module: str, shapes: Mapping[str, tuple[int, ...]]) -> None:
    for side in ("so8_out", "so8_in"):
        if side in shapes and shapes[side][1:] != (ENTRIES,):
            raise InputError(f"{module}.{side} has shape {shapes[side]}", f"[channels/{BLOCK}, {ENTRIES}]")
    if ("lora_a" in shapes) != ("lora_b" in shapes):
        raise InputError(f"{module} has only one of lora_a and lora_b", "both or none")


def _change(module: str, have: dict[str, Floats64], alpha: float, lora_scale: float, rotation_map: str) -> Change:
    return Change(
        r_out=rotations(have["so8_out"], alpha, rotation_map) if "so8_out" in have else None,
        r_in=rotations(have["so8_in"], alpha, rotation_map) if "so8_in" in have else None,
        lora_a=lora_scale * have["lora_a"] if "lora_a" in have else None,
        lora_b=have.get("lora_b"),
    )


def read_train_adapter(train: Path) -> Adapter:
    """The language model's adapter of a train artifact."""
    return read_adapter_folder(train / "adapter")


def read_adapter_folder(folder: Path) -> Adapter:
    """An adapter folder of ours; InputError where it is of another format."""
    header = durable.read_json(folder / "adapter.json")
    if header.get("format") != FORMAT or header.get("map") not in MAPS:
        raise InputError(
            f"{folder}: adapter format {header.get('format')!r}, map {header.get('map')!r}",
            f"{FORMAT!r}, one of {', '.join(MAPS)}",
        )
    path = folder / "adapter.safetensors"
    return read_adapter(path, header["alpha"], header["lora_scale"], header["token_ids"], header["map"])


def read_vision_adapter(train: Path) -> Adapter:
    """The image tower's adapter of a train artifact."""
    config = durable.read_json(train / "vision" / "config.json")
    return read_adapter(
        train / "vision" / "adapter.safetensors", config["alpha"], config.get("lora_scale", 1.0),
        rotation_map=config.get("map", "cayley"),
    )  # fmt: skip


@dataclass(frozen=True)
class Info:
    """Where a tensor lies."""

    path: Path
    dtype: str
    shape: tuple[int, ...]
    start: int  # first byte in the file
    size_bytes: int


class Tensors:
    """Tensors of some safetensors files, read as raw bytes or as float64 rows."""

    def __init__(self, paths: list[Path]) -> None:
        """Read the headers; InputError where a file is no safetensors file or cut short."""
        self.paths = paths
        self._infos: dict[str, Info] = {}
        for path in paths:
            self._infos.update(self._read_header(path))

    @classmethod
    def of_model(cls, folder: Path) -> "Tensors":
        """All shards of a Hub-layout folder."""
        return cls([folder / name for name in shard_names(folder)])

    def _read_header(self, path: Path) -> Iterator[tuple[str, Info]]:
        data_at, header = read_header(path)
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            begin, end = entry["data_offsets"]
            if data_at + end > path.stat().st_size:
                raise InputError(f"{path} ends within {name}", "a whole safetensors file", "fetch it again")
            yield name, Info(path, entry["dtype"], tuple(entry["shape"]), data_at + begin, end - begin)

    def names(self) -> list[str]:
        """Tensor names in file order."""
        return sorted(self._infos, key=lambda name: (self.paths.index(self._infos[name].path), self._infos[name].start))

    def info(self, name: str) -> Info:
        """Dtype, shape and place of a tensor."""
        return self._infos[name]

    def raw(self, name: str) -> NDArray[np.uint8]:
        """The bytes as they lie on disk, mapped, not read."""
        info = self._infos[name]
        if info.size_bytes == 0:
            return np.empty(0, np.uint8)
        return np.memmap(info.path, np.uint8, "r", info.start, (info.size_bytes,))

    def pieces(self, name: str) -> Iterator[bytes]:
        """The bytes as they lie on disk, read a bounded number at a time."""
        info = self._infos[name]
        left = info.size_bytes
        with info.path.open("rb") as file:
            file.seek(info.start)
            while left:
                yield file.read(min(left, PIECE_BYTES))
                left -= min(left, PIECE_BYTES)

    def stored(self, name: str, start: int, stop: int) -> NDArray[Any]:
        """Rows of a tensor as they are stored; bf16 as its bits. A vector counts as one column."""
        info = self._infos[name]
        if info.dtype not in STORED:
            raise InputError(f"{info.path}: {name} is {info.dtype}", f"one of {', '.join(STORED)}")
        width = ITEM_BYTES[info.dtype] * math.prod(info.shape[1:])
        data = np.asarray(self.raw(name)[start * width : stop * width])
        typed: NDArray[Any] = data.view(STORED[info.dtype]).reshape(-1, *info.shape[1:])
        return typed

    def rows(self, name: str, start: int, stop: int) -> Floats64:
        """Rows of a tensor as float64."""
        wide: Floats64 = widen(self.stored(name, start, stop)).astype(np.float64, copy=False)
        return wide

    def whole(self, name: str) -> Floats64:
        """A whole tensor as float64."""
        shape = self._infos[name].shape
        return self.rows(name, 0, shape[0]) if shape else self.rows(name, 0, 1).reshape(())

    def spans(self, name: str) -> Iterator[tuple[int, int]]:
        """(first, last + 1) row of each slice: multiples of 8 rows, and no more than SLICE_VALUES where 8 rows are not."""
        count, *rest = self._infos[name].shape
        step = max(SLICE_VALUES // max(math.prod(rest), 1) // BLOCK, 1) * BLOCK
        return ((start, min(start + step, count)) for start in range(0, count, step))

    def slices(self, name: str) -> Iterator[tuple[int, Floats64]]:
        """(first row, float64 rows) of a tensor."""
        return ((start, self.rows(name, start, stop)) for start, stop in self.spans(name))


class Folded:
    """A model's tensors with an adapter folded in; same interface as `Tensors` for rows."""

    def __init__(self, base: Tensors, adapter: Adapter) -> None:
        """InputError where the adapter does not fit the model."""
        self.base, self.adapter = base, adapter
        known = set(base.names())
        for name in {*adapter.changes, *adapter.token_rows} - known:
            raise InputError(
                f"the adapter changes {name}", "a tensor of the base", "use the base that it was trained on"
            )
        for name, change in adapter.changes.items():
            _check_fit(name, change, base.info(name).shape)

    @cached_property
    def _row_of(self) -> dict[int, int]:
        return {token: row for row, token in enumerate(self.adapter.token_ids)}

    def slices(self, name: str) -> Iterator[tuple[int, Floats64]]:
        """(first row, float64 rows) after folding."""
        change = self.adapter.changes.get(name)
        rows = self.adapter.token_rows.get(name)
        for start, weight in self.base.slices(name):
            if change is not None:
                yield start, change.apply(weight, start)
            elif rows is not None:
                for token, row in self._row_of.items():
                    if start <= token < start + len(weight):
                        weight[token - start] = rows[row]
                yield start, weight
            else:
                yield start, weight

    def cast(self, name: str, dtype: str, called: str = "") -> Iterator[NDArray[Any]]:
        """Slices after folding in another type, each value rounded once; bf16 as its bits.

        InputError with the number of values that would not be finite; `called` is the tensor's name in it.
        """
        lost, largest = 0, 0.0
        for values in self._values(name):
            data, odd = rounded(values, dtype)
            if odd is not None:
                lost += int(odd.sum())
                # A NaN is the largest of all.
                largest = float(np.maximum(largest, np.abs(widen(values)[odd]).max()))
            elif not lost:
                yield data
        if lost:
            raise beyond(called or name, dtype, lost, largest)

    def _values(self, name: str) -> Iterator[NDArray[Any]]:
        """float64 where something was folded, else what is stored."""
        if self.adapter.touches(name):
            return (rows for _, rows in self.slices(name))
        return (self.base.stored(name, start, stop) for start, stop in self.base.spans(name))

    def whole(self, name: str) -> Floats64:
        """A whole tensor after folding."""
        return np.concatenate([rows for _, rows in self.slices(name)])


def _check_fit(name: str, change: Change, shape: tuple[int, ...]) -> None:
    have = {
        "so8_out": change.r_out is None or len(change.r_out) * BLOCK == shape[0],
        "so8_in": change.r_in is None or len(change.r_in) * change.r_in.shape[-1] == shape[1],
        "lora_a": change.lora_a is None or change.lora_a.shape[1] == shape[1],
        "lora_b": change.lora_b is None or change.lora_b.shape[0] == shape[0],
    }
    wrong = [part for part, fits in have.items() if not fits]
    if wrong:
        raise InputError(f"{', '.join(wrong)} of {name} does not fit {list(shape)}", "an adapter trained on this base")


def read_header(path: Path) -> tuple[int, dict[str, Any]]:
    """(first data byte, header) of a safetensors file."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > path.stat().st_size:
                raise ValueError("header longer than the file")
            header: dict[str, Any] = json.loads(file.read(length))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as safetensors: {error}", "a whole safetensors file") from error
    return 8 + length, header


def shard_names(folder: Path) -> list[str]:
    """The safetensors files of a Hub-layout folder, in order."""
    if (folder / INDEX).is_file():
        return sorted(set(durable.read_json(folder / INDEX)["weight_map"].values()))
    return ["model.safetensors"]


def write_folded(
    source: Path, folded: Folded, target: Path, report: Callable[[int, int], object] = lambda done, total: None
) -> int:
    """Write one shard folded, in the very layout of `source`; give the number of changed tensors.

    The header is copied, untouched tensors byte for byte; the others are cast once to their own dtype. `report` is told
    before each tensor how many are done, of how many.
    """
    data_at, header = read_header(source)
    header.pop("__metadata__", None)
    changed = 0
    with durable.open_for_write(target) as file, source.open("rb") as head:
        file.write(head.read(data_at))
        for number, name in enumerate(sorted(header, key=lambda name: header[name]["data_offsets"][0])):
            report(number, len(header))
            if not folded.adapter.touches(name):
                for piece in folded.base.pieces(name):
                    file.write(piece)
                continue
            changed += 1
            for data in folded.cast(name, header[name]["dtype"]):
                file.write(data.data)
    return changed
