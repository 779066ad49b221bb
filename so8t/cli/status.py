"""`so8t status`: what is done, running, damaged or missing; reads only. Without --config it tells of the newest run's."""

import argparse
import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from so8t.cli import DEFAULT_CONFIG, add_config_arguments
from so8t.errors import InputError

if TYPE_CHECKING:
    from so8t.config import Config

RECOVERIES_SHOWN = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument(
        "--watch", action="store_true", help="again and again, until Ctrl+C or the end of the run that is seen to run"
    )
    parser.add_argument(
        "--every", type=float, default=5.0, metavar="SECONDS", help="with --watch: between two looks (default 5)"
    )
    add_config_arguments(parser)


def main(options: argparse.Namespace) -> int:
    """Print one line a step and part."""
    from so8t import recoveries
    from so8t.artifacts import Store
    from so8t.config import load_config
    from so8t.overview import asked
    from so8t.overview.left import left_of
    from so8t.overview.live import live
    from so8t.overview.survey import open_runs, survey

    config = load_config(options.config, options.overrides, options.home)
    if options.config == DEFAULT_CONFIG and not options.overrides:
        config = asked.newest(config.home()) or config
    if options.watch:
        return _watch(options, config)
    store = Store(config.home())
    rows, runs = survey(config, store), open_runs(store)
    works = any(run["state"] == "running" for run in runs)
    left = left_of(config, store, rows, live(store.home)) if works else None
    done = recoveries.read(store.home)
    overrides = recoveries.overrides(store.home)
    if options.json:
        listed = [recovery.model_dump() for recovery in done]
        told = {
            "home": str(store.home), "steps": rows, "runs": runs, "left": asdict(left) if left else None,
            "recoveries": listed, "overrides": overrides,
        }  # fmt: skip
        sys.stdout.write(json.dumps(told, ensure_ascii=False) + "\n")
        return 0
    sys.stdout.write(f"home {store.home}\n")
    for name, row in rows.items():
        detail = f"content {row['content'][:12]}  {row['seconds']:.1f} s" if row["state"] == "done" else row["detail"]
        sys.stdout.write(f"  {name:<28} {row['state']:<8} {detail}\n")
    for run in runs:
        sys.stdout.write(
            f"  run {run['run']}  {run['state']}, attempt {run['attempts']}, last progress {run['last_progress'][:19]} UTC"
            f"  {run['doing']}\n"
        )
    if left is not None:
        sys.stdout.write(f"  {left}\n")
    for recovery in done[-RECOVERIES_SHOWN:]:
        sys.stdout.write(
            f"  recovery {recovery.at[:19]} UTC  {recovery.step}  {recovery.fault}: {recovery.policy}"
            f"  {recovery.detail}  -> {recovery.outcome}\n"
        )
    for session, changed in overrides.items():
        listed_changes = ", ".join(f"{name} = {value:g}" for name, value in changed.items())
        sys.stdout.write(f"  override {session}  {listed_changes}\n")
    damaged = sorted(path.name for path in store.root.glob("*/*.damaged-*"))
    if damaged:
        sys.stdout.write(f"  set aside as damaged: {', '.join(damaged)}\n")
    return 0


def _watch(options: argparse.Namespace, config: "Config") -> int:
    from so8t.cli.watch import watch

    if options.json or options.every <= 0:
        raise InputError("--watch with --json or without a pause", "--watch --every SECONDS above 0, or --json alone")
    return watch(config, options.every)
