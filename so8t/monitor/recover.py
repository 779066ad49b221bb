"""What may be done about what a look found: end what hangs, remove own leftovers, stop a crash loop. Never user data."""

import contextlib
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from so8t import fence, hang, recoveries, resumption
from so8t.faults import Fault
from so8t.monitor import crash_loop, ending, leftovers, machine, processes, services
from so8t.monitor.config import Monitor
from so8t.monitor.finding import Action, Finding
from so8t.monitor.look import Report
from so8t.monitor.processes import Unit

WOULD = "nothing was done (dry run)"
# What it is told as in the run's own list.
HANG_POLICY, LOOP_POLICY = "end it, and go on from the newest checkpoint", "stop and tell"


def recover(home: Path, report: Report, settings: Monitor, *, dry_run: bool = False) -> list[Action]:
    """Act on a report, most urgent first; gives what was done, or with `dry_run` what would be."""
    # What was done is in the report also where the next thing fails.
    report.actions = made = list[Action]()
    for action in itertools.chain(
        _crash_loops(home, report, settings, dry_run),
        _hanging(home, report, settings, dry_run),
        _leftovers(home, report, dry_run),
        _services(home, report, dry_run),
    ):
        made.append(action)
    return made


def _hanging(home: Path, report: Report, settings: Monitor, dry_run: bool) -> Iterator[Action]:
    whys = {finding.subject: finding.found for finding in report.findings if finding.kind == "stall"}
    for unit in report.hanging:
        if not unit.attended:
            continue  # nobody would begin it again: it is told, no more
        if dry_run:
            yield Action("stall", unit.name, f"end process {unit.pid}", WOULD)
            continue
        if _went_on(home, unit):
            yield Action("stall", unit.name, "nothing", "it went on meanwhile")
            continue
        outcome = ending.end(unit, whys[unit.key], settings.stall_grace_s)
        _record(home, unit.run, unit.step, Fault.HANG, HANG_POLICY, f"{whys[unit.key]}; {outcome}", "begins again")
        yield Action("stall", unit.name, f"ended process {unit.pid}", outcome)


def _went_on(home: Path, unit: Unit) -> bool:
    """Looks are minutes apart: it may have come to itself since."""
    return all(other.key != unit.key or other.sign != unit.sign for other in processes.units(home))


def _crash_loops(home: Path, report: Report, settings: Monitor, dry_run: bool) -> Iterator[Action]:
    for finding in report.findings:
        if finding.kind != "crash-loop":
            continue
        if dry_run:
            yield Action(finding.kind, finding.subject, "stop the run", WOULD)
            continue
        resumption.ask_to_stop(home, finding.subject, finding.found)
        crash_loop.forget(home, finding.subject)
        _record(home, finding.subject, "", Fault.UNKNOWN, LOOP_POLICY, finding.found, "stopped")
        ended = [_end_run(unit, finding, settings) for unit in report.units if unit.run == finding.subject]
        outcome = "; ".join(ended) or "it is not begun again"
        yield Action(finding.kind, finding.subject, "stopped the run", outcome)


def _end_run(unit: Unit, finding: Finding, settings: Monitor) -> str:
    if unit.step:
        hang.say(unit.place, finding.found)
    return ending.end(unit, finding.found, settings.stall_grace_s)


def _leftovers(home: Path, report: Report, dry_run: bool) -> Iterator[Action]:
    wanted = {("disk", "low"), ("disk", "forecast"), ("leftovers", "temporary files")}
    if not any((finding.kind, finding.subject) in wanted for finding in report.findings):
        return
    found = leftovers.find(home)
    if not found:
        return
    if dry_run:
        size = sum(size for _, size in found) / machine.GIB
        yield Action("leftovers", "temporary files", f"remove {len(found)} files of {size:.2f} GiB", WOULD)
        return
    files, size_bytes = leftovers.remove(found)
    did = f"removed {files} of {len(found)} files"
    yield Action("leftovers", "temporary files", did, f"{size_bytes / machine.GIB:.2f} GiB are free again")


def _services(home: Path, report: Report, dry_run: bool) -> Iterator[Action]:
    """`so8t up` begins what is gone again; what is there and silent must go first."""
    # Since the look a server may have come to itself, and a process id may be another's.
    standing, now = {(finding.kind, finding.subject) for finding in report.findings}, services.running(home)
    up, workers = now.up, [pid for pid in report.services.workers if pid in now.workers]
    if up is None:
        return
    own = {process.pid for process in psutil.Process(up.pid).children(recursive=True)}
    silent: list[tuple[str, list[int]]] = []
    if ("server", "silent") in standing and now.server_pid == report.services.server_pid and not now.server_port:
        silent.append(("server", [now.server_pid] if now.server_pid else []))
    if ("worker", "silent") in standing:
        silent.append(("worker", workers))
    if ("worker", "several") in standing:
        silent.append(("worker", [pid for pid in workers if pid not in own]))
    for kind, pids in silent:
        for pid in pids:
            outcome = WOULD if dry_run else _each(pid, psutil.Process.kill)
            yield Action(kind, f"process {pid}", "end it; `so8t up` starts what it misses", outcome)


def _each(pid: int, do: Callable[[psutil.Process], None]) -> str:
    with contextlib.suppress(psutil.NoSuchProcess):
        do(psutil.Process(pid))
    return "ended"


def _record(home: Path, run: str, step: str, fault: Fault, policy: str, detail: str, outcome: str) -> None:
    recoveries.record(
        home, fence.session_id(run), step=step, fault=fault, policy=policy, detail=detail, outcome=outcome
    )  # fmt: skip
