"""Main memory and the GPU's: what the planned training needs at its peak against what there is."""

import sys

import psutil

from so8t.plan import four_class
from so8t.plan.hardware import memory_limit
from so8t.preflight.finding import Finding, gib
from so8t.preflight.profile import Choice
from so8t.preflight.scene import Scene

# Collecting, folding and measuring need this much in any case (docs/log.md).
FLOOR_BYTES = 2 << 30


def check(scene: Scene, choice: Choice | None) -> Finding:
    """Main memory, with what stands behind it: swap, or Windows' commit limit."""
    limit, free = memory_limit(), psutil.virtual_memory().available
    total = psutil.virtual_memory().total
    commit = commit_free()
    swap = f", {gib(commit)} can still be committed" if commit else f", swap {gib(psutil.swap_memory().total)}"
    bound = f" (a control group allows {gib(limit)})" if limit < total else ""
    found = f"{gib(min(free, limit))} of {gib(total)} available{bound}{swap}"
    if choice is None:
        unknown = f"; what the training needs is not known: {scene.unknown}" if scene.shapes is None else ""
        return _judge_floor(found + unknown, min(free, limit))
    need = choice.after.host_bytes
    found += f"; the training needs {gib(need)} ({choice.after.phase})"
    if need > limit:
        return Finding("memory", "warn", found, f"{gib(need)} or more", _shorter(choice))
    if choice.changes and not _on_gpu(scene):
        return Finding(
            "memory", "warn", f"{found} instead of {gib(choice.before.host_bytes)} with {_named(choice)}",
            f"{gib(choice.before.host_bytes)} or more", "nothing: a run sets this by itself, the effective batch stays",
        )  # fmt: skip
    if need > free:
        return Finding("memory", "warn", found, f"{gib(need)} available", "close other programs before the training")
    if commit and need > commit:
        return Finding(
            "memory", "warn", found, f"{gib(need)} that Windows lets a program commit",
            "enlarge the page file (System, Advanced, Performance, Virtual memory), or leave its size to Windows",
        )  # fmt: skip
    return Finding("memory", "ok", found)


def check_gpu(scene: Scene, choice: Choice, free_bytes: int) -> Finding:
    """The GPU's memory; `free_bytes`: what other programs leave of it now."""
    room, need = scene.machine.gpu_bytes, choice.after.device_bytes
    found = f"{gib(free_bytes)} of {gib(room)} free; the training needs {gib(need)} ({choice.after.phase})"
    if not choice.fits:
        return Finding("gpu memory", "warn", found, f"{gib(need)} or more", _shorter(choice))
    if choice.changes:
        return Finding(
            "gpu memory", "warn", f"{found} instead of {gib(choice.before.device_bytes)} with {_named(choice)}",
            f"{gib(choice.before.device_bytes)} or more", "nothing: a run sets this by itself, the effective batch stays",
        )  # fmt: skip
    if need > free_bytes:
        return Finding("gpu memory", "warn", found, f"{gib(need)} free", "close what else uses the GPU")
    return Finding("gpu memory", "ok", found)


def commit_free() -> int:
    """Bytes that Windows would still commit: memory and page file, less what is promised; 0 on other systems."""
    if sys.platform != "win32":
        return 0
    import ctypes

    class Status(ctypes.Structure):
        # MEMORYSTATUSEX: length, load, then physical, page file (the commit limit) and virtual, each total and free.
        _fields_ = (("length", ctypes.c_uint32), ("load", ctypes.c_uint32), ("sizes", ctypes.c_uint64 * 7))

    status = Status(length=ctypes.sizeof(Status))
    ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status))
    return int(status.sizes[3])


def _judge_floor(found: str, free: int) -> Finding:
    if free < FLOOR_BYTES:
        return Finding("memory", "warn", found, f"{gib(FLOOR_BYTES)} available", "close other programs")
    return Finding("memory", "ok", found)


def _on_gpu(scene: Scene) -> bool:
    return scene.shapes is not None and scene.shapes.on_gpu


def _named(choice: Choice) -> str:
    return ", ".join(f"machine.{name}={value:g}" for name, value in choice.changes.items())


def _shorter(choice: Choice) -> str:
    if choice.after.phase.startswith(four_class.NAME):
        return (
            "a shorter four_class.max_seq_length, a smaller micro_batch or evaluation_batch, "
            "adapter.gradient_checkpointing, or a 4-bit base (four_class.adapter.base_dtype=nf4, on a GPU)"
        )
    return "a smaller --profile, a 4-bit base (train.adapter.base_dtype=nf4, on a GPU) or shorter sequences; see `so8t plan`"
