"""Ends a process that hangs: its stacks first, then a chance to save, then the kill of it and all below it."""

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

import psutil

from so8t import hang, stacks
from so8t.births import birth
from so8t.monitor.processes import Unit

KILLED_S = 10.0


def end(unit: Unit, why: str, grace_s: float) -> str:
    """What became of it, in words. Its parent learns that it hung before it is gone."""
    process = _same(unit)
    if process is None:
        return "it had ended meanwhile"
    family = [process, *process.children(recursive=True)]
    written = dump(unit.place, [member.pid for member in family])
    if unit.step:
        hang.say(unit.place, why)
    # On Windows to terminate is to kill: there a step has been asked by that note.
    if os.name != "nt" or not unit.step:
        _ask(process)
    for member in family:
        _wake(member.pid)
    _, alive = psutil.wait_procs(family, timeout=grace_s)
    for member in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    psutil.wait_procs(alive, timeout=KILLED_S)
    how = f"it was killed {grace_s:g} s after it was asked to end" if alive else "it ended when it was asked to"
    where = f"; stacks: {', '.join(str(path) for path in written)}" if written else "; it wrote no stacks"
    return how + where


def dump(place: Path, pids: Iterable[int]) -> list[Path]:
    """Have those that can write where they stand; the files that grew."""
    before = {pid: path.stat().st_size for pid in pids if (path := stacks.file_of(place, pid)).exists()}
    for pid in before:
        with contextlib.suppress(ProcessLookupError):
            stacks.ask(place, pid)
        _wake(pid)
    return [stacks.file_of(place, pid) for pid, size in before.items() if stacks.answered(place, pid, size)]


def _wake(pid: int) -> None:
    """What a signal has halted can neither answer nor save."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_STOPPED:
            process.resume()


def _ask(process: psutil.Process) -> None:
    """The first alone: whoever shares its work is asked by it."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process.terminate()


def _same(unit: Unit) -> psutil.Process | None:
    """The unit's process, if it is still that one."""
    try:
        process = psutil.Process(unit.pid)
        return process if birth(unit.pid) == unit.born else None
    except psutil.NoSuchProcess:
        return None
