"""The `so8t` command, as far as it needs no Prefect; `deployments.command` adds the rest.

Modules are imported only when their command runs, so that `--help` answers in a blink.
"""

import argparse
import importlib
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from so8t.errors import Interrupted, So8tError

PROJECT = Path(__file__).resolve().parents[2]
DEFAULT_CONFIG = PROJECT / "configs" / "demo.yaml"


@dataclass(frozen=True)
class Command:
    """A subcommand; `module` offers `add_arguments(parser)` and `main(options) -> int`."""

    name: str
    help: str
    module: str


COMMANDS = (
    Command("step", "run one step here and now", "so8t.cli.step"),
    Command("status", "what is done, what is missing (changes nothing)", "so8t.cli.status"),
    Command("dashboard", "a training's numbers live in TensorBoard or trackio, on this machine", "so8t.cli.dashboard"),
    Command("verify", "check every byte of the artifacts against their manifests", "so8t.cli.verify"),
    Command("config", "show, explain or check a config", "so8t.cli.config"),
    Command("plan", "parameters, memory, disk and time of a config, without weights", "so8t.cli.plan"),
    Command("adapter", "adapters to Hugging Face's PEFT and from there", "so8t.cli.adapter"),
    Command("checkpoint", "list or verify training checkpoints", "so8t.cli.checkpoint"),
    Command("notify", "try out how you are told of what needs you", "so8t.cli.notify"),
    Command("tag", "names for artifacts that cleanup must keep", "so8t.cli.tag"),
    Command("serve", "/think and an OpenAI-compatible endpoint over a GGUF, on this machine", "so8t.cli.serve"),
)


def main(argv: Sequence[str] | None = None, commands: tuple[Command, ...] = COMMANDS) -> int:
    """Run a command; 0 completed, 1 failed, 2 bad usage or config, 130 interrupted."""
    for stream in (sys.stdout, sys.stderr):
        # A Japanese Windows console is cp932 and would raise on the first other character.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="replace")
    arguments = list(sys.argv[1:] if argv is None else argv)
    options = _parse(arguments, commands)
    module = importlib.import_module(next(c.module for c in commands if c.name == options.command))
    try:
        return int(module.main(options))
    except So8tError as error:
        sys.stderr.write(f"so8t: {error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("so8t: interrupted; the same command goes on from here\n")
        return 130


def _parse(arguments: list[str], commands: tuple[Command, ...]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="so8t",
        description="Make, prove and publish a safety-aware multimodal thinking model; power may fail at any time.",
        epilog="`so8t run` does everything; `so8t COMMAND --help` explains one command.",
    )
    parser.add_argument("--version", action="version", version=_version())
    choose = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    wanted = next((argument for argument in arguments if not argument.startswith("-")), None)
    for command in commands:
        sub = choose.add_parser(command.name, help=command.help, description=command.help)
        if command.name == wanted:
            importlib.import_module(command.module).add_arguments(sub)
    return parser.parse_args(arguments)


def _version() -> str:
    from so8t import __version__

    return __version__


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that most commands share."""
    parser.add_argument(
        "--config", type=Path, default=DEFAULT_CONFIG, metavar="FILE", help="default: configs/demo.yaml"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="a.b=c", dest="overrides", help="override one key"
    )
    parser.add_argument(
        "--profile", action="append", metavar="NAME", dest="overrides", type=lambda name: f"profile={name}",
        help="settings under `profiles` of the config, such as 12gb",
    )  # fmt: skip
    parser.add_argument("--home", type=Path, metavar="DIR", help="default: $SO8T_HOME, else ~/.so8t")


def raise_on_signals() -> None:
    """Turn SIGINT, SIGTERM and SIGBREAK into an exception, so that files are closed and children stopped."""
    from so8t import child, console

    def stop(number: int, frame: object) -> NoReturn:
        child.stopping.set()
        # SIGBREAK, of Windows alone, asks for the same as SIGTERM.
        known = signal.SIGINT if number == signal.SIGINT else signal.SIGTERM
        said = f"stopped by {signal.Signals(number).name}; the same command goes on from here"
        raise Interrupted(said, exit_code=128 + known)

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    if hasattr(signal, "SIGBREAK"):
        signal.signal(signal.SIGBREAK, stop)
    console.outlast_closing()
