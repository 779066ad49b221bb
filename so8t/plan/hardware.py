"""What this machine has, found without torch, and the speeds that estimates assume."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import psutil

from so8t.errors import ConfigError

QUERY_TIMEOUT_S = 10.0
MIB = 1 << 20


@dataclass(frozen=True)
class Speed:
    """Peak of dense bf16 arithmetic and of memory, as the maker states them; 0 GiB for main memory."""

    name: str
    flops: float
    bytes_per_s: float
    memory_gib: int = 0


# Data sheets: tensor cores, dense, fp32 accumulation; memory bandwidth.
SPEEDS = (
    Speed("RTX 3060", 25e12, 360e9, 12),
    Speed("RTX 3080", 60e12, 760e9, 10),
    Speed("RTX 3090", 71e12, 936e9, 24),
    Speed("RTX 4070", 58e12, 504e9, 12),
    Speed("RTX 4090", 165e12, 1008e9, 24),
    Speed("A100", 312e12, 1555e9, 80),
    Speed("H100", 989e12, 3350e9, 80),
    Speed("H200", 989e12, 4800e9, 141),
)
# By memory, where the name tells nothing: the slowest card of the class.
BY_MEMORY_GIB = ((16, "RTX 3060"), (40, "RTX 3090"), (1000, "A100"))
# AVX2, two units of eight fp32 lanes that multiply and add, at 2.5 GHz; two channels of DDR4 hold more than a core takes.
CPU_FLOPS_PER_CORE, CPU_BYTES_PER_S = 80e9, 20e9


@dataclass(frozen=True)
class Machine:
    """Memory and disk as found; `gpu_bytes` is 0 without a GPU."""

    gpu: str
    gpu_bytes: int
    memory_bytes: int
    disk_free_bytes: int
    cores: int


def detect(home: Path) -> Machine:
    """Ask the driver, the kernel and the home's disk."""
    gpu, gpu_bytes = _gpu()
    place = existing(home)
    free = shutil.disk_usage(place).free if place is not None else 0
    return Machine(gpu, gpu_bytes, memory_limit(), free, os.cpu_count() or 1)


def existing(place: Path) -> Path | None:
    """The deepest folder of a path that is there and may be seen; None where not even its drive is (Windows)."""
    place = place.absolute()
    return next((one for one in (place, *place.parents) if os.path.exists(one)), None)  # noqa: PTH110 - False, not raised


def memory_limit(proc: Path = Path("/proc/self/cgroup"), mounts: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes that this process may have: the machine's, or less where a container's control group allows less."""
    limits = [psutil.virtual_memory().total]
    lines = proc.read_text(encoding="utf-8").splitlines() if proc.is_file() else []
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if not controllers or controllers == "memory":
            # Version 2 has no controllers in its line; a group is bound by those above it too.
            folder, name = (mounts / "memory", "memory.limit_in_bytes") if controllers else (mounts, "memory.max")
            place = folder / group.lstrip("/")
            limits += [found for above in (place, *place.parents) if (found := _limit(above / name))]
    return min(limits)


def _limit(path: Path) -> int:
    """0 where there is none: `max`, or no such file."""
    try:
        text = path.read_text(encoding="ascii").strip()
    except OSError:
        return 0
    return int(text) if text.isdigit() else 0


def _gpu() -> tuple[str, int]:
    """The first GPU's name and memory; nothing where nvidia-smi is absent or finds none."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return "", 0
    command = [program, "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(  # noqa: S603
            command, capture_output=True, text=True, encoding="utf-8", timeout=QUERY_TIMEOUT_S, check=True
        )
        name, _, size = done.stdout.splitlines()[0].rpartition(",")
        return name.strip(), int(size) * MIB
    except (OSError, subprocess.SubprocessError, IndexError, ValueError):
        return "", 0


def speed_of(machine: Machine, wanted: str = "") -> Speed:
    """Of the GPU that was named or found, else of the CPU."""
    name = wanted or machine.gpu
    if not name:
        return Speed(f"CPU, {machine.cores} cores", machine.cores * CPU_FLOPS_PER_CORE, CPU_BYTES_PER_S)
    known = [speed for speed in SPEEDS if speed.name.lower() in name.lower()]
    if known:
        return known[0]
    if wanted:
        raise ConfigError(f"--card {wanted}", "one of " + ", ".join(speed.name for speed in SPEEDS))
    gib = machine.gpu_bytes / 2**30
    alike = next(card for limit, card in BY_MEMORY_GIB if gib <= limit)
    return next(speed for speed in SPEEDS if speed.name == alike)
