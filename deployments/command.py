"""The whole `so8t` command: the domain's subcommands and those that need Prefect."""

import sys

from so8t import cli
from so8t.cli import Command

COMMANDS = (
    Command("run", "run all seven steps here and now", "deployments.run"),
    Command("up", "server, work pool, deployments and worker in the foreground", "deployments.up"),
    Command(
        "autostart", "register `so8t up` for the next logon; say what is registered", "deployments.autostart.command"
    ),
    Command("resume", "go on with interrupted runs now, or with one that waits for your word", "deployments.resume"),
    Command("monitor", "look for what hangs, fails or runs full; do what may be done", "deployments.monitor"),
    Command("doctor", "check this machine and say what to do", "deployments.doctor"),
    *cli.COMMANDS,
)


def main() -> int:
    """Entry point of `so8t`."""
    return cli.main(commands=COMMANDS)


if __name__ == "__main__":
    sys.exit(main())
