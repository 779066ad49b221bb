"""`so8t status`: what is done, running, damaged or missing; reads only."""

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from so8t.cli import add_config_arguments

if TYPE_CHECKING:
    from so8t.artifacts import Store
    from so8t.config import Config
    from so8t.step import Ref

RECOVERIES_SHOWN = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--json", action="store_true", help="one JSON object")
    add_config_arguments(parser)


def main(options: argparse.Namespace) -> int:
    """Print one line a step and part."""
    from so8t import recoveries
    from so8t.artifacts import Store
    from so8t.config import load_config

    config = load_config(options.config, options.overrides, options.home)
    store = Store(config.home())
    rows, runs = survey(config, store), open_runs(store)
    done = recoveries.read(store.home)
    overrides = recoveries.overrides(store.home)
    if options.json:
        listed = [recovery.model_dump() for recovery in done]
        told = {"home": str(store.home), "steps": rows, "runs": runs, "recoveries": listed, "overrides": overrides}
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


def open_runs(store: "Store") -> list[dict[str, Any]]:
    """Runs that work or wait to be gone on with, the newest progress first."""
    from so8t.session import is_alive, sessions

    return [
        {
            "run": session.session_id.removeprefix("run-"),
            "state": "running" if is_alive(session) else "interrupted",
            "attempts": session.attempts,
            "last_progress": session.last_progress_time or session.start_time,
            "doing": session.phase,
        }
        for session in sessions(store.home)
        if session.kind == "run" and session.status in ("running", "interrupted")
    ]


def survey(config: "Config", store: "Store") -> dict[str, dict[str, Any]]:
    """State of every step and part: done, partial, ready or waiting.

    A step that the pipeline does not ask for (the four-class flow's) is told of once it has been begun.
    """
    from so8t.errors import InputError
    from so8t.step import NotReady, Ref, parts_of, plan, steps

    rows: dict[str, dict[str, Any]] = {}
    asked = needed(config)
    for step in steps().values():
        try:
            parts = parts_of(step, config, store, read_only=True)
        except InputError:  # of a counted step nothing can be told yet
            parts = []
        for part in parts:
            ref = Ref(step.name, part)
            try:
                planned = plan(ref, config, store, read_only=True)
            except NotReady as error:
                if ref in asked:
                    rows[str(ref)] = {"state": "waiting", "detail": f"for {error.missing}"}
                continue
            except InputError as error:
                # A file of the user's own: the other steps can be told of all the same.
                rows[str(ref)] = {"state": "waiting", "detail": f"for a mended config: {error.found}"}
                continue
            found = store.peek(step.name, planned.key)
            row: dict[str, Any] = {"key": planned.key}
            if found is not None:
                row |= {
                    "state": "done",
                    "content": found.content,
                    "seconds": found.seconds,
                    "facts": found.manifest.facts,
                }
            elif (store.root / step.name / f"{planned.key}.partial").exists():
                row |= {"state": "partial", "detail": "begun; the next run goes on from there"}
            elif ref in asked or step.counted:
                row |= {"state": "ready", "detail": "not begun"}
            else:
                continue
            rows[str(ref)] = row
    return rows


def needed(config: "Config") -> "set[Ref]":
    """The last step's ref and all that it needs, directly or not."""
    from so8t.step import Ref, steps

    found: set[Ref] = set()
    left = [Ref("cleanup")]
    while left:
        ref = left.pop()
        if ref not in found:
            found.add(ref)
            left += steps()[ref.step].needs(config, ref.part).values()
    return found
