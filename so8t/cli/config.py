"""`so8t config show|schema|explain [KEY]|check FILE`."""

import argparse
import json
import sys
from pathlib import Path

from so8t.cli import add_config_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "action",
        choices=("show", "explain", "schema", "check"),
        help="show: with all defaults; explain: what each key takes and does; schema: JSON Schema; check: validate FILE",
    )
    parser.add_argument(
        "file", nargs="?", metavar="FILE|KEY", help="the config to check or show; a key or section to explain"
    )
    add_config_arguments(parser)


def main(options: argparse.Namespace) -> int:
    """Print the config in force, its schema, or that a file is valid."""
    import yaml

    from so8t.config import Config, load_config

    if options.action == "schema":
        sys.stdout.write(json.dumps(Config.model_json_schema(), ensure_ascii=False, indent=2) + "\n")
        return 0
    if options.action == "explain":
        return _explain(options.file or "")
    path = Path(options.file) if options.file else options.config
    config = load_config(path, options.overrides, options.home)
    if options.action == "check":
        sys.stdout.write(f"{path}: valid\n")
    else:
        sys.stdout.write(yaml.safe_dump(config.model_dump(mode="json"), allow_unicode=True, sort_keys=False))
    return 0


def _explain(name: str) -> int:
    import difflib

    from so8t.errors import InputError
    from so8t.explain import names, parts, plain

    chosen = parts(name)
    if not chosen:
        near = difflib.get_close_matches(name, names(), n=3, cutoff=0.5)
        raise InputError(f"no config key {name!r}", f"one such as {', '.join(near or ['train.ppo', 'machine.home'])}")
    sys.stdout.write(plain(chosen))
    return 0
