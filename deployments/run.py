"""`so8t run`: the pipeline in this process, against the local server (started or attached to)."""

import argparse
import importlib
import json
import os
import sys
from typing import TYPE_CHECKING, Any

from so8t.cli import add_config_arguments, raise_on_signals

if TYPE_CHECKING:
    from so8t.config import Config
    from so8t.progress import Sink

FLUSH_TIMEOUT_S = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--json", action="store_true", help="last line: one JSON object with state, steps and artifacts"
    )
    parser.add_argument(
        "--flow",
        choices=("pipeline", "four_class"),
        default="pipeline",
        help="pipeline: all seven steps (default); four_class: the four-class classifier alone",
    )
    add_config_arguments(parser)


def main(options: argparse.Namespace) -> int:
    """Run, show progress, sum up."""
    from deployments.autostart import retire
    from deployments.server import Server
    from deployments.terminal import open_display
    from so8t import attempt, durable
    from so8t.config import load_config
    from so8t.faults import without_password

    raise_on_signals()
    config = load_config(options.config, options.overrides, options.home)
    home = config.home()
    config = config.model_copy(update={"machine": config.machine.model_copy(update={"home": home})})
    logs = attempt.begin(home)
    summary: dict[str, Any] = {"state": "failed", "steps": {}, "artifacts": {}}
    try:
        with open_display(config.machine.progress_interval_s) as display, Server(config, logs / "server.log") as server:
            os.environ.update(server.environment())
            # The terminal shows our progress; Prefect's own lines stay in the UI.
            os.environ["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "CRITICAL"
            display.say(f"home {home}   UI {server.url} {'(while this runs)' if server.started else '(attached)'}")
            if config.machine.trackers:
                display.say(f"numbers, once it trains: so8t dashboard --config {options.config} --home {home}")
            made = _run_flow(options.flow, config, display.sink)
        # The file's keys are sorted; here the steps come in their order.
        summary = durable.read_json(logs / "summary.json") | attempt.summarise(home, made)
    except BaseException as error:
        with durable.replacing_no_error(logs):
            if (logs / "summary.json").exists():
                summary = durable.read_json(logs / "summary.json")
            else:
                summary |= {"error": without_password(str(error))}
                attempt.log_error(logs, error)
                durable.write_json(logs / "summary.json", summary)
        raise
    finally:
        if options.json:
            sys.stdout.write(json.dumps(summary, ensure_ascii=False) + "\n")
    for line in retire(config, ""):
        sys.stderr.write(f"autostart: {line}\n")
    if not options.json:
        _print(summary)
    return 0


def _run_flow(chosen: str, config: "Config", sink: "Sink") -> list[dict[str, Any]]:
    """Run the flow here, as a run of its deployment: `so8t up` can go on with it after a power cut."""
    from prefect.client.orchestration import get_client
    from prefect.flow_engine import run_flow
    from prefect.states import Pending

    import tasks.steps
    from deployments.register import register
    from flows import FLOWS
    from so8t import fence

    tasks.steps.terminal[:] = [sink]
    # Without the home: whoever goes on with the run does so in the home of its server, wherever that was moved.
    parameters = {"config": config.model_dump(mode="json", exclude={"machine": {"home"}})}
    flow = importlib.import_module(f"flows.{chosen}").__dict__[f"so8t_{chosen}"]
    with get_client(sync_client=True) as client:
        ids = register(client, {name: parameters for name, _ in FLOWS.values()}, keep=True)
        flow_run = client.create_flow_run_from_deployment(
            ids["/".join(FLOWS[chosen])], parameters=parameters, state=Pending(message="so8t run")
        )
    fence.hold(config.home(), str(flow_run.id))
    try:
        made: list[dict[str, Any]] = run_flow(flow, flow_run=flow_run, parameters={"config": config})
    finally:
        _flush()
    return made


def _flush() -> None:
    """Task states and log lines are sent in the background: send them before the server may stop."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogHandler

    APILogHandler().flush()
    EventsWorker.drain_all(timeout=FLUSH_TIMEOUT_S)


def _print(summary: dict[str, Any]) -> None:
    sys.stdout.write(f"\ncompleted in {summary['seconds']:.1f} s\n")
    for name, step in summary["steps"].items():
        took = "cached" if step["cached"] else f"{step['seconds']:.1f} s"
        sys.stdout.write(f"  {name:<28} {took:>9}  {step['content'][:12]}\n")
    for name in ("benchmark", "upload"):
        if name in summary["artifacts"]:
            sys.stdout.write(f"{name}: {summary['artifacts'][name]}\n")
