"""`so8t notify test`: sends a notice through every channel, quiet hours or not, and says what became of it."""

import argparse
import json
import sys
from dataclasses import asdict

from so8t.cli import add_config_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("action", choices=("test",), help="a notice through every channel, quiet hours or not")
    parser.add_argument("--json", action="store_true", help="one JSON list")
    add_config_arguments(parser)


def main(options: argparse.Namespace) -> int:
    """Exit 1 where a channel failed."""
    from so8t.config import load_config
    from so8t.notify import URLS_VARIABLE, notify

    config = load_config(options.config, options.overrides, options.home)
    settings = config.notify.model_copy(update={"quiet_hours": "", "on": ("completed",)})
    outcomes = notify(config.home(), "completed", "so8t: a test", "Notices arrive here.", settings)
    if options.json:
        sys.stdout.write(json.dumps([asdict(outcome) for outcome in outcomes]) + "\n")
    else:
        for outcome in outcomes:
            sys.stdout.write(f"{outcome.channel}: {outcome.problem or outcome.how}\n")
        if not settings.sound:
            sys.stdout.write("sound: off (notify.sound)\n")
        if not any(outcome.channel.startswith("address") for outcome in outcomes):
            sys.stdout.write(f"remote: {URLS_VARIABLE} names no address\n")
    return 1 if any(outcome.problem for outcome in outcomes) else 0
