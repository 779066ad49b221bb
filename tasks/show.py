"""What a step shows in the Prefect UI: a progress bar while it works, a table of facts when it is done."""

import base64
import io
import re
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.artifacts import create_markdown_artifact, create_progress_artifact, create_table_artifact

from so8t.artifacts import Artifact
from so8t.overview.words import duration, numbers
from so8t.progress import Metric
from so8t.step import Ref
from tasks.updates import update_in_place

# An update costs 15 ms here and as much in the server; an open page follows every 10 s.
INTERVAL_MIN_S = 10.0
MARKDOWN_BYTES_MAX = 400_000
# Of a plot: its lines, its grey edges.
COLOURS = 64


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
        # Since when, and from where on, the speed is measured; a new total is another kind of work.
        self._began = (0.0, 0.0)
        self._total: float | None = -1.0

    def report(self, step: str, done: float, total: float | None, message: str, metrics: dict[str, Metric]) -> None:
        """Show a report where the interval has passed or the work is done."""
        now = time.monotonic()
        if total != self._total or done < self._began[1]:
            self._began, self._total = (now, done), total
        if now - self._shown_at < self._interval_s and not (total and done >= total):
            return
        self._shown_at = now
        # The UI prints every digit.
        percent = round(min(100.0, 100.0 * done / total), 1) if total else 0.0
        text = self._text(done, total, message, metrics, now)
        if self._id is None:
            created = create_progress_artifact(progress=percent, key=f"{self._key}-progress", description=text)
            self._id = created if isinstance(created, UUID) else None
        else:
            update_in_place(self._id, data=percent, description=text)

    def end(self, said: str) -> None:
        """The step is done, whatever its last report was."""
        if self._id is not None:
            update_in_place(self._id, data=100.0, description=said)

    def _text(self, done: float, total: float | None, message: str, metrics: dict[str, Metric], now: float) -> str:
        left_s = metrics.get("eta_s")
        if left_s is None and total and done > self._began[1]:
            left_s = (total - done) * (now - self._began[0]) / (done - self._began[1])
        left = f"about {duration(float(left_s))} left" if left_s else ""
        return ", ".join(filter(None, (message, numbers(metrics), left)))


def show_facts(ref: Ref, artifact: Artifact) -> None:
    """A table of the step's facts, and its Markdown reports."""
    rows = [row for name, value in artifact.manifest.facts.items() for row in _rows(name, value)]
    rows.append({"fact": "content", "value": artifact.content})
    create_table_artifact(
        table=rows, key=f"{artifact_key(str(ref))}-facts", description=f"{ref} {artifact.manifest.key[:12]}"
    )
    _show_reports(ref, [artifact.path / entry.path for entry in artifact.manifest.files if "/" not in entry.path])


def show_refused(ref: Ref, folder: Path) -> None:
    """The Markdown reports of a step whose gate was missed: what was measured, and by how much it missed."""
    _show_reports(ref, sorted(folder.iterdir()))


def _show_reports(ref: Ref, paths: list[Path]) -> None:
    """Markdown, and the pictures that none of it shows."""
    small = [path for path in paths if path.suffix in (".md", ".png") and path.stat().st_size < MARKDOWN_BYTES_MAX]
    texts = {path: path.read_text(encoding="utf-8") for path in small if path.suffix == ".md"}
    for path, text in texts.items():
        _markdown(ref, path.stem, with_pictures(text, path.parent))
    for path in small:
        if path.suffix == ".png" and not any(f"({path.name})" in text for text in texts.values()):
            # As Markdown: beside an image artifact the UI writes its address, here the whole picture in letters.
            _markdown(ref, f"{path.stem}-png", picture(path.read_bytes(), path.name))


def _markdown(ref: Ref, name: str, text: str) -> None:
    title = re.search(r"^# (.+)$", text, re.MULTILINE)
    create_markdown_artifact(
        markdown=text, key=artifact_key(f"{ref}-{name}"), description=f"{ref}: {title[1] if title else name}"
    )


def with_pictures(text: str, folder: Path) -> str:
    """Markdown whose PNG pictures lie beside it, with the pictures in it: the UI has no folder to read them from."""

    def find(name: str) -> bytes | None:
        path = folder / name
        return path.read_bytes() if path.is_file() else None

    return embed(text, find)


def embed(text: str, find: Callable[[str], bytes | None]) -> str:
    """Markdown with the PNG pictures that `find` gives by name in it; where it gives none the link stays."""

    def replace(match: re.Match[str]) -> str:
        found = find(match[2])
        return match[0] if found is None else picture(found, match[1])

    return re.sub(r"!\[([^\]]*)\]\(([\w.-]+\.png)\)", replace, text)


@lru_cache(maxsize=8)
def picture(png: bytes, name: str) -> str:
    """A PNG picture in Markdown, in few colours: the page is read and written as a whole."""
    from PIL import Image

    small = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(
        small, "PNG", optimize=True
    )
    return f"![{name}](data:image/png;base64,{base64.b64encode(small.getvalue()).decode('ascii')})"


def _rows(name: str, value: Any) -> Iterator[dict[str, str]]:
    """A fact's rows: what is nested has one for each value, since the UI cuts a long cell."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _rows(f"{name} / {key}", inner)
    elif isinstance(value, list) and any(isinstance(inner, dict | list) for inner in value):
        for number, inner in enumerate(value, 1):
            yield from _rows(f"{name} / {number}", inner)
    elif isinstance(value, list):
        yield {"fact": name, "value": ", ".join(_cell(inner) for inner in value)}
    else:
        yield {"fact": name, "value": _cell(value)}


def _cell(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
