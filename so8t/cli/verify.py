"""`so8t verify [ARTIFACT]`: every byte against the manifests."""

import argparse
import sys
from pathlib import Path

from so8t.cli import add_config_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("artifact", nargs="?", help="a step's name, a key (or its beginning) or a folder; default: all")
    parser.add_argument("--keep", action="store_true", help="only name what is damaged; do not set it aside")
    add_config_arguments(parser)


def main(options: argparse.Namespace) -> int:
    """Exit 0 only where every file was read and every hash matched."""
    from so8t.artifacts import Store, check_hashes
    from so8t.config import load_config
    from so8t.errors import InputError

    store = Store(load_config(options.config, options.overrides, options.home).home())
    folders = [folder for folder in store.folders() if _matches(folder, options.artifact)]
    if options.artifact and not folders:
        raise InputError(
            f"no artifact {options.artifact!r} under {store.root}",
            "a step's name, a key or a folder",
            "see `so8t status`",
        )
    damaged = 0
    for folder in folders:
        problems = check_hashes(folder)
        for problem in problems:
            sys.stdout.write(f"DAMAGED {problem}\n")
        if problems:
            damaged += 1
            if not options.keep:
                sys.stdout.write(f"  set aside as {store.set_aside(folder)}; the next run makes it again\n")
    sys.stdout.write(f"{len(folders) - damaged} of {len(folders)} artifacts verified, every file hashed\n")
    return 1 if damaged else 0


def _matches(folder: Path, wanted: str | None) -> bool:
    if wanted is None:
        return True
    return folder.parent.name == wanted or folder.name.startswith(wanted) or folder == Path(wanted).absolute()
