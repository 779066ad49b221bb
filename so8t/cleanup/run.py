"""cleanup: a plan of what stays and what goes, with reasons; then the removal.

plan.json     every file and folder that a rule speaks of (volatile)
removed.json  what was removed, or was about to be when the process ended: noted before each removal (volatile)
"""

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from so8t import durable
from so8t.cleanup.config import Cleanup
from so8t.cleanup.removal import busy_keys, remove
from so8t.cleanup.retention import Item, make_plan
from so8t.progress import Progress
from so8t.step import Facts, Inputs


def run(config: Cleanup, inputs: Inputs, out: Path, progress: Progress) -> Facts:
    """Plan and, where the config says so, remove; an interrupted removal goes on from what is there."""
    home = progress.home
    own = f"{out.parent.name}-{out.name.removesuffix('.partial')}"
    progress.update(0, None, "planning")
    notes = Notes(out / "removed.json", home)
    items = make_plan(config, home, inputs["upload"], out, busy_keys(home, own))
    durable.write_json(out / "plan.json", [asdict(item) for item in items])
    before = shutil.disk_usage(home).free
    if config.apply:
        _remove([item for item in items if not item.keep], home, own, notes, progress)
    notes.write()
    kept = [item for item in items if item.keep]
    return {
        "applied": config.apply,
        "kept": len(kept),
        "kept_bytes": sum(item.size_bytes for item in kept),
        "planned": len(items) - len(kept),
        "planned_bytes": sum(item.size_bytes for item in items if not item.keep),
        "removed": len(notes.removed),
        "bytes_freed": sum(entry["size_bytes"] for entry in notes.removed),
        # Of the whole volume, on which others write too.
        "free_before_bytes": before,
        "free_after_bytes": shutil.disk_usage(home).free,
    }


class Notes:
    """removed.json. A removal is noted before it begins, and counts once the name is gone."""

    def __init__(self, path: Path, home: Path) -> None:
        """Take up what an interrupted run left: a name that is gone was removed, one that is there was not."""
        self.path = path
        noted = durable.read_json(path) if path.exists() else []
        self.removed: list[dict[str, Any]] = [entry for entry in noted if not (home / entry["path"]).exists()]

    def begin(self, item: Item) -> None:
        """Note what is about to be removed."""
        self.removed.append(asdict(item))
        self.write()

    def take_back(self) -> None:
        """The last one was not removed after all."""
        self.removed.pop()

    def write(self) -> None:
        """Make the notes durable."""
        durable.write_json(self.path, self.removed)


def _remove(items: list[Item], home: Path, own: str, notes: Notes, progress: Progress) -> None:
    for done, item in enumerate(items):
        progress.update(done, len(items), f"removing {item.path}")
        # Whoever began to work since the plan was made may read any artifact.
        if item.kind == "artifact" and busy_keys(home, own):
            continue
        if item.kind == "trash":
            remove(home, home / item.path)  # it was noted under its own name when that was taken away
            continue
        notes.begin(item)
        if not remove(home, home / item.path):
            notes.take_back()
