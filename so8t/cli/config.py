"""`so8t config show|schema|check FILE`."""

import argparse
import json
import sys
from pathlib import Path

from so8t.cli import add_config_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "action",
        choices=("show", "schema", "check"),
        help="show: with all defaults; schema: JSON Schema; check: validate FILE",
    )
    parser.add_argument("file", nargs="?", type=Path, help="the config to check or show")
    add_config_arguments(parser)


def main(options: argparse.Namespace) -> int:
    """Print the config in force, its schema, or that a file is valid."""
    import yaml

    from so8t.config import Config, load_config

    if options.action == "schema":
        sys.stdout.write(json.dumps(Config.model_json_schema(), ensure_ascii=False, indent=2) + "\n")
        return 0
    path = options.file or options.config
    config = load_config(path, options.overrides, options.home)
    if options.action == "check":
        sys.stdout.write(f"{path}: valid\n")
    else:
        sys.stdout.write(yaml.safe_dump(config.model_dump(mode="json"), allow_unicode=True, sort_keys=False))
    return 0
