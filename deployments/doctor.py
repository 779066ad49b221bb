"""`so8t doctor`: checks this machine for a config and says what to do. "ok" is said only of what was checked."""

import argparse
import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from so8t.cli import add_config_arguments

if TYPE_CHECKING:
    from so8t.config import Config
    from so8t.preflight.finding import Finding

WIDTH = 14


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--json", action="store_true", help="one JSON object: findings, and what a run would take over")
    parser.add_argument(
        "--flow",
        choices=("pipeline", "four_class"),
        default="pipeline",
        help="which flow's needs are looked at (default: pipeline, all seven steps)",
    )
    add_config_arguments(parser)


def main(options: argparse.Namespace) -> int:
    """Exit 1 where something would stop a run, else 0, warnings included."""
    from so8t.config import load_config
    from so8t.preflight.look import LASTS, look, other_profiles

    config = load_config(options.config, options.overrides, options.home)
    report = look(config, LASTS[options.flow])
    findings = [*report.findings, *around(config)]
    if not report.fits:
        findings.append(other_profiles(options.config, options.overrides, options.home, LASTS[options.flow]))
    if options.json:
        told = {"findings": [asdict(finding) for finding in findings], "overrides": report.overrides}
        sys.stdout.write(json.dumps(told, ensure_ascii=False) + "\n")
    else:
        _show(findings)
    return 1 if any(finding.state == "fail" for finding in findings) else 0


def around(config: "Config") -> "list[Finding]":
    """What stands around a run: the server, what starts it at logon, and whether anybody logs on."""
    from deployments.autostart.logon import check_logon
    from deployments.hardened import check_server

    return [check_server(config), _autostart(config), check_logon()]


def _autostart(config: "Config") -> "Finding":
    from deployments.autostart import inspect
    from so8t.errors import So8tError
    from so8t.preflight.finding import Finding

    try:
        found, faults = inspect(config.home())
    except So8tError as error:
        return Finding("autostart", "not looked at", str(error).splitlines()[0])
    wanted = "an entry that starts `so8t up` at logon"
    if found is None:
        return Finding(
            "autostart",
            "warn",
            "not registered: nothing goes on by itself after a power cut",
            wanted,
            "so8t autostart install",
        )
    if faults:
        return Finding("autostart", "warn", f"{found.name}: {'; '.join(faults)}", wanted, "so8t autostart install")
    return Finding("autostart", "ok", f"{found.name} starts {found.started.config} at logon")


def _show(findings: "list[Finding]") -> None:
    from so8t.preflight.finding import tally

    for finding in findings:
        sys.stdout.write(f"{finding.state:<{WIDTH}} {finding.check:<10} {finding.found}\n")
        for word, text in (("wanted", finding.wanted), ("do", finding.do)):
            if text and finding.state != "ok":
                sys.stdout.write(f"{'':<{WIDTH}} {'':<10}   {word + ':':<7} {text}\n")
    sys.stdout.write(tally(findings) + "\n")
