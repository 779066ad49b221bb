"""The plan: everything under the home that a rule speaks of, and whether it stays, with the reason.

Nothing is changed here. What is not under `artifacts/`, `sessions/`, `logs/` and `progress_logs/`
is not looked at; a link is never followed and never removed.
"""

import os
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pydantic import ValidationError

from so8t import session
from so8t.artifacts import MANIFEST, Artifact, load
from so8t.cleanup.config import Cleanup

DAY_S = 86_400.0
TRASH = ".trash-"
LEFT_OVER = "left by an interrupted removal"
PUBLISHED = "upload"
FINISHED = frozenset({"completed", "failed"})


@dataclass(frozen=True)
class Item:
    """One file or folder: path under the home, what it is, the reason, and whether it stays."""

    path: str
    kind: str  # artifact | partial | damaged | trash | session | log
    keep: bool
    reason: str
    size_bytes: int


def make_plan(config: Cleanup, home: Path, used: Artifact, own: Path, busy: Iterable[str]) -> list[Item]:
    """Judge everything, sorted by path.

    `used` is what this run ends in; `own` is the folder that the caller works in; `busy` names the
    `<step>-<key>` that other processes hold a lock on.
    """
    items: list[Item] = []
    busy = set(busy)
    active = _active_sessions(config, home)
    # A process at work, or one that will go on, has inputs that nothing on disk names.
    reason = f"{sorted(busy)[0]} is being worked on" if busy else f"session {active[0]} is unfinished" if active else ""
    items += _artifacts(config, home, used, reason)
    items += _unfinished(config, home, own, busy)
    items += _sessions(config, home, set(active))
    items += _logs(config, home)
    return sorted(items, key=lambda item: item.path)


def _artifacts(config: Cleanup, home: Path, used: Artifact, blocked: str) -> Iterator[Item]:
    found, strange = _find_artifacts(home)
    yield from strange
    by_step: dict[str, list[Artifact]] = defaultdict(list)
    for artifact in found.values():
        by_step[artifact.manifest.step].append(artifact)
    newest = [a for some in by_step.values() for a in sorted(some, key=_finished, reverse=True)[: config.keep_per_step]]
    in_use, of_newest = reach([used], found), reach(newest, found)
    published = reach(by_step.get(PUBLISHED, []), found)
    for name, artifact in found.items():
        age_days = (time.time() - _finished(artifact)) / DAY_S
        if name in in_use:
            keep, reason = True, "this run was made from it"
        elif name in of_newest:
            keep, reason = True, f"one of the newest {config.keep_per_step} of its step, or an input of one"
        elif blocked:
            keep, reason = True, blocked
        elif name not in published and age_days < config.unpublished_days:
            keep, reason = True, f"not published, and younger than {config.unpublished_days:g} days"
        else:
            keep, reason = False, "older than the newest of its step, and nothing kept was made from it"
        yield _item(home, artifact.path, "artifact", keep, reason)


def _find_artifacts(home: Path) -> tuple[dict[tuple[str, str], Artifact], list[Item]]:
    """Readable artifacts by (step, key), and the folders that cannot be judged, which stay."""
    found, strange = {}, []
    for folder in _folders(home):
        if "." in folder.name:
            continue
        if folder.is_symlink():
            strange.append(_item(home, folder, "artifact", True, "a link; links are left alone"))
            continue
        try:
            artifact = load(folder)
        except (OSError, ValueError, ValidationError):
            strange.append(_item(home, folder, "artifact", True, f"no readable {MANIFEST}; run `so8t verify`"))
            continue
        found[artifact.manifest.step, artifact.manifest.key] = artifact
    return found, strange


def reach(roots: Iterable[Artifact], found: dict[tuple[str, str], Artifact]) -> set[tuple[str, str]]:
    """(step, key) of the roots and of everything that they were made from."""
    reached: set[tuple[str, str]] = set()
    waiting = [(artifact.manifest.step, artifact.manifest.key) for artifact in roots]
    known = {**found, **{(a.manifest.step, a.manifest.key): a for a in roots}}
    while waiting:
        name = waiting.pop()
        if name in reached:
            continue
        reached.add(name)
        if name in known:
            waiting += [(entry.step, entry.key) for entry in known[name].manifest.inputs.values()]
    return reached


def _unfinished(config: Cleanup, home: Path, own: Path, busy: set[str]) -> Iterator[Item]:
    """Folders with a suffix: unfinished work, damaged artifacts, and what an interrupted removal left."""
    for folder in _folders(home):
        name, _, suffix = folder.name.partition(".")
        if not suffix or folder.is_symlink() or folder == own:
            continue
        if folder.name.startswith(TRASH):
            yield _item(home, folder, "trash", False, LEFT_OVER)
        elif suffix == "partial" and f"{folder.parent.name}-{name}" in busy:
            yield _item(home, folder, "partial", True, "another process works there")
        elif suffix == "partial":
            yield _aged(home, folder, "partial", config.partial_days)
        elif suffix.startswith("damaged-"):
            yield _aged(home, folder, "damaged", config.damaged_days)


def _active_sessions(config: Cleanup, home: Path) -> list[str]:
    """Sessions that will be taken up again."""
    return [
        folder.name
        for folder in _children(home / "sessions")
        if (found := session.read(folder)) is not None
        and found.status not in FINISHED
        and found.kind != "run"  # a run keeps nothing there that its steps' sessions do not keep
        and _age_days(folder) < config.expiry_days
    ]


def _sessions(config: Cleanup, home: Path, active: set[str]) -> Iterator[Item]:
    for folder in (child for child in _children(home / "sessions") if child.is_dir()):
        if folder.name.startswith(TRASH):
            yield _item(home, folder, "trash", False, LEFT_OVER)
        elif folder.name in active:
            yield _item(home, folder, "session", True, "unfinished")
        else:
            yield _aged(home, folder, "session", config.session_days)


def _logs(config: Cleanup, home: Path) -> Iterator[Item]:
    """Folders of attempts, and progress logs; each kind by count and by age."""
    for parent in (home / "logs", home / "progress_logs"):
        children = [child for child in _children(parent) if not child.name.startswith(TRASH)]
        for child in _children(parent):
            if child.name.startswith(TRASH):
                yield _item(home, child, "trash", False, LEFT_OVER)
        ordered = sorted(children, key=lambda child: (_age_days(child), child.name))
        for position, child in enumerate(ordered):
            if position >= config.keep_logs:
                yield _item(home, child, "log", False, f"{config.keep_logs} newer ones are kept")
            elif position > 0:
                yield _aged(home, child, "log", config.keep_logs_days)


def _aged(home: Path, path: Path, kind: str, limit_days: float) -> Item:
    keep = _age_days(path) < limit_days
    return _item(home, path, kind, keep, f"{'younger' if keep else 'older'} than {limit_days:g} days")


def _item(home: Path, path: Path, kind: str, keep: bool, reason: str) -> Item:
    return Item(path.relative_to(home).as_posix(), kind, keep, reason, 0 if path.is_symlink() else size_bytes(path))


def size_bytes(path: Path) -> int:
    """Bytes under a path, links not followed."""
    return sum(place.lstat().st_size for place in walk(path))


def _age_days(path: Path) -> float:
    """Days since the newest change of anything under a path."""
    newest = max((place.lstat().st_mtime for place in walk(path)), default=path.lstat().st_mtime)
    return (time.time() - newest) / DAY_S


def walk(path: Path) -> Iterator[Path]:
    """The files under a path, or the file itself; links are not followed."""
    if not path.is_dir() or path.is_symlink():
        yield path
        return
    for folder, _, names in os.walk(path, followlinks=False):
        yield from (Path(folder) / name for name in names)


def _folders(home: Path) -> Iterator[Path]:
    """`artifacts/<step>/<folder>`, links included; a step that is a link leads out of the home and is passed over."""
    for step in _children(home / "artifacts"):
        yield from sorted(child for child in step.iterdir() if child.is_dir())


def _children(parent: Path) -> list[Path]:
    """Files and folders in a folder, sorted; links are passed over."""
    if not parent.is_dir() or parent.is_symlink():
        return []
    return sorted(child for child in parent.iterdir() if not child.is_symlink())


def _finished(artifact: Artifact) -> float:
    return datetime.fromisoformat(artifact.manifest.finished_at).timestamp()
