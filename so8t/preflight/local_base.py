"""A base in a local folder: whether it still is what was collected of it."""

from datetime import datetime
from pathlib import Path

from so8t.artifacts import Artifact, hash_file
from so8t.collect.basemodel.files import is_wanted
from so8t.collect.config import LocalBase
from so8t.preflight.finding import Finding
from so8t.preflight.scene import Scene
from so8t.step import Ref, plan

COLLECTED = Ref("collect.base")


def check(scene: Scene) -> list[Finding]:
    """One finding for a local base that has been collected and is still there, none for any other.

    The key of the collected copy holds the folder's path alone, so that a run goes on when the folder is gone. A folder
    that has changed would pass for the one that was copied.
    """
    base = scene.config.base
    if not isinstance(base, LocalBase) or not base.path.is_dir():
        return []
    made = scene.store.peek(COLLECTED.step, plan(COLLECTED, scene.config, scene.store, read_only=True).key)
    if made is None:
        return []
    changed = _changed(base.path, made)
    if not changed:
        return [Finding("base", "ok", f"{base.path} is as it was collected")]
    named = ", ".join(changed[:3]) + (f" and {len(changed) - 3} more" if len(changed) > 3 else "")
    return [Finding("base", "warn", f"{base.path} has changed since it was collected ({named}); its copy is used",
                    "the files that were collected",
                    f"to take the new ones remove {made.path}, or give their folder another name")]  # fmt: skip


def _changed(folder: Path, made: Artifact) -> list[str]:
    """Names that came, went or have other bytes. Only files touched since the copy are read."""
    copied_s = datetime.fromisoformat(made.manifest.started_at).timestamp()
    before = {entry.path: entry for entry in made.manifest.files if is_wanted(entry.path)}
    now = {path.name: path for path in folder.iterdir() if path.is_file() and is_wanted(path.name)}
    changed = set(before) ^ set(now)
    for name in set(before) & set(now):
        status, entry = now[name].stat(), before[name]
        touched = status.st_mtime >= copied_s or status.st_ctime >= copied_s
        if status.st_size != entry.size_bytes or (touched and hash_file(now[name]) != entry.sha256):
            changed.add(name)
    return sorted(changed)
