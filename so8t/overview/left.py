"""How long the rest of a run will take: by how long the same steps took in earlier runs of this home, nothing else.

What was measured counts only where the base, the sources and the step's own settings are the same, and where the step
was not stopped in between. A step without such a measurement is named; then the whole is not known yet.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from so8t import durable, recoveries
from so8t.artifacts import MANIFEST, Store, hash_json
from so8t.config import Config
from so8t.errors import InputError
from so8t.overview import asked
from so8t.overview.live import Live
from so8t.overview.words import duration
from so8t.session import read, sessions
from so8t.step import Ref, steps, trainings

# Of these sections the amount of work depends in every step.
SCALE = ("base", "collect")
NAMED = 3

Kind = tuple[str, str]  # a step and the hash of its section
Span = tuple[float, float]  # Unix times


@dataclass(frozen=True)
class Left:
    """`seconds` of what can be told; the steps and parts in `unknown` come on top of it."""

    seconds: float
    unknown: tuple[str, ...] = ()

    def __str__(self) -> str:
        """`about 12 min 05 s left of the run`, or that it is not known yet and why."""
        about = f"about {duration(self.seconds)}"
        if not self.unknown:
            return f"{about} left of the run"
        least = f", at least {about}" if self.seconds else ""
        more = f" and {len(self.unknown) - NAMED} more" if len(self.unknown) > NAMED else ""
        return (
            f"time left of the run not known yet{least}: {', '.join(self.unknown[:NAMED])}{more} not timed here so far"
        )


def left_of(config: Config, store: Store, rows: Mapping[str, dict[str, Any]], reports: Mapping[str, Live]) -> Left:
    """Of a run that works; `rows` are the survey's, `reports` the steps' newest."""
    timed = _timed(config, store)
    at_once, later, unknown = [0.0], [], []
    for ref in _ahead(config, rows, timed):
        name, span = str(ref), timed.get(_kind(ref, config))
        begun = reports.get(name) if rows.get(name, {}).get("state") == "partial" else None
        if span is None:
            unknown.append(name)
            at_once.append((begun.eta_s if begun else None) or 0.0)
        elif begun is not None:
            at_once.append(_of_begun(ref, span[1] - span[0], begun))
        else:
            later.append(span)
    return Left(max(at_once) + _together(later), tuple(unknown))


def _ahead(config: Config, rows: Mapping[str, dict[str, Any]], timed: Mapping[Kind, Span]) -> Iterator[Ref]:
    """What is not done; of a counted step whose parts nobody knows yet, as many parts as were measured."""
    for name, row in rows.items():
        if row["state"] != "done":
            of, _, part = name.partition("[")
            yield Ref(of, part.removesuffix("]"))
    for step in steps().values():
        if not step.fan or rows.get(step.name, {}).get("state", "done") == "done":
            continue
        counted = step.fan[1]
        if not any(name.startswith(f"{counted}[") for name in rows):
            yield Ref(counted, "0")
            number = 1
            while _kind(ref := Ref(counted, str(number)), config) in timed:
                yield ref
                number += 1


def _of_begun(ref: Ref, took_s: float, begun: Live) -> float:
    """A training goes on from its last step, any other step was begun at its first report."""
    if ref.step in trainings():
        return took_s * (1.0 - (begun.share or 0.0))
    return max(0.0, took_s - (begun.at - begun.since))


def _together(spans: Iterable[Span]) -> float:
    """Seconds in which at least one of them was worked on: parts that ran at once count once."""
    total, end = 0.0, float("-inf")
    for began, ended in sorted(spans):
        total += max(0.0, ended - max(began, end))
        end = max(end, ended)
    return total


def _timed(config: Config, store: Store) -> dict[Kind, Span]:
    """The newest measurement of each kind of work."""
    scale = {name: config.model_dump(mode="json", include={name})[name] for name in SCALE}
    found: dict[Kind, Span] = {}
    for session in sessions(store.home):
        wanted = store.home / "sessions" / session.session_id / asked.FILE
        if session.kind != "run" or not wanted.is_file():
            continue
        then = _whole(wanted)
        if any(then.get(name) != value for name, value in scale.items()):
            continue
        for name in session.artifacts:
            step, _, key = name.partition("/")
            manifest = store.path(step, key) / MANIFEST
            measured = _measured(store.home, manifest, manifest.stat().st_mtime_ns) if manifest.is_file() else None
            if measured is not None and measured[1][1] > found.get(measured[0], (0.0, 0.0))[1]:
                found[measured[0]] = measured[1]
    return found


@lru_cache(maxsize=4096)
def _measured(home: Path, manifest: Path, written_ns: int) -> tuple[Kind, Span] | None:
    """When an artifact was made, from the beginning to the end; None where it was stopped in between."""
    if not (told := _whole(manifest)):
        return None
    session = read(home / "sessions" / recoveries.session_of(told["step"], told["key"]))
    if session is not None and session.attempts > 1:
        return None
    began, ended = (datetime.fromisoformat(told[name]).timestamp() for name in ("started_at", "finished_at"))
    return (told["step"], hash_json(told["config"])), (began, ended)


def _whole(path: Path) -> dict[str, Any]:
    """A JSON object; nothing where the disk has damaged it, which `so8t verify` tells of."""
    try:
        told: dict[str, Any] = durable.read_json(path)
    except ValueError:
        return {}
    return told


def _kind(ref: Ref, config: Config) -> Kind:
    try:
        return ref.step, hash_json(steps()[ref.step].section(config, ref.part).model_dump(mode="json"))
    except InputError:
        return ref.step, ""  # a file of the user's own that is not there
