"""`so8t run`: the pipeline in this process, against the local server (started or attached to)."""

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from so8t.cli import add_config_arguments, raise_on_signals

FLUSH_TIMEOUT_S = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--json", action="store_true", help="last line: one JSON object with state, steps and artifacts"
    )
    add_config_arguments(parser)


def main(options: argparse.Namespace) -> int:
    """Run, show progress, sum up."""
    from deployments.server import Server
    from deployments.terminal import open_display
    from so8t import durable
    from so8t.config import load_config
    from so8t.errors import Interrupted

    raise_on_signals()
    config = load_config(options.config, options.overrides, options.home)
    home = config.home()
    config = config.model_copy(update={"machine": config.machine.model_copy(update={"home": home})})
    logs = _new_attempt(home)
    os.environ["SO8T_LOGS"] = str(logs)
    started = time.monotonic()
    summary: dict[str, Any] = {"state": "failed", "steps": {}, "artifacts": {}}
    try:
        with open_display(config.machine.progress_interval_s) as display, Server(config, logs / "server.log") as server:
            os.environ.update(server.environment())
            # The terminal shows our progress; Prefect's own lines stay in the UI.
            os.environ["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "CRITICAL"
            display.say(f"home {home}   UI {server.url} {'(while this runs)' if server.started else '(attached)'}")
            made = _run_flow(config, display.sink)
            summary = {"state": "completed", **summarise(config, made)}
    except BaseException as error:
        interrupted = isinstance(error, Interrupted | KeyboardInterrupt)
        summary |= {"state": "interrupted" if interrupted else "failed", "error": str(error)}
        _log_error(logs, error)
        raise
    finally:
        summary["seconds"] = round(time.monotonic() - started, 3)
        durable.write_json(logs / "summary.json", summary)
        if options.json:
            sys.stdout.write(json.dumps(summary, ensure_ascii=False) + "\n")
    if not options.json:
        _print(summary)
    return 0


def _run_flow(config: Any, sink: Any) -> list[dict[str, Any]]:
    import tasks.steps
    from flows.pipeline import so8t_pipeline

    tasks.steps.terminal[:] = [sink]
    try:
        made: list[dict[str, Any]] = so8t_pipeline(config)
    finally:
        _flush()
    return made


def _flush() -> None:
    """Task states and log lines are sent in the background: send them before the server may stop."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogHandler

    APILogHandler().flush()
    EventsWorker.drain_all(timeout=FLUSH_TIMEOUT_S)


def summarise(config: Any, made: list[dict[str, Any]]) -> dict[str, Any]:
    """The `--json` object's steps and artifacts, read from the manifests on disk."""
    from so8t.artifacts import Store, load

    store = Store(config.home())
    steps: dict[str, Any] = {}
    artifacts: dict[str, str] = {}
    for reference in made:
        name = f"{reference['step']}[{reference['part']}]" if reference["part"] else reference["step"]
        folder = store.path(reference["step"], reference["key"])
        artifact = load(folder)
        steps[name] = {
            "key": artifact.manifest.key,
            "content": artifact.content,
            "cached": reference["cached"],
            "seconds": round(artifact.seconds, 3),
            "facts": artifact.manifest.facts,
        }
        artifacts[name] = str(folder)
    return {"steps": steps, "artifacts": artifacts}


def _new_attempt(home: Path) -> Path:
    from so8t.durable import explain_full_disk

    number = 1
    while True:
        folder = home / "logs" / f"attempt_{number}"
        try:
            with explain_full_disk(folder):
                folder.mkdir(parents=True)
        except FileExistsError:
            number += 1
        else:
            return folder


def _log_error(logs: Path, error: BaseException) -> None:
    line = {"time": time.time(), "type": type(error).__name__, "message": str(error)}
    with (logs / "errors.jsonl").open("a", encoding="utf-8", newline="\n") as file:
        file.write(json.dumps(line, ensure_ascii=False) + "\n")


def _print(summary: dict[str, Any]) -> None:
    sys.stdout.write(f"\ncompleted in {summary['seconds']:.1f} s\n")
    for name, step in summary["steps"].items():
        took = "cached" if step["cached"] else f"{step['seconds']:.1f} s"
        sys.stdout.write(f"  {name:<28} {took:>9}  {step['content'][:12]}\n")
    for name in ("benchmark", "upload"):
        if name in summary["artifacts"]:
            sys.stdout.write(f"{name}: {summary['artifacts'][name]}\n")
