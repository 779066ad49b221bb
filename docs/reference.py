"""Writes docs/configuration.md (every config key) and docs/commands.md (every command and option) from the code.

`python docs/reference.py` writes them; a test fails where they are not what this would write.
"""

import argparse
import importlib
import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent))

CONFIGURATION = """# Every key of a config

Written by `python docs/reference.py`; `so8t config explain KEY` prints the same in a terminal. A list's items stand under
`[]`, what you name yourself under `NAME`. A profile (`profiles: NAME` in the file, `--profile NAME`) and `--set a.b=c` go
over the file's values. What a key does not say about a unit has none.
"""
COMMANDS = """# Every command

Written by `python docs/reference.py`; `so8t COMMAND --help` prints the same. Exit codes: 0 completed, 1 failed, 2 bad usage,
config or input, 130 interrupted.

## Shared
"shared" below stands for these four.

"""
SHARED = ("--config", "--set", "--profile", "--home")


def configuration() -> str:
    """The text of configuration.md."""
    from so8t.explain import markdown, parts

    return f"{CONFIGURATION}\n{markdown(parts())}"


def commands() -> str:
    """The text of commands.md."""
    from deployments.command import COMMANDS as ALL
    from so8t.cli import add_config_arguments

    shared = argparse.ArgumentParser(add_help=False)
    add_config_arguments(shared)
    blocks = [COMMANDS + _table(_rows(shared))]
    for command in ALL:
        parser = argparse.ArgumentParser(prog=f"so8t {command.name}", add_help=False)
        importlib.import_module(command.module).add_arguments(parser)
        blocks.append(f"## so8t {command.name}\n{_sentence(command.help)}\n\n{_options(parser)}")
    return "\n".join(blocks)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."


def _options(parser: argparse.ArgumentParser) -> str:
    below = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, inner in action.choices.items():
                text = next((choice.help for choice in action._choices_actions if choice.dest == name), "") or ""
                below.append(f"### {parser.prog} {name}\n{_sentence(text) if text else ''}\n\n{_options(inner)}")
    rows = _rows(parser)
    names = [name for name, _, _ in rows]
    if all(any(f"`{option}`" in name for name in names) for option in SHARED):
        rows = [row for row in rows if not any(f"`{option}`" in row[0] for option in SHARED)] + [("shared", "", "")]
    return "\n".join([*([_table(rows)] if rows or not below else []), *below])


def _rows(parser: argparse.ArgumentParser) -> list[tuple[str, str, str]]:
    return [
        (_name(action), _default(action), _cell(action.help or ""))
        for action in parser._actions
        if not isinstance(action, argparse._HelpAction | argparse._SubParsersAction)
        and action.help != argparse.SUPPRESS
    ]


def _table(rows: list[tuple[str, str, str]]) -> str:
    if not rows:
        return "No arguments.\n"
    return "\n".join(["| argument | default | |", "|---|---|---|", *(f"| {' | '.join(row)} |" for row in rows)]) + "\n"


def _name(action: argparse.Action) -> str:
    choices = "|".join(str(choice) for choice in action.choices or ())
    metavar = action.metavar if isinstance(action.metavar, str) else ""
    value = _cell(choices or metavar or action.dest.upper())
    if not action.option_strings:
        return f"`{value}`" + (" (optional)" if action.nargs in ("?", "*") else "")
    flag = ", ".join(f"`{option}`" for option in action.option_strings)
    return flag if action.nargs == 0 else f"{flag} {value}"


def _default(action: argparse.Action) -> str:
    silent = action.default in (None, "", [], False, argparse.SUPPRESS) or isinstance(action.default, Path)
    return "" if silent or "default" in str(action.help) else f"`{action.default}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("%%", "%")


def main() -> None:
    """Write both files."""
    for name, text in (("configuration.md", configuration()), ("commands.md", commands())):
        (DOCS / name).write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
