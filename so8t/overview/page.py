"""The overview as blocks of a page, and the pictures in it."""

from typing import Any

from so8t.benchmark.page import Block
from so8t.overview.gather import Overview, StepLine
from so8t.overview.training import Training
from so8t.overview.words import bar, clock, duration, number, numbers, percent, size

CURVES, FOREST = "curves.png", "forest.png"
RUNNING = "running"
BAR_WIDTH = 20
WORDS = {
    "tokens_per_s": "tokens/s", "cpu_percent": "CPU %", "rss_bytes": "memory", "gpu_percent": "GPU %",
    "gpu_memory_bytes": "GPU memory", "gpu_temperature_c": "GPU degrees C",
}  # fmt: skip


def blocks(seen: Overview, state: str, note: str = "") -> list[Block]:
    """`state` is the run's; `note` is a sentence on how it ended."""
    found = [
        Block("heading", f"Run: {state}"),
        Block("text", f"{_now(seen, state)}. Updated {clock(seen.at)}."),
    ]
    if note:
        found.append(Block("text", note))
    found += [Block("heading", "Steps"), _steps(seen.steps)]
    if seen.training is not None:
        found += _training(seen.training)
    found += _gates(seen.gates)
    if seen.sentences:
        found += [Block("heading", "Benchmark"), Block("list", "", tuple((line,) for line in seen.sentences))]
    if seen.forest is not None:
        found.append(Block("picture", FOREST))
    return [*found, *_recoveries(seen), *_place(seen)]


def pictures(seen: Overview) -> dict[str, bytes]:
    """PNG bytes by the name that a block gives."""
    from so8t.benchmark.plots import training

    curves = training(seen.training.lines) if seen.training is not None else None
    forest = seen.forest.read_bytes() if seen.forest is not None else None
    return {name: data for name, data in ((CURVES, curves), (FOREST, forest)) if data is not None}


def _now(seen: Overview, state: str) -> str:
    share = seen.done / len(seen.steps) if seen.steps else 0.0
    parts = [f"{bar(share, BAR_WIDTH)} {seen.done} of {len(seen.steps)} steps and parts done"]
    for line in seen.running:
        told = line.live
        left = f", about {duration(told.eta_s)} left of {_of(told.message)}" if told and told.eta_s else ""
        parts.append(f"now {line.name} {percent(told.share) if told else ''}{left}".rstrip())
    return "; ".join([*parts, *([str(seen.left)] if seen.left and state == RUNNING else [])])


def _of(message: str) -> str:
    """What a time left is of: a training tells that of its phase, as `ppo 12/33`."""
    return message.partition(" ")[0] if message[-1:].isdigit() else "it"


def _steps(lines: list[StepLine]) -> Block:
    """One row a step; of a step with many parts how many are done, and the parts that are not."""
    rows: list[tuple[str, ...]] = [("step", "state", "", "doing", "time left", "took")]
    for name in dict.fromkeys(line.step for line in lines):
        parts = [line for line in lines if line.step == name]
        if len(parts) > 1:
            done = sum(part.state == "done" for part in parts)
            took = sum(part.seconds or 0.0 for part in parts)
            state = "done" if done == len(parts) else f"{done} of {len(parts)} done"
            rows.append((name, _firm(state), "", "", "", _firm(duration(took)) if took else ""))
            parts = [part for part in parts if part.state not in ("done", "ready", "waiting")]
        rows += [_row(part) for part in parts]
    return Block("table", "", tuple(rows))


def _row(line: StepLine) -> tuple[str, ...]:
    told = line.live
    if told is None:
        return line.name, line.state, "", line.detail, "", _firm(duration(line.seconds))
    shown = _firm(f"`{bar(told.share, BAR_WIDTH // 2)}` {percent(told.share)}") if told.share is not None else ""
    doing = ": ".join(filter(None, (told.message, numbers(told.metrics))))
    return line.name, line.state, shown, doing, _firm(duration(told.eta_s or None)), ""


def _firm(text: str) -> str:
    """Without places where a narrow cell would break it."""
    return text.replace(" ", "\u00a0")


def _training(training: Training) -> list[Block]:
    last = training.lines[-1] if training.lines else {}
    said = [
        f"{training.session}: step {training.step} of {training.total}, phase {training.phase or '-'}, "
        f"attempt {training.attempts}, gone on from a checkpoint {training.resumes} times"
    ]
    if now := training.now():
        said.append("newest " + ", ".join(f"{name} {number(value)}" for name, value in now.items()))
    if measured := {name: last[name] for name in WORDS if last.get(name) is not None}:
        said.append("machine: " + ", ".join(_measured(name, value) for name, value in measured.items()))
    rows: list[tuple[str, ...]] = [("checkpoint", "step", "saved (UTC)", "size", "check", "")]
    rows += [
        (one.name, str(one.step), f"{one.at:%m-%d %H:%M:%S}", size(one.size_bytes), one.verdict,
         " ".join(filter(None, ("newest: the next start goes on from it" if one.newest else "", one.tag))))
        for one in training.saved
    ]  # fmt: skip
    found = [Block("heading", "Training"), Block("list", "", tuple((line,) for line in said))]
    if training.lines:
        found.append(Block("picture", CURVES))
    return [*found, Block("heading", "Checkpoints"), Block("table", "", tuple(rows))]


def _measured(name: str, value: float) -> str:
    word = WORDS[name]
    return f"{word} {size(value)}" if name.endswith("_bytes") else f"{word} {number(value)}"


def _gates(gates: list[dict[str, Any]]) -> list[Block]:
    if not gates:
        return []
    rows = [("gate", "measured", "wanted", "")]
    rows += [
        (gate["name"], number(gate["value"]), f"{gate['sense']} {number(gate['limit'])}",
         "passed" if gate["passed"] else "MISSED")
        for gate in sorted(gates, key=lambda gate: gate["passed"])
    ]  # fmt: skip
    passed = sum(gate["passed"] for gate in gates)
    return [Block("heading", f"Gates: {passed} of {len(gates)} passed"), Block("table", "", tuple(rows))]


def _recoveries(seen: Overview) -> list[Block]:
    found = [Block("heading", "Recoveries")]
    rows: list[tuple[str, ...]]
    if not seen.recoveries:
        found.append(Block("text", "None: nothing went wrong that had to be recovered from."))
    else:
        rows = [("when (UTC)", "step", "fault", "what was done", "detail", "outcome")]
        rows += [(r.at[:19].replace("T", " "), r.step, r.fault, r.policy, r.detail, r.outcome) for r in seen.recoveries]
        found.append(Block("table", "", tuple(rows)))
    if seen.overrides:
        rows = [("session", "setting", "now")]
        rows += [
            (name, key, number(value)) for name, changed in seen.overrides.items() for key, value in changed.items()
        ]
        found += [
            Block("heading", "Settings that recovery changed for these steps alone, never in your config"),
            Block("table", "", tuple(rows)),
        ]
    return found


def _place(seen: Overview) -> list[Block]:
    lines = [f"home {seen.home}, {size(seen.free_bytes)} free on its disk"]
    if seen.damaged:
        lines.append(f"set aside as damaged: {', '.join(seen.damaged)}")
    return [Block("heading", "Machine"), Block("list", "", tuple((line,) for line in lines))]
