"""Homes to clean up, and one cleanup."""

import json
import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from so8t.artifacts import Store, hash_json
from so8t.cleanup.config import Cleanup
from so8t.cleanup.run import run
from so8t.config import Machine
from so8t.progress import Progress
from tests.upload.made import artifact

ROOT = Path(__file__).parents[2]
OWN = "f" * 64


def days_ago(days: float) -> str:
    return (datetime.now(UTC) - timedelta(days=days)).isoformat()


def age(path: Path, days: float) -> Path:
    """Make everything under a path look old."""
    then = time.time() - days * 86_400
    for place in [path, *path.rglob("*")]:
        os.utime(place, (then, then), follow_symlinks=False)
    return path


def chain(store: Store, name: str, days: float):
    """data -> train -> upload, finished some days ago."""
    data = artifact(store, "preprocess", {"rows": name.encode()}, key=hash_json([name, 1]), finished_at=days_ago(days))
    train = artifact(store, "train", {"weights": name.encode() * 100}, key=hash_json([name, 2]), finished_at=days_ago(days),
                     inputs={"data": data})  # fmt: skip
    upload = artifact(store, "upload", {"card": name.encode()}, key=hash_json([name, 3]), finished_at=days_ago(days),
                      inputs={"train": train})  # fmt: skip
    return data, train, upload


def clean(home: Path, used, **more):
    out = home / "artifacts" / "cleanup" / f"{OWN}.partial"
    out.mkdir(parents=True, exist_ok=True)
    facts = run(Cleanup(**more), {"upload": used}, out, Progress("cleanup", Machine(), home))
    planned = {item["path"]: item for item in json.loads((out / "plan.json").read_text(encoding="utf-8"))}
    return facts, planned
