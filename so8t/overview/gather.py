"""Everything that there is to see of a home and a config at this moment; reads only."""

import shutil
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from so8t import durable, recoveries
from so8t.artifacts import Store
from so8t.config import Config
from so8t.overview.left import Left, left_of
from so8t.overview.live import Live, live
from so8t.overview.survey import open_runs, survey
from so8t.overview.training import Checked, Training, training_of
from so8t.recoveries import Recovery
from so8t.session import sessions
from so8t.step import trainings

FOREST = "forest.png"


@dataclass(frozen=True)
class StepLine:
    """A step or part. `state`: done, running, begun (and nobody works on it), ready, waiting or MISSED (a gate)."""

    name: str
    state: str
    seconds: float | None = None
    detail: str = ""
    live: Live | None = None

    @property
    def step(self) -> str:
        """The step's name without its part."""
        return self.name.partition("[")[0]


@dataclass(frozen=True)
class Overview:
    """`at` is UTC; `last` is how the newest run ended, empty without one; `gates` are rows of gates.json; `forest` is the benchmark's plot and `sentences` what it comes to; `left` is there while a run works."""

    at: datetime
    home: Path
    runs: list[dict[str, Any]]
    last: str
    steps: list[StepLine]
    training: Training | None
    gates: list[dict[str, Any]]
    forest: Path | None
    sentences: list[str]
    recoveries: list[Recovery]
    overrides: dict[str, dict[str, float]]
    free_bytes: int
    left: Left | None = None
    damaged: list[str] = field(default_factory=list)

    @property
    def done(self) -> int:
        """How many steps and parts are done."""
        return sum(step.state == "done" for step in self.steps)

    @property
    def running(self) -> list[StepLine]:
        """What is being worked on."""
        return [step for step in self.steps if step.state == "running"]


def gather(config: Config, checked: Checked, run: str = "") -> Overview:
    """Look at the disk once; with a run's id its recoveries alone are told of. Hashes only checkpoints not yet `checked`."""
    store = Store(config.home())
    rows, runs, reports = survey(config, store), open_runs(store), live(store.home)
    works = any(one["state"] == "running" for one in runs)
    steps = [_line(name, row, reports.get(name), works, store) for name, row in rows.items()]
    return Overview(
        at=datetime.now(UTC),
        home=store.home,
        runs=runs,
        last=next((one.status for one in sessions(store.home) if one.kind == "run"), ""),
        steps=steps,
        training=_training(rows, store.home, checked),
        gates=[gate for name, row in rows.items() for gate in _gates(name, row, store)],
        forest=_file_of("benchmark", rows, store, FOREST),
        sentences=_sentences(rows),
        recoveries=recoveries.read(store.home, run),
        overrides=recoveries.overrides(store.home, run),
        free_bytes=shutil.disk_usage(store.home if store.home.exists() else Path.cwd()).free,
        left=left_of(config, store, rows, reports) if works else None,
        damaged=sorted(path.name for path in store.root.glob("*/*.damaged-*")),
    )


def _line(name: str, row: dict[str, Any], report: Live | None, works: bool, store: Store) -> StepLine:
    if row["state"] == "done":
        return StepLine(name, "done", row["seconds"])
    if row["state"] == "partial":
        return StepLine(name, "running" if works else "begun", detail=row["detail"], live=report)
    if "key" in row and _refused(name, row, store) is not None:
        return StepLine(name, "MISSED", detail="a gate was missed: so8t status, or the gates below")
    return StepLine(name, row["state"], detail=row["detail"])


def _training(rows: dict[str, dict[str, Any]], home: Path, checked: Checked) -> Training | None:
    """Of the one that works, else of the last that was done."""
    begun = [(name, row) for name, row in rows.items() if name in trainings() and row["state"] in ("partial", "done")]
    if not begun:
        return None
    name, row = next((one for one in begun if one[1]["state"] == "partial"), begun[-1])
    return training_of(home, recoveries.session_of(name, row["key"]), checked)


def _gates(name: str, row: dict[str, Any], store: Store) -> list[dict[str, Any]]:
    """Of a step that is done, or that was refused because of them."""
    if "key" not in row:
        return []
    folder = store.path(_step(name), row["key"]) if row["state"] == "done" else _refused(name, row, store)
    path = folder / "gates.json" if folder else None
    return durable.read_json(path) if path is not None and path.is_file() else []


def _refused(name: str, row: dict[str, Any], store: Store) -> Path | None:
    aside = store.set_aside_of(_step(name), row["key"])
    return aside[-1] if aside and (aside[-1] / "gates.json").is_file() else None


def _file_of(step: str, rows: dict[str, dict[str, Any]], store: Store, name: str) -> Path | None:
    row = rows.get(step)
    if row is None or row["state"] != "done":
        return None
    path = store.path(step, row["key"]) / name
    return path if path.is_file() else None


def _sentences(rows: dict[str, dict[str, Any]]) -> list[str]:
    """What each declared contrast came to."""
    facts = rows.get("benchmark", {}).get("facts", {})
    return [
        f"{row['contrast']}, {row['task']} {row['measure']}: {row['of']} against {row['against']}: {row['sentence']}"
        for row in facts.get("contrasts", [])
        if "sentence" in row
    ]


def _step(name: str) -> str:
    return name.partition("[")[0]
