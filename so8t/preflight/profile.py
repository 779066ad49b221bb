"""A smaller profile of the same training: what this machine must change to hold it, and nothing that the result shows."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from so8t import recoveries
from so8t.config import Machine as Settings
from so8t.faults import Fault
from so8t.plan.memory import Need, Shapes, phases
from so8t.session import SessionFile

PREFIX = "machine."


@dataclass(frozen=True)
class Peak:
    """The hungriest phase: bytes on the device that computes and in main memory (on a CPU all in main memory)."""

    phase: str
    device_bytes: int
    host_bytes: int

    @property
    def total_bytes(self) -> int:
        """Of both."""
        return self.device_bytes + self.host_bytes

    def joined(self, other: "Peak") -> "Peak":
        """What holds this one and the other, one after the other; named after this one."""
        return Peak(self.phase, max(self.device_bytes, other.device_bytes), max(self.host_bytes, other.host_bytes))

    def within(self, room_bytes: int, on_gpu: bool) -> bool:
        """Whether it fits into what computes."""
        return (self.device_bytes if on_gpu else self.host_bytes) <= room_bytes


@dataclass(frozen=True)
class Choice:
    """`changes`: settings of `machine` by name; empty where the training fits as it is, or nothing makes it fit."""

    changes: dict[str, float]
    before: Peak
    after: Peak
    fits: bool


def peak(shapes: Shapes, room_bytes: int, changes: dict[str, float]) -> Peak:
    """Of the training under these changes. `room_bytes`: what an automatic micro-batch may fill."""
    config = shapes.config.within(int(changes.get("micro_batch_max", 0)), bool(changes.get("save_memory", 0)))
    return peak_of(phases(replace(shapes, config=config), room_bytes), shapes.on_gpu)


def peak_of(needs: Mapping[str, Need], on_gpu: bool) -> Peak:
    """Of these phases."""
    sizes = {
        name: (need.device_bytes, need.host_bytes) if on_gpu else (0, need.device_bytes + need.host_bytes)
        for name, need in needs.items()
    }
    name, _ = max(sizes.items(), key=lambda entry: sum(entry[1]))
    return Peak(name, max(device for device, _ in sizes.values()), max(host for _, host in sizes.values()))


def fixed(needs: Mapping[str, Need], on_gpu: bool, gpu_bytes: int, memory_bytes: int) -> Choice:
    """Of phases of which nothing can be changed from outside."""
    found = peak_of(needs, on_gpu)
    room = gpu_bytes if on_gpu else memory_bytes
    return Choice({}, found, found, not room or found.within(room, on_gpu))


def choose(shapes: Shapes, gpu_bytes: int, memory_bytes: int) -> Choice:
    """The least change that fits. Micro-batches first; recomputing costs about a third more arithmetic."""
    room = gpu_bytes if shapes.on_gpu else memory_bytes

    def fits(found: Peak) -> bool:
        return found.within(room, shapes.on_gpu)

    before = peak(shapes, room, {})
    if fits(before) or not room:
        return Choice({}, before, before, fits(before))
    for changes in _rungs(shapes):
        if fits(after := peak(shapes, room, changes)):
            return Choice(changes, before, after, fits=True)
    return Choice({}, before, before, fits=False)


def _rungs(shapes: Shapes) -> list[dict[str, float]]:
    config = shapes.config
    size = max(config.align.micro_batch, config.warmup.micro_batch, config.ppo.micro_batch)
    sizes = []
    while size > 1:
        size = -(-size // 2)
        sizes.append(float(size))
    lower = [{"micro_batch_max": size} for size in sizes]
    if config.adapter.gradient_checkpointing:
        return lower
    return [*lower, {"save_memory": 1.0}, *({**rung, "save_memory": 1.0} for rung in lower)]


def noted(changes: dict[str, float]) -> dict[str, float]:
    """As overrides of a session, by their place in the config."""
    return {PREFIX + name: value for name, value in changes.items()}


def taken_over(home: Path, session: SessionFile, found: dict[str, float]) -> dict[str, float]:
    """What the run's session holds of an earlier attempt, else what was found now, written there and recorded."""
    held = {name: value for name, value in session.session.overrides.items() if name.startswith(PREFIX)}
    if held or not found:
        return held
    session.update(overrides={**session.session.overrides, **found})
    detail = ", ".join(f"{name}={value:g}" for name, value in found.items())
    recoveries.record(
        home, session.session.session_id, step="preflight", fault=Fault.HOST_MEMORY, policy="smaller profile",
        detail=f"the planned training does not fit: {detail}; the effective batch stays", outcome="went on",
    )  # fmt: skip
    return found


def applied(settings: Settings, overrides: dict[str, float]) -> Settings:
    """The machine section with the overrides of a session that are its own, checked like a file."""
    own = {name.removeprefix(PREFIX): value for name, value in overrides.items() if name.startswith(PREFIX)}
    data: dict[str, Any] = {**settings.model_dump(), **own}
    return Settings.model_validate(data) if own else settings
