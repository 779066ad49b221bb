"""The GPU, its driver, and whether the installed torch can use both; asked of NVML, without loading torch."""

import ast
import importlib.metadata
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from so8t.collect.config import DemoBase
from so8t.preflight.finding import Finding, gib
from so8t.preflight.scene import Scene

INSTALL = "install a CUDA build of torch for this driver (see README)"


@dataclass(frozen=True)
class Card:
    """The first GPU, as NVML tells it. `cuda`: the newest CUDA that the driver serves, as (13, 0)."""

    name: str
    driver: str
    cuda: tuple[int, int]
    total_bytes: int
    free_bytes: int


@contextmanager
def _nvml() -> Iterator[Any]:
    import pynvml

    pynvml.nvmlInit()
    try:
        yield pynvml
    finally:
        pynvml.nvmlShutdown()


def read_card() -> tuple[Card | None, str]:
    """The card, or why none is known."""
    if importlib.util.find_spec("pynvml") is None:
        return None, "the package nvidia-ml-py is not installed"
    import pynvml

    try:
        with _nvml() as nvml:
            if not nvml.nvmlDeviceGetCount():
                return None, "the NVIDIA driver has no GPU"
            handle = nvml.nvmlDeviceGetHandleByIndex(0)
            memory, cuda = nvml.nvmlDeviceGetMemoryInfo(handle), nvml.nvmlSystemGetCudaDriverVersion_v2()
            return Card(
                str(nvml.nvmlDeviceGetName(handle)), str(nvml.nvmlSystemGetDriverVersion()),
                (cuda // 1000, cuda % 1000 // 10), memory.total, memory.free,
            ), ""  # fmt: skip
    except pynvml.NVMLError_LibraryNotFound:
        return None, "no NVIDIA driver"
    except pynvml.NVMLError as error:
        return None, f"the NVIDIA driver does not answer ({error})"


def torch_build() -> tuple[str, str]:
    """Torch's version, and the CUDA that it was built for ("" for the CPU), read from its own version.py."""
    try:
        version = importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return "", ""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return "", ""
    text = (Path(spec.origin).parent / "version.py").read_text(encoding="utf-8")
    for node in ast.parse(text).body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == "cuda":
            return version, str(ast.literal_eval(node.value) or "") if node.value is not None else ""
    return version, ""


def check(scene: Scene, card: Card | None, why: str) -> Finding:
    """Whether the training runs where the config wants it."""
    device = scene.config.machine.device
    version, cuda = torch_build()
    if not version:
        return Finding("gpu", "fail", "torch is not installed", "torch", "pip install -c constraints.txt -e .")
    if device == "cpu":
        return Finding("gpu", "ok", f"none wanted: machine.device is cpu; torch {version}")
    if card is None:
        found = f"{why}; torch {version} {f'for CUDA {cuda}' if cuda else 'for the CPU'}"
        if device == "cuda":
            return Finding("gpu", "fail", found, "a GPU: machine.device is cuda", "install the driver, or device: auto")
        if isinstance(scene.config.base, DemoBase):
            return Finding("gpu", "ok", f"{found}; this base needs none")
        return Finding(
            "gpu", "warn", found, "a GPU for a base of this size", "install driver and torch for CUDA (README)"
        )
    found = f"{card.name}, {gib(card.total_bytes)}, driver {card.driver} (CUDA {card.cuda[0]}.{card.cuda[1]}); torch {version}"
    if not cuda:
        return Finding(
            "gpu",
            "fail" if device == "cuda" else "warn",
            f"{found} is built for the CPU and cannot use it",
            "a CUDA build",
            INSTALL,
        )
    # CUDA's minor versions are compatible, its major ones are not (CUDA Compatibility, section 2).
    if int(cuda.split(".")[0]) > card.cuda[0]:
        return Finding(
            "gpu",
            "fail",
            f"{found} is built for CUDA {cuda}",
            f"a driver for CUDA {cuda}",
            f"update the driver, or {INSTALL}",
        )
    return Finding("gpu", "ok", f"{found} for CUDA {cuda}")
