"""`so8t plan`: parameters, memory, disk and time of a config, from shapes alone; reads only."""

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from so8t.cli import add_config_arguments

if TYPE_CHECKING:
    from rich.table import Table

GIB = 1 << 30
HOUR_S = 3600.0
# Of a file or a pipe, where rich would take 80.
WIDTH = 120


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--json", action="store_true", help="one JSON object; sizes in bytes, times in seconds")
    parser.add_argument("--prompt-tokens", type=int, default=0, metavar="N", help="assumed length of a prompt, image included (default: 256, for the demo 32, and one image)")  # fmt: skip
    parser.add_argument("--card", default="", metavar="NAME", help="estimate for this GPU, such as 'RTX 3060'")
    parser.add_argument("--flow", choices=("pipeline", "four_class"), default="pipeline", help="whose needs are told (default: pipeline, all seven steps)")  # fmt: skip
    parser.add_argument("--pin", action="store_true", help="ask the Hub for the newest revision of the base and print the setting")  # fmt: skip
    add_config_arguments(parser)


def main(options: argparse.Namespace) -> int:
    """Exit 0 whether or not it fits: warnings say what does not."""
    from so8t.artifacts import Store
    from so8t.config import load_config
    from so8t.plan.report import make_plan

    config = load_config(options.config, options.overrides, options.home)
    if options.pin:
        from so8t.plan.pin import pins

        sys.stdout.write("".join(f"{line}\n" for line in pins(config)))
        return 0
    told = make_plan(config, Store(config.home()), options.prompt_tokens, options.card, options.flow)
    if options.json:
        sys.stdout.write(json.dumps(told, ensure_ascii=False) + "\n")
    else:
        show(told)
    return 0


def show(told: dict[str, Any]) -> None:
    """Tables for people."""
    from rich.console import Console

    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else WIDTH)
    for table in (_parameters(told), *_memory(told), _disk(told), *([_time(told)] if told["seconds"] else [])):
        console.print(table)
    for warning in told["warnings"]:
        console.print(f"warning: {warning}", style="yellow", highlight=False, soft_wrap=True)


def _table(title: str, *columns: str) -> "Table":
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    table.add_column(columns[0])
    for column in columns[1:]:
        table.add_column(column, justify="right")
    return table


def _parameters(told: dict[str, Any]) -> "Table":
    table = _table(f"Parameters ({told['geometry']['origin']})", "part", "count")
    for name, number in told["parameters"].items():
        if name != "checkpoint_bytes":
            table.add_row(name, f"{number:,}")
    return table


def _memory(told: dict[str, Any]) -> "list[Table]":
    tables = []
    for place, where in (("device", told["assumed"]["on"]), ("host", "main memory")):
        phases = told["memory"]
        names = list(dict.fromkeys(part for phase in phases.values() for part in phase[place]))
        table = _table(f"Memory of training, {where}, GiB at the peak of", "part", *phases)
        for part in names:
            table.add_row(part, *(_gib(phase[place].get(part)) for phase in phases.values()))
        table.add_row("sum", *(_gib(phase[f"{place}_bytes"]) for phase in phases.values()), style="bold")
        tables.append(table)
    return tables


def _disk(told: dict[str, Any]) -> "Table":
    table = _table("Disk, GiB (without the collected data)", "step", "size")
    for name, size in told["disk"].items():
        table.add_row(name, _gib(size), style="bold" if name == "peak" else "")
    return table


def _time(told: dict[str, Any]) -> "Table":
    assumed = told["assumed"]
    peak = f"{assumed['flops'] / 1e12:g} TFLOP/s, {assumed['bytes_per_s'] / 1e9:g} GB/s"
    table = _table(
        f"Time, estimated for {assumed['card']} ({peak}), prompts of {assumed['prompt_tokens']} tokens", "step", "fastest", "slowest"
    )  # fmt: skip
    for name, span in told["seconds"].items():
        table.add_row(name, *(_time_text(seconds) for seconds in span))
    return table


def _gib(size: int | None) -> str:
    return "" if size is None else f"{size / GIB:.2f}"


def _time_text(seconds: float) -> str:
    return (
        f"{seconds / HOUR_S:.1f} h"
        if seconds >= HOUR_S
        else f"{seconds / 60:.1f} min"
        if seconds >= 60
        else f"{seconds:.1f} s"
    )
