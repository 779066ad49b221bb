"""`so8t monitor scan|watch|recover`: what hangs, fails or runs full, and what may be done about it.

`so8t up` does the same by itself, by the schedule of the deployment so8t-monitor/so8t.
"""

import argparse
import json
import os
import sys
import time
from typing import TYPE_CHECKING, Any

from so8t.cli import add_config_arguments, raise_on_signals

if TYPE_CHECKING:
    from so8t.config import Config
    from so8t.monitor.finding import Action
    from so8t.monitor.look import Report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "action", choices=("scan", "watch", "recover"),
        help="scan: look once; watch: look every monitor.interval_s, until Ctrl+C; recover: look, then do what may be done",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="scan, recover: one JSON object")
    parser.add_argument("--dry-run", action="store_true", help="recover: only say what would be done")
    add_config_arguments(parser)


def main(options: argparse.Namespace) -> int:
    """Exit 1 where something wants an eye, 0 where nothing does."""
    from so8t.config import load_config

    raise_on_signals()
    config = load_config(options.config, options.overrides, options.home)
    if options.action == "watch":
        return _watch(config)
    report = _look(config)
    if options.action == "recover":
        _recover(config, report, dry_run=options.dry_run)
    if options.json:
        sys.stdout.write(json.dumps(as_json(report), ensure_ascii=False) + "\n")
    else:
        _print(report)
    return 1 if report.bad else 0


def _look(config: "Config") -> "Report":
    from so8t.errors import InputError
    from so8t.monitor.look import look

    home = config.home()
    if not home.is_dir():
        raise InputError(f"there is no {home}", "the home of a run", "choose another with --home DIR or SO8T_HOME")
    return look(home, config.monitor)


def _recover(config: "Config", report: "Report", *, dry_run: bool) -> None:
    """What the domain may do by itself, then the runs without a process, if `so8t up` is there to take them."""
    from so8t.monitor.finding import Action
    from so8t.monitor.recover import WOULD, recover

    made = recover(config.home(), report, config.monitor, dry_run=dry_run)
    services, waiting = report.services, [one for one in report.findings if one.kind == "interrupted"]
    if not waiting:
        return
    if services.up is None or not services.server_port:
        why = "nothing: no `so8t up` runs for this home, and only it takes runs"
        made += [Action(finding.kind, finding.subject, "nothing", why) for finding in waiting]
    elif dry_run:
        made += [Action(one.kind, one.subject, "schedule it again, as resume: allows", WOULD) for one in waiting]
    else:
        made += _resume(config, services.server_port, services.up.supervisor)


def _resume(config: "Config", port: int, supervisor: str) -> "list[Action]":
    """By the rules of `so8t up` and in its name, so that what an attempt costs is counted as ever."""
    from deployments.server import environment
    from so8t.monitor.finding import Action

    os.environ.update(environment(config.home(), port, config.machine.workers))
    from flows.resume import reconcile

    verdicts = reconcile(config.home(), supervisor, at_boot=False)
    return [Action("interrupted", verdict.run_id, verdict.action, verdict.why) for verdict in verdicts]


def _watch(config: "Config") -> int:
    """A line for each thing that begins or is over; the first look shows all that stands."""
    first = True
    while True:
        report = _look(config)
        for finding in report.findings if first else report.new:
            _say(report.at, f"{finding.severity:<5} {finding.kind:<12} {finding.found}")
        for name in [] if first else report.over:
            _say(report.at, f"over  {name}")
        if first:
            _say(report.at, f"watching {config.home()}, every {config.monitor.interval_s:g} s; Ctrl+C ends it")
        first = False
        time.sleep(config.monitor.interval_s)


def _say(at: str, line: str) -> None:
    sys.stdout.write(f"{at[11:19]} UTC  {line}\n")
    sys.stdout.flush()


def as_json(report: "Report") -> dict[str, Any]:
    """The report for programs."""
    new = {finding.fingerprint for finding in report.new}
    return {
        "at": report.at,
        "findings": [{**vars(finding), "new": finding.fingerprint in new} for finding in report.findings],
        "over": report.over,
        "actions": [vars(action) for action in report.actions],
        "processes": [
            {"run": unit.run, "step": unit.step, "pid": unit.pid, "hangs": unit in report.hanging}
            for unit in report.units
        ],
        "readings": report.readings,
        "services": {
            "up": report.services.up is not None,
            "server_port": report.services.server_port,
            "workers": report.services.workers,
        },
    }


def _print(report: "Report") -> None:
    from so8t.monitor.page import levels

    for finding in report.findings:
        sys.stdout.write(f"{finding.severity:<5} {finding.kind:<12} {finding.found}\n")
        if finding.do:
            sys.stdout.write(f"{'':<18} do: {finding.do}\n")
    for action in report.actions:
        sys.stdout.write(f"done  {action.kind:<12} {action.subject}: {action.did}; {action.outcome}\n")
    if not report.findings:
        sys.stdout.write("nothing to tell\n")
    sys.stdout.write(f"{levels(report)}\n")
