"""One look at everything, and what it remembers for the next one."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from so8t import fence
from so8t.monitor import crash_loop, fault_log, leftovers, machine, processes, services, stalls
from so8t.monitor.clock import Moment, moment, watched_s
from so8t.monitor.config import Monitor
from so8t.monitor.finding import Action, Finding
from so8t.monitor.processes import Unit
from so8t.monitor.services import Services
from so8t.monitor.state import State, remembered
from so8t.session import is_alive, now, sessions

# A gap between two looks counts as seen up to as many intervals.
GAPS = 2.0
# So many intervals of silence are more than one gap, however long: after a sleep a service has a look's time to speak.
SILENT = GAPS + 0.5
# A start, a pause between starts, a lost heartbeat are no silence; a worker's comes every 30 s.
SERVICE_S = 180.0
SERVER, WORKERS, HEARTBEAT = "server", "workers", "heartbeat"
WORTH_REMOVING_BYTES = 100 << 20


@dataclass
class Report:
    """What a look found, what of it is told for the first time, and what is over."""

    at: str
    findings: list[Finding]
    new: list[Finding]
    over: list[str]
    readings: dict[str, Any]
    units: list[Unit]
    hanging: list[Unit]
    services: Services
    actions: list[Action] = field(default_factory=list)

    @property
    def bad(self) -> bool:
        """Whether anything wants somebody's eye."""
        return any(finding.severity == "warn" for finding in self.findings)


def look(home: Path, settings: Monitor, heartbeat: str | None = None) -> Report:
    """Look once. `heartbeat`: when a worker last told the server that it lives, where the server was asked."""
    with remembered(home) as state:
        at = moment()
        seen_s = watched_s(state.last, at, GAPS * settings.interval_s)
        if state.began_s is None:
            state.began_s = at.wall_s
        units, running = processes.units(home), services.running(home)
        signs = [(unit.key, unit.sign) for unit in units]
        stalls.note(state, [*signs, *_service_signs(running, heartbeat)], seen_s)
        crash_loop.note(home, state, at.wall_s, settings)
        read = machine.readings(home)
        machine.sample(state, at, read)
        hanging = stalls.hanging(state, units, settings)
        findings = [
            *fault_log.look(home, state),
            *(stalls.finding_of(unit, state) for unit in hanging),
            *crash_loop.look(state, settings),
            *machine.look(state, at, read, settings),
            *_services(running, state, settings, heartbeat),
            *_interrupted(home),
            *_leftovers(home),
        ]
        report = Report(now(), findings, [], [], read, units, hanging, running)
        _compare(report, state, at)
        return report


def _compare(report: Report, state: State, at: Moment) -> None:
    """What stands was told when it began; what no longer stands may be told again."""
    report.new = [finding for finding in report.findings if finding.fingerprint not in state.open]
    standing = {finding.fingerprint for finding in report.findings if not finding.once}
    report.over = sorted(set(state.open) - standing)
    state.open = {name: state.open.get(name, report.at) for name in sorted(standing)}
    state.last, state.looks = at, state.looks + 1


def _service_signs(running: Services, heartbeat: str | None) -> Iterator[tuple[str, str]]:
    """What is kept count of while it is not as it should be."""
    if running.up is None:
        return
    if not running.server_port:
        yield SERVER, "silent"
    if len(running.workers) != 1:
        yield WORKERS, f"{len(running.workers)}"
    if heartbeat is not None and running.workers:
        yield HEARTBEAT, heartbeat


def _services(running: Services, state: State, settings: Monitor, heartbeat: str | None) -> Iterator[Finding]:
    def silent(key: str) -> bool:
        return key in state.watched and state.watched[key].idle_s >= max(SERVICE_S, SILENT * settings.interval_s)

    if silent(SERVER):
        yield Finding("server", "silent", "warn", "the Prefect server does not answer", "see logs/server.log")
    if silent(WORKERS) and not running.workers:
        yield Finding("worker", "none", "warn", "no worker runs: nothing takes a run", "see logs/worker.log")
    elif silent(WORKERS):
        found = f"{len(running.workers)} workers take runs of this home (process ids {running.workers})"
        yield Finding("worker", "several", "warn", found, "end those that `so8t up` has not started")
    elif silent(HEARTBEAT):
        found = f"the worker runs, and has told the server nothing since {heartbeat}"
        yield Finding("worker", "silent", "warn", found, "see logs/worker.log")


def _interrupted(home: Path) -> Iterator[Finding]:
    """Runs that somebody or something ended, and that could go on."""
    for session in sessions(home):
        run = fence.run_of(session)
        if run is None or session.status not in crash_loop.OPEN or not fence.is_free(home, run):
            continue
        since = (session.last_progress_time or session.start_time)[:16]
        died = "its process is gone" if session.status == "running" and not is_alive(session) else "it was interrupted"
        found = f"run {run}: {died}; last progress {since} UTC"
        yield Finding(
            "interrupted", run, "note", found, f"`so8t up` goes on with it by itself, `so8t resume {run}` now"
        )


def _leftovers(home: Path) -> Iterator[Finding]:
    found = leftovers.find(home)
    size_bytes = sum(size for _, size in found)
    if size_bytes >= WORTH_REMOVING_BYTES:
        told = f"{len(found)} temporary files of killed writers hold {size_bytes / machine.GIB:.2f} GiB"
        yield Finding("leftovers", "temporary files", "note", told, "`so8t monitor recover` removes them")
