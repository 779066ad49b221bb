"""The plan: everything under the home that a rule speaks of, and whether it stays, with the reason.

Nothing is changed here. What is not under `artifacts/`, `sessions/`, `logs/` and `progress_logs/`
is not looked at; a link is never followed and never removed.
"""

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pydantic import ValidationError

from so8t.artifacts import MANIFEST, Artifact, load
from so8t.cleanup import references
from so8t.cleanup.config import Cleanup
from so8t.cleanup.disk import age_days, children
from so8t.cleanup.references import Holder
from so8t.sizes import size_of

DAY_S = 86_400.0
TRASH = ".trash-"
LEFT_OVER = "left by an interrupted removal"
PUBLISHED = "upload"


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
    runs = references.runs(config, home)
    unclear = references.unclear_sessions(config, home)
    # A process at work, or a step that will go on outside a run, has inputs that nothing on disk names.
    reason = (
        f"{sorted(busy)[0]} is being worked on" if busy else f"session {unclear[0]} is unfinished" if unclear else ""
    )
    items += _artifacts(config, home, [*runs, *references.tags(home)], used, reason)
    items += _unfinished(config, home, own, busy)
    items += _sessions(config, home, {*unclear, *(run.session for run in runs)})
    items += _logs(config, home)
    return sorted(items, key=lambda item: item.path)


def _artifacts(config: Cleanup, home: Path, holders: Iterable[Holder], used: Artifact, blocked: str) -> Iterator[Item]:
    found, strange = _find_artifacts(home)
    yield from strange
    by_step: dict[str, list[Artifact]] = defaultdict(list)
    for artifact in found.values():
        by_step[artifact.manifest.step].append(artifact)
    newest = [a for some in by_step.values() for a in sorted(some, key=_finished, reverse=True)[: config.keep_per_step]]
    published = reach(by_step.get(PUBLISHED, []), found)
    young = [
        artifact
        for name, artifact in found.items()
        if name not in published and (time.time() - _finished(artifact)) / DAY_S < config.unpublished_days
    ]
    # Whatever is kept is kept with everything that it was made from; the first reason that fits is told.
    kept = [
        (reach([used], found), "this run was made from it"),
        *((reach((found[n] for n in held.artifacts if n in found), found), held.reason) for held in holders),
        (reach(newest, found), f"one of the newest {config.keep_per_step} of its step, or an input of one"),
        (reach(young, found), f"not published, and younger than {config.unpublished_days:g} days, or an input of such"),
    ]
    for name, artifact in found.items():
        reason = next((why for names, why in kept if name in names), blocked)
        yield _item(
            home,
            artifact.path,
            "artifact",
            bool(reason),
            reason or "older than the newest of its step, and nothing kept was made from it",
        )


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
    """(step, key) of the roots and of everything that they were made from, what their configs name by content included."""
    of_content: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for name, artifact in found.items():
        of_content[artifact.content].append(name)
    reached: set[tuple[str, str]] = set()
    waiting = [(artifact.manifest.step, artifact.manifest.key) for artifact in roots]
    known = {**found, **{(a.manifest.step, a.manifest.key): a for a in roots}}
    while waiting:
        name = waiting.pop()
        if name in reached:
            continue
        reached.add(name)
        if name in known:
            manifest = known[name].manifest
            waiting += [(entry.step, entry.key) for entry in manifest.inputs.values()]
            for _, content in references.named(manifest.config):
                waiting += of_content.get(content, [])
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


def _sessions(config: Cleanup, home: Path, active: set[str]) -> Iterator[Item]:
    for folder in (child for child in children(home / "sessions") if child.is_dir()):
        if folder.name.startswith(TRASH):
            yield _item(home, folder, "trash", False, LEFT_OVER)
        elif folder.name in active:
            yield _item(home, folder, "session", True, "unfinished, or of one of the newest runs")
        elif tag := references.checkpoint_tag(folder):
            yield _item(home, folder, "session", True, f"a checkpoint in it is tagged {tag}")
        else:
            yield _aged(home, folder, "session", config.session_days)


def _logs(config: Cleanup, home: Path) -> Iterator[Item]:
    """Folders of attempts, and progress logs; each kind by count and by age."""
    for parent in (home / "logs", home / "progress_logs"):
        named = [child for child in children(parent) if not child.name.startswith(TRASH)]
        for child in children(parent):
            if child.name.startswith(TRASH):
                yield _item(home, child, "trash", False, LEFT_OVER)
        ordered = sorted(named, key=lambda child: (age_days(child), child.name))
        for position, child in enumerate(ordered):
            if position >= config.keep_logs:
                yield _item(home, child, "log", False, f"{config.keep_logs} newer ones are kept")
            elif position > 0:
                yield _aged(home, child, "log", config.keep_logs_days)


def _aged(home: Path, path: Path, kind: str, limit_days: float) -> Item:
    keep = age_days(path) < limit_days
    return _item(home, path, kind, keep, f"{'younger' if keep else 'older'} than {limit_days:g} days")


def _item(home: Path, path: Path, kind: str, keep: bool, reason: str) -> Item:
    return Item(path.relative_to(home).as_posix(), kind, keep, reason, 0 if path.is_symlink() else size_of(path))


def _folders(home: Path) -> Iterator[Path]:
    """`artifacts/<step>/<folder>`, links included; a step that is a link leads out of the home and is passed over."""
    for step in children(home / "artifacts"):
        yield from sorted(child for child in step.iterdir() if child.is_dir())


def _finished(artifact: Artifact) -> float:
    return datetime.fromisoformat(artifact.manifest.finished_at).timestamp()
