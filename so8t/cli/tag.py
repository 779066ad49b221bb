"""`so8t tag add|list|remove`: names for artifacts that cleanup must keep, with everything that they were made from."""

import argparse
import json
import sys

from so8t.cli import add_config_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("action", choices=("add", "list", "remove"), help="add or remove a tag; list them")
    parser.add_argument("name", nargs="?", default="", help="the tag (add, remove)")
    parser.add_argument(
        "artifacts",
        nargs="*",
        help="with add: STEP/KEY, or the key's beginning; default: all of the newest completed run",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object: artifacts by tag")
    add_config_arguments(parser)


def main(options: argparse.Namespace) -> int:
    """Change or show the tags."""
    from so8t import tags
    from so8t.config import load_config

    home = load_config(options.config, options.overrides, options.home).home()
    if options.action == "add":
        tags.add(home, options.name, options.artifacts)
    elif options.action == "remove":
        tags.remove(home, options.name)
    found = tags.read(home)
    if options.json:
        sys.stdout.write(json.dumps(found) + "\n")
    else:
        for tag, names in found.items():
            sys.stdout.write(f"{tag}\n" + "".join(f"  {name}\n" for name in names))
        sys.stdout.write(f"{len(found)} tags under {home / 'tags'}\n")
    return 0
