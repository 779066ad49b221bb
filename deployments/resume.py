"""`so8t resume [RUN]`: look for interrupted runs now, or go on with the one that is named."""

import argparse
import os
import sys
import time

from so8t.cli import add_config_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("run", nargs="?", help="id (or its beginning) or name of a run that waits for your word")
    add_config_arguments(parser)


def main(options: argparse.Namespace) -> int:
    """One line a run without a process; exit 1 where the named one did not go on."""
    from deployments.server import environment, running_port
    from so8t.config import load_config
    from so8t.errors import InputError

    config = load_config(options.config, options.overrides, options.home)
    home = config.home()
    port = running_port(home / "prefect" / "server.json")
    if not port:
        raise InputError(
            f"no server runs for {home}",
            "a running `so8t up`",
            "start `so8t up`: it goes on with interrupted runs by itself, then takes this command",
        )
    os.environ.update(environment(home, port, config.machine.workers))
    from prefect.client.orchestration import get_client

    from flows.resume import find_run, reconcile, settles_in_s

    asked = []
    if options.run:
        with get_client(sync_client=True) as client:
            found = find_run(client, options.run)
            wait_s = settles_in_s(client, found) if found else 0.0
        if found is None:
            raise InputError(f"no interrupted run {options.run!r}", "the id or name of one", "`so8t resume` lists them")
        asked = [str(found)]
        if wait_s:
            sys.stderr.write(f"waiting {wait_s:.0f} s: the worker may say once more that it crashed\n")
            time.sleep(wait_s)
    verdicts = reconcile(home, "", at_boot=False, asked=asked)
    for verdict in verdicts:
        sys.stdout.write(f"{verdict.action:<10} {verdict.name:<24} {verdict.run_id}  {verdict.why}\n")
    if not verdicts:
        sys.stdout.write("nothing to resume: every run is finished, waits for its time, or has a living process\n")
    going = {verdict.run_id for verdict in verdicts if verdict.action == "resumed"}
    return 0 if set(asked) <= going else 1
