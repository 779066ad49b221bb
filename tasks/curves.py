"""A training's curves and samples in the Prefect UI while it runs, from its logs in `progress_logs/`."""

import time
from pathlib import Path
from uuid import UUID

from prefect.artifacts import create_markdown_artifact

from so8t.progress import Metric, lines_of, log_of
from tasks.pace import Pace
from tasks.show import picture
from tasks.updates import update_in_place

DESCRIPTIONS = {
    "curves": "reward, KL, loss and the rest by step",
    "samples": "held-out prompts, answered greedily",
}


class PrefectCurves:
    """Keeps a picture and a page of samples up to date; created once there is something to show."""

    def __init__(self, home: Path, session: str, key: str, interval_s: float) -> None:
        self._lines, self._samples = log_of(home, session), log_of(home, session, "samples")
        self._key, self._pace = key, Pace(interval_s)
        self._shown_at = time.monotonic()
        self._seen = (0, 0)
        self._ids: dict[str, UUID] = {}

    def report(self, step: str, done: float, total: float | None, message: str, metrics: dict[str, Metric]) -> None:
        """Show what is new once the pause is over."""
        if time.monotonic() - self._shown_at >= self._pace.pause_s:
            with self._pace.measured():
                self.show()

    def show(self) -> None:
        """Show now what is new."""
        self._shown_at = time.monotonic()
        seen = (_size(self._lines), _size(self._samples))
        if seen[0] != self._seen[0]:
            self._image()
        if seen[1] != self._seen[1]:
            self._publish("samples", samples_markdown(self._samples))
        self._seen = seen

    def _image(self) -> None:
        from so8t.benchmark.plots import training

        drawn = training(list({line["step"]: line for line in lines_of(self._lines)}.values()))
        if drawn is not None:
            self._publish("curves", picture(drawn, "curves"))

    def _publish(self, kind: str, data: str) -> None:
        if kind in self._ids:
            update_in_place(self._ids[kind], data=data)
            return
        made = create_markdown_artifact(markdown=data, key=f"{self._key}-{kind}", description=DESCRIPTIONS[kind])
        assert isinstance(made, UUID)
        self._ids[kind] = made


def samples_markdown(path: Path) -> str:
    """The newest reply to each prompt, below the one that was wanted."""
    newest = {line["id"]: line for line in lines_of(path)}
    blocks = [
        f"### {line['id']}\nafter step {line['step']} ({line['phase']})\n\n"
        + "\n\n".join(f"{name}:\n{_quoted(line[name])}" for name in ("prompt", "wanted", "reply"))
        for line in newest.values()
    ]
    return "\n\n".join(blocks)


def _quoted(text: str) -> str:
    """As code: the replies hold tags, which Markdown would take for HTML."""
    return "\n" + "\n".join("    " + line for line in text.splitlines() or [""])


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
