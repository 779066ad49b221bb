"""The machine: disk, memory, GPU, clock. Levels now, and when they will be gone."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from so8t.monitor import gpus
from so8t.monitor.clock import Moment, jumped_s
from so8t.monitor.config import Monitor
from so8t.monitor.finding import Finding
from so8t.monitor.forecast import hours_left
from so8t.monitor.state import SAMPLES_MAX, Sample, State

GIB = 1 << 30
SPACE = "free space; `so8t step cleanup` removes what nothing needs"
MEMORY = "close other programs; lower machine.workers or take a smaller --profile"


def readings(home: Path) -> dict[str, Any]:
    """Bytes, percent and Celsius now."""
    memory, (found, why) = psutil.virtual_memory(), gpus.read()
    return {
        "disk_free_bytes": shutil.disk_usage(home).free,
        "memory_available_bytes": memory.available,
        "memory_total_bytes": memory.total,
        "gpus": found,
        "gpus_absent": why,
    }


def sample(state: State, now: Moment, read: dict[str, Any]) -> None:
    """Note a reading; those of another boot say nothing about this one's rate."""
    same = state.last is not None and state.last.boot == now.boot
    taken = Sample(
        running_s=now.running_s,
        disk_free_bytes=read["disk_free_bytes"],
        memory_available_bytes=read["memory_available_bytes"],
    )
    state.samples = [*(state.samples if same else []), taken][-SAMPLES_MAX:]


def look(state: State, now: Moment, read: dict[str, Any], settings: Monitor) -> Iterator[Finding]:
    """What is scarce, hot or set; the forecasts go by the samples of the state, the newest included."""
    yield from _levels(read, settings)
    for what, field, do in (("disk", "disk_free_bytes", SPACE), ("memory", "memory_available_bytes", MEMORY)):
        times_s = [taken.running_s for taken in state.samples]
        levels = [getattr(taken, field) for taken in state.samples]
        hours = hours_left(times_s, levels, settings.forecast_samples)
        if hours is not None and hours <= settings.forecast_hours:
            found = f"{what}: full in {_duration(hours)} at this rate ({levels[-1] / GIB:.2f} GiB are free)"
            yield Finding(what, "forecast", "warn", found, do)
    if jump_s := jumped_s(state.last, now):
        found = f"the clock was set {'forward' if jump_s > 0 else 'back'} by {_duration(abs(jump_s) / 3600)}"
        yield Finding("clock", f"{now.wall_s:.0f}", "note", found, once=True)


def _levels(read: dict[str, Any], settings: Monitor) -> Iterator[Finding]:
    free = read["disk_free_bytes"] / GIB
    if free < settings.disk_free_min_gib:
        limit = f"monitor.disk_free_min_gib = {settings.disk_free_min_gib:g}"
        yield Finding("disk", "low", "warn", f"{free:.2f} GiB are free ({limit})", SPACE)
    percent = 100 * read["memory_available_bytes"] / read["memory_total_bytes"]
    if percent < settings.memory_free_min_percent:
        limit = f"monitor.memory_free_min_percent = {settings.memory_free_min_percent:g}"
        yield Finding("memory", "low", "warn", f"{percent:.1f} % of the memory are available ({limit})", MEMORY)
    for gpu in read["gpus"]:
        heat = gpu["temperature_c"]
        if heat is not None and heat >= settings.gpu_temperature_max_c:
            limit = f"monitor.gpu_temperature_max_c = {settings.gpu_temperature_max_c:g}"
            do = "look at the fans and the dust; a lower power limit (nvidia-smi -pl) cools it"
            yield Finding(
                "gpu", f"{gpu['index']} hot", "warn", f"{gpu['name']} has {heat} degrees Celsius ({limit})", do
            )


def _duration(hours: float) -> str:
    return f"{hours * 60:.0f} minutes" if hours < 2 else f"{hours:.1f} hours"
