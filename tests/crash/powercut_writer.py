"""What is written while the power is cut, and what the next start makes of it.

    python -m tests.crash.powercut_writer SCENARIO DISK [--forget SITE]

Saves items for ever and prints `<number> <fsyncs left out>` after each is promised to be durable. With --forget the
fsyncs of one file or folder are left out: a mutant of the product.
"""

import argparse
import os
import random
import re
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from so8t import durable
from so8t.artifacts import Artifact, Store, check_hashes
from tests.crash.powercut_strict import keep_bytes

if TYPE_CHECKING:
    from so8t.loop.checkpoint import Checkpoints, Snapshot

KEEP = 5
PAUSE_S = 0.02


def snapshot(step: int) -> "Snapshot":
    """A state that is a function of its step."""
    import torch

    from so8t.loop.checkpoint import Snapshot

    rng = np.random.default_rng(step)
    tensors = {name: torch.from_numpy(rng.random(20_000, dtype=np.float32)) for name in ("adapter", "moment")}
    return Snapshot(step, tensors, {"step": step, "history": rng.random(500).tolist()})


def _checkpoints(home: Path) -> "Checkpoints":
    from so8t.loop.checkpoint import Checkpoints

    return Checkpoints(home / "sessions" / "s" / "checkpoints", KEEP)


class CheckpointItems:
    """Rolling checkpoints of one session."""

    def __init__(self, home: Path) -> None:
        self.checkpoints = _checkpoints(home)

    def write(self, number: int) -> None:
        """Save one."""
        self.checkpoints.save("rolling", snapshot(number))

    @staticmethod
    def check(home: Path, acknowledged: int) -> str:
        """The next start: load the newest, compare every byte, save the next."""
        checkpoints = _checkpoints(home)
        found = checkpoints.load_newest()
        if found is None or found.step < acknowledged:
            return f"lost: {acknowledged}, found {found and found.step}; {checkpoints.problems}"
        if checkpoints.problems:
            return f"failed: torn under its final name: {checkpoints.problems}"
        wanted = snapshot(found.step)
        same = found.values == wanted.values and all(found.tensors[n].equal(t) for n, t in wanted.tensors.items())
        if not same or set(found.tensors) != set(wanted.tensors):
            return f"failed: {found.step} has other bytes"
        checkpoints.save("rolling", snapshot(found.step + 1))
        after = _checkpoints(home).load_newest()
        return "" if after is not None and after.step == found.step + 1 else "failed: cannot go on"


STEP = "collect"


class ArtifactItems:
    """Artifacts of one step; half of the files are written by somebody who never flushes."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def write(self, number: int) -> Artifact:
        """Commit one."""
        store, key = Store(self.home), f"{number:064x}"
        with store.working(STEP, key) as partial:
            data = np.random.default_rng(number).bytes(60_000)
            durable.write_bytes(partial / "durable.bin", data)
            (partial / "part").mkdir(exist_ok=True)
            (partial / "part" / "plain.bin").write_bytes(data[::-1])
            described = {
                "step": STEP, "version": 1, "key": key, "inputs": {}, "config": {}, "facts": {"number": number},
                "code": {}, "packages": {}, "machine": {}, "started_at": "", "finished_at": "",
            }  # fmt: skip
            made = store.commit(partial, described, frozenset())
        shutil.rmtree(store.path(STEP, f"{number - KEEP:064x}"), ignore_errors=True)
        return made

    @staticmethod
    def check(home: Path, acknowledged: int) -> str:
        """The next start: the acknowledged artifact is found, whole; so is a newer one if it has its name."""
        store = Store(home)
        for number in (acknowledged, acknowledged + 1):
            found = store.find(STEP, f"{number:064x}")
            if found is None and number == acknowledged:
                return f"lost: {number}"
            problems = check_hashes(found.path) if found else []
            if problems:
                return f"lost: {number}: {problems[0]}"
        if list(store.root.glob("*/*.damaged-*")):
            return "failed: torn under its final name"
        ArtifactItems(home).write(acknowledged + 2)
        return "" if store.find(STEP, f"{acknowledged + 2:064x}") else "failed: cannot go on"


class SessionItems:
    """One file, replaced again and again."""

    def __init__(self, home: Path) -> None:
        self.path = home / "sessions" / "s" / "session.json"

    def write(self, number: int) -> None:
        """Replace it."""
        durable.write_json(self.path, {"number": number, "history": list(range(number, number + 2000))})

    @staticmethod
    def check(home: Path, acknowledged: int) -> str:
        """The next start reads it and replaces it."""
        try:
            found = durable.read_json(home / "sessions" / "s" / "session.json")
        except (OSError, ValueError) as error:
            return f"lost: {acknowledged}: {error!r}"
        if found["number"] < acknowledged:
            return f"lost: {acknowledged}, found {found['number']}"
        if found["history"] != list(range(found["number"], found["number"] + 2000)):
            return "failed: other bytes"
        SessionItems(home).write(found["number"] + 1)
        return ""


SCENARIOS = {"checkpoints": CheckpointItems, "artifacts": ArtifactItems, "sessions": SessionItems}


def site(path: str) -> str:
    """The path of an fsync without what differs from one item to the next."""
    path = re.sub(r"\.[0-9a-f]{8}\.tmp$", "", path)
    return re.sub(r"[0-9a-f]{64}|(?<=-)\d+", "N", path)


def forget_fsyncs(disk: Path, forgotten: str) -> list[str]:
    """Leave out every fsync of one site; gives the list to which each fsync left out is added."""
    real, skipped = os.fsync, []

    def fsync(fd: int) -> None:
        path = site(os.path.relpath(os.readlink(f"/proc/self/fd/{fd}"), disk))  # noqa: PTH115
        if path == forgotten:
            skipped.append(path)
        else:
            real(fd)

    os.fsync = fsync
    return skipped


def main() -> None:
    """Write until killed, or `--items`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("scenario", choices=SCENARIOS)
    parser.add_argument("disk", type=Path)
    parser.add_argument("--forget", default="", help="leave out every fsync whose site matches")
    parser.add_argument("--items", type=int, default=sys.maxsize)
    parser.add_argument("--keep-bytes", type=Path, help="link what each fsync made durable into this folder")
    given = parser.parse_args()
    skipped = forget_fsyncs(given.disk, given.forget) if given.forget else []
    if given.keep_bytes:
        keep_bytes(given.disk, given.keep_bytes)
    items, rng = SCENARIOS[given.scenario](given.disk / "home"), random.Random(given.scenario)  # noqa: S311
    for number in range(given.items):
        items.write(number)
        os.write(1, f"{number} {len(skipped)}\n".encode())
        time.sleep(rng.uniform(0, PAUSE_S))


if __name__ == "__main__":
    main()
