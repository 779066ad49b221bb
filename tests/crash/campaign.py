"""The power fails again and again, at random moments, under the whole tree of `so8t up`.

After each cut only `so8t up` is started again. What must hold is checked from the outside:

- every run completes under its own flow-run id;
- an artifact that was finished at a cut is never made again (its manifest holds the time it was made);
- a checkpoint that was there at a cut is the one, or older than the one, that training goes on from;
- no more than one checkpoint interval of training is done twice;
- the contents of all artifacts equal those of a run that nobody disturbed.

By hand: python -m tests.crash.campaign FOLDER [CUTS] [SEED] [CUTS_PER_RUN]
"""

import json
import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from so8t.loop.saved import verify
from tests.conftest import TINY
from tests.crash.tree import Api, Tree, contents

ARGUMENTS = [*TINY, "--set", "machine.server_port=0", "--set", "machine.resume_interval_s=5"]
# Shares of the cuts that fall while server, worker and flow come up (seconds since the start of `so8t up`), while the
# flow works (seconds since it took its run), and in a step that was not begun before (seconds since it began).
SHARES = (0.25, 0.35, 0.4)
BOOT_S, WORK_S, STEP_S = (0.2, 10.0), (0.0, 14.0), (0.0, 4.0)
START_S, NEW_STEP_S = 180.0, 40.0
# A step and the writing of a checkpoint may lie between an interval's end and the checkpoint.
SLACK_S = 4.0


@dataclass
class Seen:
    """What was there at a cut."""

    manifests: dict[str, bytes]
    checkpoint: int  # newest one that verifies; -1: none
    redo_s: float  # training since that checkpoint
    resumes: int  # how many starts of training had gone on from a checkpoint


@dataclass
class Report:
    """What a campaign found."""

    cuts: int = 0
    runs: int = 0
    where: dict[str, int] = field(default_factory=dict)
    attempts: list[int] = field(default_factory=list)
    redo_s: list[float] = field(default_factory=list)
    resumed_trainings: int = 0
    failures: list[str] = field(default_factory=list)


def look(home: Path) -> Seen:
    """The disk at this moment."""
    manifests = {
        path.parent.relative_to(home).as_posix(): path.read_bytes()
        for path in (home / "artifacts").glob("*/*/manifest.json")
        if "." not in path.parent.name
    }
    steps = [-1]
    for folder in (home / "sessions").glob("train-*/checkpoints/*-*"):
        if "." not in folder.name and verify(folder) is None:
            steps.append(int(folder.name.split("-")[1]))
    session = next((json.loads(p.read_text("utf-8")) for p in (home / "sessions").glob("train-*/session.json")), {})
    return Seen(manifests, max(steps), _redo_s(home, max(steps)), len(session.get("resumes", [])))


def _redo_s(home: Path, checkpoint: int) -> float:
    """Time from the step that the newest checkpoint holds to the last step that the last training reported."""
    reports = []
    for path in sorted((home / "logs").glob("attempt_*/train.progress.jsonl"), key=lambda path: path.stat().st_mtime)[
        -1:
    ]:
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.endswith("}"):
                reports.append(json.loads(line))
    later = [report["time"] for report in reports if report["done"] > checkpoint and report["total"]]
    reached = [report["time"] for report in reports if report["done"] == checkpoint]
    return max(later) - (max(reached) if reached else min(later)) if later else 0.0


def compare(report: Report, home: Path, before: Seen, now: Seen, where: str) -> None:
    """Nothing that was there may be lost or made again."""
    for name, manifest in before.manifests.items():
        if now.manifests.get(name) != manifest:
            report.failures.append(f"{home.name} {where}: finished artifact {name} was lost or made again")
    session = next((json.loads(p.read_text("utf-8")) for p in (home / "sessions").glob("train-*/session.json")), {})
    for resume in session.get("resumes", [])[before.resumes :]:
        report.resumed_trainings += 1
        if resume["step"] < before.checkpoint:
            report.failures.append(
                f"{home.name} {where}: training went on from {resume['step']}, {before.checkpoint} was there"
            )


def one_run(root: Path, report: Report, number: int, cuts: int, draw: random.Random, reference: dict[str, str]) -> None:
    """One flow run with this many cuts, then left alone until it ends."""
    home = root / f"run-{number}" / "home"
    tree = Tree(home, *ARGUMENTS)
    tree.wait_for("worker  started")
    api = Api(home)
    run_id = api.start()
    seen = look(home)
    for cut in range(cuts):
        _wait_for_the_moment(home, draw)
        if _ended(home):
            break
        tree.cut()
        report.cuts += 1
        now = look(home)
        compare(report, home, seen, now, f"cut {cut + 1}")
        seen = now
        report.redo_s.append(now.redo_s)
        place = _working_on(home)
        report.where[place] = report.where.get(place, 0) + 1
        tree = Tree(home, *ARGUMENTS)
    tree.wait_for("worker  started")
    run = Api(home).wait(run_id, "Completed", "Failed", "Crashed", timeout_s=600)
    while run["state_name"] == "Crashed":  # resumed at the next look
        run = Api(home).wait(run_id, "Completed", "Failed", timeout_s=600)
    compare(report, home, seen, look(home), "the end")
    session = json.loads((home / "sessions" / f"run-{run_id}" / "session.json").read_text(encoding="utf-8"))
    report.runs += 1
    report.attempts.append(session["attempts"])
    if run["state_name"] != "Completed" or session["status"] != "completed":
        report.failures.append(f"{home.name}: {run['state_name']}: {run['state']['message']}")
    if contents(home) != reference:
        report.failures.append(f"{home.name}: other contents than the undisturbed run: {_differing(home, reference)}")
    if list((home / "artifacts").glob("*/*.damaged-*")) or list(home.glob("sessions/*/checkpoints/*.damaged-*")):
        report.failures.append(f"{home.name}: something was set aside as damaged")
    tree.stop()


def _wait_for_the_moment(home: Path, draw: random.Random) -> None:
    moment = draw.choices(("boot", "work", "step"), SHARES)[0]
    if moment == "boot":
        time.sleep(draw.uniform(*BOOT_S))
        return
    attempts, begun = _attempts(home), _partials(home)
    _wait(lambda: _attempts(home) > attempts or _ended(home), START_S)
    if moment == "work":
        time.sleep(draw.uniform(*WORK_S))
        return
    _wait(lambda: not _partials(home) <= begun or _ended(home), NEW_STEP_S)
    time.sleep(draw.uniform(*STEP_S))


def _wait(seen: Callable[[], bool], limit_s: float) -> None:
    deadline = time.monotonic() + limit_s
    while not seen() and time.monotonic() < deadline:
        time.sleep(0.05)


def _ended(home: Path) -> bool:
    return any(json.loads(p.read_text("utf-8"))["completed"] for p in (home / "sessions").glob("run-*/session.json"))


def _attempts(home: Path) -> int:
    return len(list((home / "logs").glob("attempt_*")))


def _partials(home: Path) -> set[Path]:
    return set((home / "artifacts").glob("*/*.partial"))


def _working_on(home: Path) -> str:
    return "+".join(sorted({path.parent.name for path in _partials(home)})) or "between"


def _differing(home: Path, reference: dict[str, str]) -> list[str]:
    found = contents(home)
    return sorted(name for name in found.keys() | reference.keys() if found.get(name) != reference.get(name))


def undisturbed(root: Path) -> dict[str, str]:
    """Contents of a run without a cut."""
    report = Report()
    one_run(root, report, 0, 0, random.Random(0), {})  # noqa: S311
    return contents(root / "run-0" / "home")


def campaign(root: Path, cuts: int, seed: int, cuts_per_run: int) -> Report:
    """As many runs as it takes for this many cuts."""
    reference, draw, report = undisturbed(root), random.Random(seed), Report()  # noqa: S311
    began = time.monotonic()
    while report.cuts < cuts:
        wanted = min(cuts_per_run, cuts - report.cuts)
        one_run(root, report, report.runs + 1, wanted, draw, reference)
        sys.stderr.write(
            f"{time.monotonic() - began:7.0f} s  {report.runs} runs, {report.cuts} cuts, {len(report.failures)} failures\n"
        )
        (root / "report.json").write_text(json.dumps(summary(report), indent=1), encoding="utf-8")
    return report


def summary(report: Report) -> dict[str, Any]:
    """The figures."""
    return {
        "cuts": report.cuts, "runs": report.runs, "failures": report.failures, "where": report.where,
        "attempts_most": max(report.attempts, default=0), "resumed_trainings": report.resumed_trainings,
        "redo_s_most": max(report.redo_s, default=0.0),
    }  # fmt: skip


if __name__ == "__main__":
    numbers = [int(text) for text in sys.argv[2:]]
    cuts_, seed_, each_ = (*numbers, *(300, 1, 10)[len(numbers) :])
    found_ = campaign(Path(sys.argv[1]), cuts_, seed_, each_)
    sys.stdout.write(json.dumps(summary(found_), indent=1) + "\n")
    sys.exit(1 if found_.failures else 0)
