"""What keeping an artifact up to date costs the server's database, ours against Prefect's own update.

    python -m benchmarks.ui_growth [--updates 500]

One server with two artifacts a way, a progress and a picture of 70 KB. Prefect's update also sends an event with all
of the data, and events are kept for seven days. The database's size is that of its used pages.
"""

import argparse
import contextlib
import os
import secrets
import sqlite3
import tempfile
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

from so8t.cli import DEFAULT_CONFIG
from so8t.config import load_config

PICTURE_BYTES = 70_000
A_DAY_S = 86_400
EVENTS_S = 60


def main() -> None:
    """Print bytes an update and what that comes to in a day."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--updates", type=int, default=500, help="of each artifact")
    updates: int = parser.parse_args().updates
    from deployments.server import Server

    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        (home / "logs").mkdir(parents=True)
        config = load_config(DEFAULT_CONFIG, ["machine.server_port=0"], home)
        with Server(config, home / "logs" / "server.log") as server:
            os.environ.update(server.environment())
            _measure(home / "prefect" / "prefect.db", updates)


def _measure(database: Path, updates: int) -> None:
    from prefect.artifacts import create_markdown_artifact, create_progress_artifact

    from tasks.updates import update_in_place

    def picture() -> str:
        return secrets.token_hex(PICTURE_BYTES // 2)

    progress = create_progress_artifact(progress=0.0, key="progress")
    shown = create_markdown_artifact(markdown=picture(), key="picture")
    assert isinstance(progress, UUID)
    assert isinstance(shown, UUID)
    kinds: list[tuple[str, UUID, Callable[[int], object], float]] = [
        ("progress, every 5 s", progress, lambda number: float(number % 100), 5.0),
        ("picture, every 30 s", shown, lambda number: picture(), 30.0),
    ]
    for name, artifact, made, interval_s in kinds:
        before = _settled(database)
        for number in range(updates):
            update_in_place(artifact, data=made(number), description=f"step {number} of {updates}")
        ours = (_settled(database) - before) / updates
        before = _settled(database)
        for number in range(updates):
            _with_an_event(artifact, made(number), f"step {number} of {updates}")
        theirs = (_settled(database) - before) / updates
        day = A_DAY_S / interval_s / 1e6
        print(
            f"{name}: {ours:.0f} bytes an update, {ours * day:.1f} MB a day; "
            f"Prefect's own {theirs:.0f} bytes, {theirs * day:.1f} MB a day"
        )


def _with_an_event(artifact: UUID, data: object, description: str) -> None:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import ArtifactUpdate

    with get_client(sync_client=True) as client:
        client.update_artifact(artifact, ArtifactUpdate(data=data, description=description))  # type: ignore[arg-type]


def _settled(database: Path) -> int:
    """Bytes of the pages in use, once every event has been sent and has stopped coming in."""
    import time

    from prefect.events.worker import EventsWorker

    EventsWorker.drain_all(timeout=EVENTS_S)
    last = -1
    while (count := _pages(database)) != last:
        last = count
        time.sleep(8.0)
    return count


def _pages(database: Path) -> int:
    with contextlib.closing(sqlite3.connect(database, timeout=60)) as rows:
        size, count, free = (
            rows.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_size", "page_count", "freelist_count")
        )
    return int(size * (count - free))


if __name__ == "__main__":
    main()
