"""Joins the cells: the declared contrasts, a report and its pictures.

results.json  report.md  report.html  *.png   from the cells' answers alone
speed.json    timings and memory of the cells (volatile)
"""

from pathlib import Path
from typing import Any

from so8t import durable
from so8t.benchmark import plots, report
from so8t.benchmark.cell import read_jsonl
from so8t.benchmark.config import Benchmark
from so8t.benchmark.contrasts import Answers, Row, compute
from so8t.benchmark.summary import check_identical, summarise
from so8t.benchmark.task import TaskFile, load_task
from so8t.errors import StepFailed
from so8t.progress import Progress
from so8t.step import Facts, Inputs

PLOTTED_SYSTEMS_MAX = 5


def run(config: Benchmark, inputs: Inputs, out: Path, progress: Progress) -> Facts:
    """Compare the systems; StepFailed if they were not asked the very same, or if nothing was answered."""
    tasks: dict[str, TaskFile] = {name: load_task(name) for name in config.tasks}
    answers = read_cells(config, inputs)
    steps = 3
    progress.update(0, steps, "comparing")
    for name, by_system in answers.items():
        check_identical(name, by_system)
    contrasts = compute(config, tasks, answers)
    results: dict[str, Any] = {
        "tasks": {
            name: {system: summarise(config, tasks[name], lines) for system, lines in by_system.items()}
            for name, by_system in answers.items()
        },
        "contrasts": contrasts,
        "replies": free_replies(read_lines(config, inputs, "replies.jsonl")),
        "choices": {name: [choice.name for choice in task.choices] for name, task in tasks.items()},
        "task_versions": {name: task.version for name, task in tasks.items()},
        "complete": all(line["status"] == "ok" for by in answers.values() for lines in by.values() for line in lines),
        "cells": {role: artifact.content for role, artifact in sorted(inputs.items()) if role.startswith("cell.")},
        "bake": inputs["bake"].content,
        "train": inputs["train"].content,
        "alpha": config.alpha,
        "resamples": config.resamples,
        "seed": config.seed,
    }
    durable.write_json(out / "results.json", results)
    progress.update(1, steps, "drawing")
    pictures = draw(results, tasks, inputs["train"].path / "history.jsonl")
    for name, data in pictures.items():
        durable.write_bytes(out / name, data)
    progress.update(2, steps, "writing the report")
    content = report.blocks(results, tasks, list(pictures))
    durable.write_text(out / "report.md", report.markdown(content))
    durable.write_text(out / "report.html", report.page(content, pictures))
    speed = {
        role.removeprefix("cell."): a.manifest.facts for role, a in sorted(inputs.items()) if role.startswith("cell.")
    }
    durable.write_json(out / "speed.json", speed)
    progress.update(steps, steps, "done")
    return headline(results)


def read_cells(config: Benchmark, inputs: Inputs) -> Answers:
    """Answers by task and system; StepFailed where a task has none at all."""
    answers = read_lines(config, inputs, "answers.jsonl")
    for name, by_system in answers.items():
        if not any(line["status"] == "ok" for lines in by_system.values() for line in lines):
            raise StepFailed(f"{name}: no system answered any item; there is nothing to report")
    return answers


def read_lines(config: Benchmark, inputs: Inputs, file: str) -> Answers:
    """A file of every cell by task and system, in the order A, B, C-F16, the quantized ones."""
    found: Answers = {name: {} for name in config.tasks}
    cells = [role.removeprefix("cell.").partition(":") for role in inputs if role.startswith("cell.")]
    for system, _, task in sorted(cells, key=lambda cell: (cell[0].startswith("C-"), cell[0] != "C-F16", cell)):
        found[task][system] = read_jsonl(inputs[f"cell.{system}:{task}"].path / file)
    return found


def free_replies(lines: Answers) -> list[dict[str, Any]]:
    """How many full replies are well-formed, and how many have the very tokens of system B's."""
    return [
        {
            "task": task,
            "system": system,
            "n": len(replies),
            "well_formed": sum(reply["well_formed"] for reply in replies),
            "same_as_B": sum(
                reply["ids"] == other["ids"] for reply, other in zip(replies, by_system.get("B", []), strict=False)
            ),
        }
        for task, by_system in lines.items()
        for system, replies in by_system.items()
    ]


def draw(results: dict[str, Any], tasks: dict[str, TaskFile], history: Path) -> dict[str, bytes]:
    """Every picture by file name."""
    pictures: dict[str, bytes] = {}
    if any("interval" in row for row in results["contrasts"]):
        pictures["forest.png"] = plots.forest(results["contrasts"])
    for name, task in tasks.items():
        found = {system: r for system, r in results["tasks"][name].items() if "confusion" in r}
        some = dict(list(found.items())[:PLOTTED_SYSTEMS_MAX])
        if some:
            names = [choice.name for choice in task.choices]
            matrices = {system: r["confusion"] for system, r in some.items()}
            pictures[f"confusion_{name}.png"] = plots.confusions(name, names, matrices)
            curves = {system: r["reliability"] for system, r in some.items()}
            pictures[f"calibration_{name}.png"] = plots.calibration(curves, f"calibration: {name}")
    curve = plots.training(read_jsonl(history)) if history.is_file() else None
    if curve is not None:
        pictures["training.png"] = curve
    return pictures


def headline(results: dict[str, Any]) -> Facts:
    """The few numbers that the manifest and the model card show."""
    return {
        "complete": results["complete"],
        "scores": {
            task: {
                system: {name: r.get(name) for name in ("n", "errors", "accuracy", "macro_f1")}
                for system, r in systems.items()
            }
            for task, systems in results["tasks"].items()
        },
        "replies": results["replies"],
        "contrasts": [_short(row) for row in results["contrasts"]],
    }


def _short(row: Row) -> Row:
    names = (
        "contrast",
        "test",
        "task",
        "measure",
        "of",
        "against",
        "n",
        "difference",
        "interval",
        "p",
        "p_holm",
        "verdict",
        "sentence",
    )
    return {name: row[name] for name in names if name in row}
