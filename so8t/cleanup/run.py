"""cleanup: a plan of what stays and what goes, with reasons; then the removal.

plan.json     every file and folder that a rule speaks of (volatile)
removed.json  what was removed, written after each removal (volatile)
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from so8t import durable
from so8t.cleanup.config import Cleanup
from so8t.cleanup.removal import busy_keys, remove
from so8t.cleanup.retention import Item, make_plan
from so8t.progress import Progress
from so8t.step import Facts, Inputs

REMOVED = "removed.json"


def run(config: Cleanup, inputs: Inputs, out: Path, progress: Progress) -> Facts:
    """Plan and, where the config says so, remove; an interrupted removal goes on from what is there."""
    home = progress.home
    own = f"{out.parent.name}-{out.name.removesuffix('.partial')}"
    progress.update(0, None, "planning")
    items = make_plan(config, home, inputs["upload"], out, busy_keys(home, own))
    durable.write_json(out / "plan.json", [asdict(item) for item in items])
    removed = _read_removed(out / REMOVED)
    if config.apply:
        _remove([item for item in items if not item.keep], home, own, out, progress, removed)
    durable.write_json(out / REMOVED, removed)
    kept = [item for item in items if item.keep]
    return {
        "applied": config.apply,
        "kept": len(kept),
        "kept_bytes": sum(item.size_bytes for item in kept),
        "planned": len(items) - len(kept),
        "planned_bytes": sum(item.size_bytes for item in items if not item.keep),
        "removed": len(removed),
        "bytes_freed": sum(entry["size_bytes"] for entry in removed),
    }


def _remove(
    items: list[Item], home: Path, own: str, out: Path, progress: Progress, removed: list[dict[str, Any]]
) -> None:
    for done, item in enumerate(items):
        progress.update(done, len(items), f"removing {item.path}")
        # Whoever began to work since the plan was made may read any artifact.
        if item.kind == "artifact" and busy_keys(home, own):
            continue
        if remove(home, home / item.path):
            removed.append(asdict(item))
            durable.write_json(out / REMOVED, removed)


def _read_removed(path: Path) -> list[dict[str, Any]]:
    """What an interrupted run had removed already."""
    return list(durable.read_json(path)) if path.exists() else []
