"""bake.quantize: one quantized GGUF from the F16 one, by llama.cpp itself; its types are read back.

K-quants need columns divisible by 256; elsewhere llama.cpp falls back silently to another type.
"""

import ctypes
import os
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gguf
import llama_cpp.llama_cpp as lib

from so8t import durable
from so8t.bake.config import Quantize
from so8t.bake.imatrix_file import FILE, Columns, read
from so8t.errors import InputError, ResourceError, StepFailed
from so8t.llama import recent_log, silence
from so8t.progress import Progress

if TYPE_CHECKING:
    from so8t.step import Facts, Inputs

FTYPE = {
    "Q8_0": lib.LLAMA_FTYPE_MOSTLY_Q8_0,
    "Q6_K": lib.LLAMA_FTYPE_MOSTLY_Q6_K,
    "Q5_K_M": lib.LLAMA_FTYPE_MOSTLY_Q5_K_M,
    "Q4_K_M": lib.LLAMA_FTYPE_MOSTLY_Q4_K_M,
}
# The _M mixes spend more on some tensors by design.
PLANNED = {"Q8_0": {"Q8_0"}, "Q6_K": {"Q6_K"}, "Q5_K_M": {"Q5_K", "Q6_K"}, "Q4_K_M": {"Q4_K", "Q5_K", "Q6_K"}}
# Rows of it are looked up, not multiplied.
EMBEDDING = "token_embd.weight"
BLOCK_COLUMNS = {"Q8_0": 32, "Q6_K": 256, "Q5_K_M": 256, "Q4_K_M": 256}
SPARE_BYTES = 64 << 20
# Between two looks at how far llama.cpp has written.
LOOK_S = 1.0

Report = Callable[[int], object]


def run(config: Quantize, inputs: "Inputs", out: Path, progress: Progress) -> "Facts":
    """Write `<name>-<type>.gguf`; facts hold its types, its fallbacks and its size. StepFailed on a type nobody planned."""
    source = model_gguf(inputs["fold"].path / "gguf")
    guide = read(inputs["imatrix"].path / FILE) if config.guided else {}
    target = out / f"{source.name.removesuffix('-F16.gguf')}-{config.type}.gguf"
    started = time.monotonic()
    if not target.exists():
        needed = demand_room(source, target, config.base_type)
        doing = f"quantizing to {config.type}: at most {needed / 1e9:.2f} GB"
        progress.update(0, 1, doing)
        quantize(
            source, target, config.base_type, progress.machine.threads, guide,
            lambda written: progress.update(min(written / needed, 0.99), 1, doing),
        )  # fmt: skip
    progress.update(1, 1, f"quantized to {config.type}")
    types = tensor_types(target)
    return {
        "type": config.type,
        "tensor_types": dict(sorted(Counter(found for found, _ in types.values()).items())),
        "types": {name: found for name, (found, _) in sorted(types.items())},
        "fallbacks": fallbacks(types, config.base_type),
        "guided_tensors": sum(name in guide for name in types),
        "size_bytes": target.stat().st_size,
        "bits_per_weight": round(8 * target.stat().st_size / weights(target), 3),
        "seconds": round(time.monotonic() - started, 3),
    }


def model_gguf(folder: Path) -> Path:
    """The language model's F16 GGUF in a fold artifact."""
    found = [path for path in sorted(folder.glob("*-F16.gguf")) if not path.name.endswith("-mmproj-F16.gguf")]
    if len(found) != 1:
        raise InputError(f"{folder} holds {len(found)} F16 models", "exactly one *-F16.gguf")
    return found[0]


def demand_room(source: Path, target: Path, kind: str) -> int:
    """Bytes that the file takes at most, tensor by tensor; ResourceError unless they are free."""
    needed = SPARE_BYTES + sum(
        int(tensor.n_elements) * _bits_max(tensor, kind) // 8 for tensor in gguf.GGUFReader(source).tensors
    )
    free = shutil.disk_usage(target.parent).free
    if free < needed:
        raise ResourceError(
            f"{free / 1e9:.1f} GB are free at {target.parent}",
            f"{needed / 1e9:.1f} GB for {target.name}",
            "free some space or move the home with --home DIR",
        )
    return needed


def _bits_max(tensor: Any, kind: str) -> int:
    """Bits a weight of the widest type that llama.cpp may take for a tensor, rounded up."""
    columns = int(tensor.shape[0])
    if len(tensor.shape) == 1:
        return 32
    if columns % BLOCK_COLUMNS["Q8_0"]:
        return 16
    types = PLANNED[kind] if columns % BLOCK_COLUMNS[kind] == 0 else {"Q8_0"}
    blocks: list[tuple[int, int]] = [gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name]] for name in types]
    return max(-(-8 * size // block) for block, size in blocks)


def quantize(
    source: Path,
    target: Path,
    kind: str,
    threads: int = 0,
    guide: Mapping[str, Columns] | None = None,
    report: Report = lambda written: None,
) -> None:
    """Quantize one file; the bytes do not depend on the number of threads. StepFailed with llama.cpp's own words.

    `guide`: mean x^2 of the input columns by tensor name. `report` is told the bytes written so far, from a thread.
    """
    silence()
    params = lib.llama_model_quantize_default_params()
    params.ftype = FTYPE[kind]
    params.nthread = threads or os.cpu_count() or 1
    if guide:
        _check_fit(source, guide)
        params.imatrix = _as_imatrix(guide)
    temporary = target.with_name(target.name + durable.TMP_SUFFIX)
    with durable.explain_full_disk(target):
        with _growing(temporary, report):
            code = lib.llama_model_quantize(
                str(source).encode("utf-8"), str(temporary).encode("utf-8"), ctypes.byref(params)
            )
        if code:
            raise StepFailed(f"llama.cpp could not quantize {source.name} to {kind} (code {code})\n{recent_log()}")
        durable.fsync_file(temporary)
        durable.replace(temporary, target)


@contextmanager
def _growing(path: Path, report: Report) -> Iterator[None]:
    """Tell the size of a file each time it has grown: a native call reports nothing by itself, and one that stands still
    must not look as if it went on.
    """
    ended = threading.Event()

    def watch() -> None:
        told = 0
        while not ended.wait(LOOK_S):
            written = 0
            with suppress(FileNotFoundError):  # not yet, or renamed just now
                written = path.stat().st_size
            if written > told:
                told = written
                report(written)

    watcher = threading.Thread(target=watch, name="quantized", daemon=True)
    path.unlink(missing_ok=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


def _as_imatrix(guide: Mapping[str, Columns]) -> Any:
    """As llama.cpp takes it: an array that ends with an entry without a name; ctypes keeps what it points to."""
    entries = (lib.llama_model_imatrix_data * (len(guide) + 1))()
    for entry, (name, columns) in zip(entries, sorted(guide.items()), strict=False):
        entry.name = name.encode("utf-8")
        entry.data = (ctypes.c_float * len(columns))(*columns.tolist())
        entry.size = len(columns)
    return entries


def _check_fit(source: Path, guide: Mapping[str, Columns]) -> None:
    """InputError unless each linear has its columns: llama.cpp leaves unguided what it finds no entry for."""
    wanted = {
        tensor.name: int(tensor.shape[0])
        for tensor in gguf.GGUFReader(source).tensors
        if len(tensor.shape) > 1 and tensor.name != EMBEDDING
    }
    found = {name: len(columns) for name, columns in guide.items()}
    if wanted != found:
        odd = sorted(wanted.items() ^ found.items())[:3]
        raise InputError(
            f"the importance matrix does not fit {source.name}: {odd}",
            "one entry for each linear, as wide as its input",
        )


def tensor_types(path: Path) -> dict[str, tuple[str, int]]:
    """(type, columns) of every tensor of a GGUF, as the file says."""
    return {tensor.name: (tensor.tensor_type.name, int(tensor.shape[0])) for tensor in gguf.GGUFReader(path).tensors}


def weights(path: Path) -> int:
    """Number of weights in a GGUF."""
    return sum(int(tensor.n_elements) for tensor in gguf.GGUFReader(path).tensors)


def fallbacks(types: dict[str, tuple[str, int]], kind: str) -> list[dict[str, Any]]:
    """Tensors whose columns do not fit the type's blocks, so that llama.cpp took another type."""
    found = []
    for name, (got, columns) in sorted(types.items()):
        if got in PLANNED[kind] or got == "F32":
            continue
        if columns % BLOCK_COLUMNS[kind] == 0:
            raise StepFailed(f"{name} became {got} in a {kind} file; planned: {', '.join(sorted(PLANNED[kind]))}")
        found.append({"tensor": name, "type": got, "columns": columns, "wanted_multiple_of": BLOCK_COLUMNS[kind]})
    return found
