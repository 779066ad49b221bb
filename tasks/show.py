"""What a step shows in the Prefect UI: a progress bar while it works, a table of facts when it is done."""

import base64
import re
import time
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.artifacts import (
    create_image_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

from so8t import recoveries
from so8t.artifacts import Artifact
from so8t.progress import Metric
from so8t.session import SessionFile
from so8t.step import Ref

# An update costs 15 ms and 3.5 KB in the server's database.
INTERVAL_MIN_S = 5.0
MARKDOWN_BYTES_MAX = 400_000


def artifact_key(ref: str) -> str:
    """Prefect's keys hold a-z, 0-9 and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", ref.lower()).strip("-")


class PrefectProgress:
    """Keeps one progress artifact up to date; created with the first report."""

    def __init__(self, ref: str, interval_s: float) -> None:
        self._key = artifact_key(ref)
        self._interval_s = max(interval_s, INTERVAL_MIN_S)
        self._id: UUID | None = None
        self._shown_at = 0.0

    def report(self, step: str, done: float, total: float | None, message: str, metrics: dict[str, Metric]) -> None:
        """Show a report where the interval has passed or the work is done."""
        now = time.monotonic()
        if now - self._shown_at < self._interval_s and not (total and done >= total):
            return
        self._shown_at = now
        percent = min(100.0, 100.0 * done / total) if total else 0.0
        numbers = ", ".join(
            f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in metrics.items()
        )
        text = f"{message} {numbers}".strip()
        if self._id is None:
            created = create_progress_artifact(progress=percent, key=f"{self._key}-progress", description=text)
            self._id = created if isinstance(created, UUID) else None
        else:
            update_progress_artifact(self._id, progress=percent, description=text)


def show_facts(ref: Ref, artifact: Artifact) -> None:
    """A table of the step's facts, and its Markdown reports."""
    rows = [{"fact": name, "value": _cell(value)} for name, value in artifact.manifest.facts.items()]
    rows.append({"fact": "content", "value": artifact.content})
    create_table_artifact(
        table=rows, key=f"{artifact_key(str(ref))}-facts", description=f"{ref} {artifact.manifest.key[:12]}"
    )
    _show_reports(ref, [artifact.path / entry.path for entry in artifact.manifest.files if "/" not in entry.path])


def show_refused(ref: Ref, folder: Path) -> None:
    """The Markdown reports of a step whose gate was missed: what was measured, and by how much it missed."""
    _show_reports(ref, sorted(folder.iterdir()))


def show_recoveries(home: Path, session: SessionFile | None) -> None:
    """What was done about faults in a run, and what that changed; nothing where there was none."""
    run = session.session.session_id if session is not None else ""
    found = recoveries.read(home, run) if run else []
    if not found:
        return
    create_markdown_artifact(markdown=recoveries_markdown(found, recoveries.overrides(home, run)), key="recoveries")


def recoveries_markdown(found: list[recoveries.Recovery], overrides: dict[str, dict[str, float]]) -> str:
    """A table of recoveries, and below it the settings that they have changed."""
    rows = [
        f"| {r.at[:19]} | {r.step} | {r.fault} | {r.policy} | {_in_a_cell(r.detail)} | {r.outcome} |" for r in found
    ]
    changed = [
        f"- {session}: `{name}` = {value:g}" for session, names in overrides.items() for name, value in names.items()
    ]
    table = ["| UTC | step | fault | what was done | detail | then |", "|---|---|---|---|---|---|", *rows]
    return "\n".join(
        [*table, *(["", "Changed for these steps alone, never in your config:", *changed] if changed else [])]
    )


def _in_a_cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _show_reports(ref: Ref, paths: list[Path]) -> None:
    """Markdown, and the pictures that none of it shows."""
    small = [path for path in paths if path.suffix in (".md", ".png") and path.stat().st_size < MARKDOWN_BYTES_MAX]
    texts = {path: path.read_text(encoding="utf-8") for path in small if path.suffix == ".md"}
    for path, text in texts.items():
        shown = with_pictures(text, path.parent)
        create_markdown_artifact(markdown=shown, key=artifact_key(f"{ref}-{path.stem}"))
    for path in small:
        if path.suffix == ".png" and not any(f"({path.name})" in text for text in texts.values()):
            data = "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode("ascii")
            create_image_artifact(image_url=data, key=artifact_key(f"{ref}-{path.stem}-png"))


def with_pictures(text: str, folder: Path) -> str:
    """Markdown whose PNG pictures lie beside it, with the pictures in it: the UI has no folder to read them from."""

    def embed(match: re.Match[str]) -> str:
        path = folder / match[2]
        if not path.is_file():
            return match[0]
        data = base64.b64encode(path.read_bytes()).decode("ascii")
        return f"![{match[1]}](data:image/png;base64,{data})"

    return re.sub(r"!\[([^\]]*)\]\(([\w.-]+\.png)\)", embed, text)


def _cell(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
