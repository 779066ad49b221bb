"""Names that a person gives to artifacts, so that cleanup keeps them: `$SO8T_HOME/tags/<name>.json`."""

import re
from pathlib import Path

from so8t import durable
from so8t.artifacts import Store
from so8t.errors import InputError
from so8t.session import now, sessions

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def read(home: Path) -> dict[str, list[str]]:
    """`<step>/<key>` by tag; an unreadable one raises, because what it keeps would be removed."""
    found = {}
    for path in sorted((home / "tags").glob("*.json")):
        try:
            found[path.stem] = [str(name) for name in durable.read_json(path)["artifacts"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"the tag {path} cannot be read ({type(error).__name__})", "what `so8t tag add` wrote",
                "mend it or remove the file",
            ) from error  # fmt: skip
    return found


def add(home: Path, tag: str, names: list[str]) -> list[str]:
    """Tag artifacts (`<step>/<key>` or the beginning of it), or all of the newest completed run; gives their whole names."""
    if not NAME.fullmatch(tag):
        raise InputError(f"{tag!r} is no tag", "letters, digits, dot, dash and underscore, at most 64")
    if durable.WINDOWS_DEVICES.fullmatch(tag):
        raise InputError(f"{tag!r} is a device on Windows, not a file", "another name")
    # Windows and macOS have one file for both, and what the older one keeps would be removed.
    if clash := [name for name in read(home) if name != tag and name.casefold() == tag.casefold()]:
        raise InputError(f"there is a tag {clash[0]!r} already", "a name that differs by more than case")
    folders = [f"{folder.parent.name}/{folder.name}" for folder in Store(home).folders()]
    chosen = [_whole(name, folders) for name in names] if names else _newest_run(home)
    durable.write_json(home / "tags" / f"{tag}.json", {"artifacts": sorted(set(chosen)), "time": now()})
    return sorted(set(chosen))


def remove(home: Path, tag: str) -> None:
    """Take a tag away; the artifacts stay until cleanup."""
    path = home / "tags" / f"{tag}.json"
    if not NAME.fullmatch(tag) or not path.is_file():
        raise InputError(f"no tag {tag!r}", "one of `so8t tag list`")
    durable.retry_sharing(path.unlink)
    durable.fsync_folder(path.parent)


def _whole(name: str, folders: list[str]) -> str:
    fitting = [folder for folder in folders if "/" in name and folder.startswith(name)]
    if len(fitting) != 1:
        raise InputError(
            f"{len(fitting)} artifacts are called {name!r}",
            "STEP/KEY of one, or the key's beginning",
            "see `so8t verify`",
        )
    return fitting[0]


def _newest_run(home: Path) -> list[str]:
    completed = [one for one in sessions(home) if one.kind == "run" and one.completed and one.artifacts]
    if not completed:
        raise InputError(
            "no run has completed here", "the artifacts to tag, as STEP/KEY", "name them, or run `so8t run` first"
        )
    return max(completed, key=lambda one: one.end_time).artifacts
