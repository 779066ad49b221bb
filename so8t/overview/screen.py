"""The overview on a terminal, fitted to its width and height."""

import os
from datetime import UTC, datetime

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from so8t.overview.gather import Overview, StepLine
from so8t.overview.training import VERIFIED, Training
from so8t.overview.words import bar, duration, number, numbers, percent, size, sparkline

# Below it what a step is doing has no room.
MIDDLE = 64
# Widths of the state, and of a bar with its share without and with room.
STATE, BESIDE = 7, (11, 17)
SHOWN_RECOVERIES = 3
STYLES = {
    "done": "green",
    "running": "bold cyan",
    "MISSED": "bold red",
    "begun": "yellow",
    "waiting": "dim",
    "ready": "dim",
}
LABEL_WIDTH, VALUE_WIDTH = 12, 10


def screen(seen: Overview, console: Console, *, plain: bool) -> RenderableType:
    """All of it; `plain` takes only characters that an old console has."""
    width, height = console.size
    below = [*_training(seen.training, width, plain), *_rest(seen)]
    room = max(4, height - len(below) - 4 - (seen.left is not None))
    head = [_line(f"{_state(seen)}  {bar(seen.done / max(1, len(seen.steps)), 20, plain=plain)} "
                  f"{seen.done}/{len(seen.steps)}  {datetime.now(UTC):%H:%M:%S} UTC", "bold")]  # fmt: skip
    if seen.left is not None:
        head.append(_line(str(seen.left)))
    return Group(*head, _steps(seen.steps, width, room, plain), *below)


def plain_line(seen: Overview) -> str:
    """What is under way in one line, for a log or a pipe; the same line while nothing changes."""
    parts = [f"{_state(seen)} {seen.done}/{len(seen.steps)}"]
    for line in seen.running:
        told = line.live
        if told is None:
            parts.append(line.name)
            continue
        left = f"about {duration(told.eta_s)} left" if told.eta_s else ""
        parts.append(
            " ".join(filter(None, (line.name, percent(told.share), told.message, numbers(told.metrics), left)))
        )
    if seen.left is not None:
        parts.append(str(seen.left))
    if seen.recoveries:
        parts.append(f"recoveries {len(seen.recoveries)}")
    return "; ".join(parts)


def _state(seen: Overview) -> str:
    states = {run["state"] for run in seen.runs}
    if "running" in states:
        return "running"
    if "interrupted" in states:
        return "interrupted"
    return "completed" if seen.steps and seen.done == len(seen.steps) else seen.last or "nothing has run yet"


def _steps(lines: list[StepLine], width: int, room: int, plain: bool) -> Table:
    wide = width >= MIDDLE
    name = min(max((len(line.name) for line in lines), default=0), 28 if wide else width - STATE - BESIDE[wide] - 3)
    widths = [name, STATE, BESIDE[wide], *([width - name - STATE - BESIDE[wide] - 4] if wide else [])]
    table = Table(box=None, show_header=False, padding=(0, 1, 0, 0))
    for column in widths:
        table.add_column(no_wrap=True, overflow="ellipsis", width=column)
    for cells in _fitted(_grouped(lines, plain, width), room):
        table.add_row(*cells[: len(widths)])
    return table


Row = tuple[Text, Text, Text, Text]


def _grouped(lines: list[StepLine], plain: bool, width: int) -> list[tuple[str, Row]]:
    """State and row of every step; a step with many parts has one row, and one for each part that works."""
    rows = []
    for name in dict.fromkeys(line.step for line in lines):
        parts = [line for line in lines if line.step == name]
        if len(parts) > 1:
            done = sum(part.state == "done" for part in parts)
            took = duration(sum(part.seconds or 0.0 for part in parts)) if done else ""
            state = "done" if done == len(parts) else "waiting" if not done else "begun"
            rows.append((state, _row(name, state, f"{done}/{len(parts)}", took)))
            parts = [part for part in parts if part.state not in ("done", "ready", "waiting")]
        for part in parts:
            told = part.live
            shown = (
                bar(told.share, 12 if width >= MIDDLE else 6, plain=plain) if told and told.share is not None else ""
            )
            beside = f"{shown} {percent(told.share)}".strip() if told else ""
            doing = part.detail if part.state not in ("done", "running") else duration(part.seconds)
            if told:
                left = f"about {duration(told.eta_s)} left" if told.eta_s else ""
                doing = "  ".join(filter(None, (left, told.message, numbers(told.metrics))))
            rows.append((part.state, _row(part.name, part.state, beside, doing)))
    return rows


def _row(name: str, state: str, beside: str, doing: str) -> Row:
    return Text(name), Text(state, style=STYLES.get(state, "")), Text(beside), Text(doing, style="dim")


def _fitted(rows: list[tuple[str, Row]], room: int) -> list[Row]:
    """At most `room` rows: first what is done goes into one line, then what waits."""
    for states, word in ((("done",), "done"), (("ready", "waiting"), "to come")):
        if len(rows) <= room:
            break
        gone = [state for state, _ in rows if state in states]
        if len(gone) > 1:
            one = (states[0], _row(f"{len(gone)} steps", word, "", ""))
            at = next(index for index, (state, _) in enumerate(rows) if state in states)
            rows = [*rows[:at], one, *(row for row in rows[at:] if row[0] not in states)]
    return [cells for _, cells in rows[:room]]


def _training(training: Training | None, width: int, plain: bool) -> list[RenderableType]:
    if training is None:
        return []
    found: list[RenderableType] = [
        _line(
            f"{training.session}  step {training.step}/{training.total}  {training.phase}  attempt {training.attempts}",
            "bold",
        )
    ]
    room = max(8, min(60, width - LABEL_WIDTH - VALUE_WIDTH - 2))
    for name, value in training.now().items():
        course = sparkline(training.series(name), room, plain=plain)
        found.append(_line(f"  {name:<{LABEL_WIDTH - 2}}{number(value):>{VALUE_WIDTH}}  {course}"))
    newest = next((one for one in training.saved if one.newest), None)
    if newest is not None:
        age = duration((datetime.now(UTC) - newest.at).total_seconds())
        found.append(_line(f"  checkpoint {newest.name}, {age} old, {size(newest.size_bytes)}, {newest.verdict}, "
                           f"{len(training.saved)} kept"))  # fmt: skip
    found += [
        _line(f"  {one.name}: {one.verdict}", "red") for one in training.saved if "DAMAGED" in one.verdict != VERIFIED
    ]
    return found


def _rest(seen: Overview) -> list[RenderableType]:
    missed = [gate for gate in seen.gates if not gate["passed"]]
    found = [_line(f"gates {len(seen.gates) - len(missed)} of {len(seen.gates)} passed")] if seen.gates else []
    found += [
        _line(f"  MISSED {g['name']}: {number(g['value'])}, wanted {g['sense']} {number(g['limit'])}", "red")
        for g in missed
    ]
    found += [
        _line(f"changed by recovery: {name} = {number(value)} ({session[:18]})", "yellow")
        for session, changed in seen.overrides.items()
        for name, value in changed.items()
    ]
    if seen.recoveries:
        found.append(_line(f"recoveries {len(seen.recoveries)}", "yellow"))
        found += [
            _line(f"  {r.at[11:19]} {r.step}: {r.fault}: {r.policy}: {r.outcome or r.detail}")
            for r in seen.recoveries[-SHOWN_RECOVERIES:]
        ]
    found.append(_line(f"disk {size(seen.free_bytes)} free  home {seen.home}"))
    if seen.damaged:
        found.append(_line(f"set aside as damaged: {', '.join(seen.damaged)}", "yellow"))
    return list(found)


def _line(text: str, style: str = "") -> Text:
    return Text(text, style=style, no_wrap=True, overflow="ellipsis")


def is_plain(console: Console, encoding: str) -> bool:
    """Whether block characters would be lost: an old Windows console, or a locale that is not UTF-8 such as cp932."""
    modern = os.environ.get("WT_SESSION") is not None
    return console.legacy_windows or (encoding.lower().replace("-", "") != "utf8" and not modern)
