"""Joins the cells: the declared contrasts, a report and its pictures.

results.json  report.md  report.html  *.png   from the cells' answers alone
speed.json, speed.md   timings and memory of the cells (volatile)
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from so8t import durable, records
from so8t.benchmark import classification as c
from so8t.benchmark import contamination, page, plots, report
from so8t.benchmark.answers import read_jsonl
from so8t.benchmark.config import Benchmark
from so8t.benchmark.contrasts import Answers, Row, compute
from so8t.benchmark.items import View, read_rows
from so8t.benchmark.ranking import rank
from so8t.benchmark.summary import GRADES, Answer, check_identical, summarise
from so8t.benchmark.task import Harness, Probe, Rate, TaskFile, load_task
from so8t.errors import StepFailed
from so8t.progress import Progress
from so8t.step import Facts, Inputs

PLOTTED_SYSTEMS_MAX = 6


def run(config: Benchmark, inputs: Inputs, out: Path, progress: Progress) -> Facts:
    """Compare the systems; StepFailed if they were not asked the very same, or if nothing was answered."""
    tasks: dict[str, TaskFile] = {name: load_task(name) for name in config.tasks}
    answers = read_cells(config, inputs)
    steps = 3
    progress.update(0, steps, "comparing")
    for name, by_system in answers.items():
        check_identical(name, by_system)
    judged = take_grades(config, inputs, answers)
    results: dict[str, Any] = {
        "tasks": {
            name: {system: summarise(config, tasks[name], lines) for system, lines in by_system.items()}
            for name, by_system in answers.items()
        },
        "contrasts": compute(config, tasks, answers),
        "rankings": {name: ranked(config, tasks[name], by_system) for name, by_system in answers.items()},
        "replies": free_replies(read_lines(config, inputs, "replies.jsonl")),
        "choices": {name: list(task.names) for name, task in tasks.items()},
        "task_versions": {name: task.version for name, task in tasks.items()},
        "judge": judged,
        "questions": {name: provenance(tasks[name], inputs, name, answers[name]) for name in config.tasks},
        "errors": {
            name: {system: sum(line["status"] != "ok" for line in lines) for system, lines in by_system.items()}
            for name, by_system in answers.items()
        },
        "complete": all(line["status"] == "ok" for by in answers.values() for lines in by.values() for line in lines),
        "cells": {role: a.content for role, a in sorted(inputs.items()) if role.startswith(("cell.", "judged."))},
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
    durable.write_text(out / "report.md", page.markdown(content))
    durable.write_text(out / "report.html", page.page(content, pictures))
    speed = {
        role.removeprefix("cell."): a.manifest.facts for role, a in sorted(inputs.items()) if role.startswith("cell.")
    }
    durable.write_json(out / "speed.json", speed)
    durable.write_text(out / "speed.md", page.markdown(report.speeds(speed)))
    progress.update(steps, steps, "done")
    return headline(results)


def take_grades(config: Benchmark, inputs: Inputs, answers: Answers) -> dict[str, Any]:
    """Put the judge's grades into the lines; a reply without one is an error. Give who judged, and how steadily."""
    if not config.rated() or not config.judge:
        return {}
    pairs: list[tuple[int, int]] = []
    for name in config.rated():
        for system, lines in answers[name].items():
            grades = {line["id"]: line for line in read_jsonl(inputs[f"judged.{system}:{name}"].path / "grades.jsonl")}
            pairs += [(line["grade"], line["again"]) for line in grades.values() if "again" in line]
            for line in lines:
                if line["status"] != "ok":
                    continue
                found = grades[line["id"]]
                if found["status"] == "ok":
                    line["grade"] = found["grade"]
                else:
                    line |= {"status": "error", "error": found["error"]}
    judge = config.judge.pinned()
    kappa = None
    if pairs:
        first, second = zip(*pairs, strict=True)
        kappa = c.quadratic_kappa(c.confusion([g - 1 for g in first], [g - 1 for g in second], len(GRADES)))
    return {"label": judge.label, "kind": judge.kind, "repeated": len(pairs), "quadratic_kappa": kappa}


def ranked(config: Benchmark, task: TaskFile, by_system: dict[str, list[Answer]]) -> dict[str, Any]:
    """Average ranks of all systems; only with full paired coverage."""
    systems = list(by_system)
    if len(systems) < 3:
        return {"why_not": "fewer than three systems"}
    if any(line["status"] != "ok" for lines in by_system.values() for line in lines):
        return {"why_not": "incomplete: not every system answered every item"}
    if isinstance(task, Rate) and not all("grade" in line for lines in by_system.values() for line in lines):
        return {"why_not": f"no judge, so no {task.score}"}
    scores = [
        [float(line["grade"] if isinstance(task, Rate) else line["truth"] == line["predicted"]) for line in lines]
        for lines in by_system.values()
    ]
    return {"systems": systems, **asdict(rank(np.array(scores).T, config.alpha))}


def provenance(task: TaskFile, inputs: Inputs, name: str, by_system: dict[str, list[Answer]]) -> dict[str, Any]:
    """Where a task's questions are from, under which licence, and how many the training split holds."""
    if isinstance(task, Probe):
        return {"origin": "the pipeline's own test split", "revision": inputs["data"].content}
    if isinstance(task, Harness):
        return {"origin": "brought by lm-evaluation-harness", "contamination": "not checked"}
    source = durable.read_json(inputs[f"questions.{name}"].path / "source.json")
    asked, view = {line["id"] for line in next(iter(by_system.values()))}, View(task)
    texts = {
        item_id: view.prompt(item_id, row)
        for item_id, row in read_rows(inputs[f"questions.{name}"].path)
        if item_id in asked
    }
    found = contamination.check(texts, records.iterate(inputs["data"].path / "train.parquet"))
    return {**source, "contamination": found}


def read_cells(config: Benchmark, inputs: Inputs) -> Answers:
    """Answers by task and system; StepFailed where a task has none at all."""
    answers = read_lines(config, inputs, "answers.jsonl")
    for name, by_system in answers.items():
        if not any(line["status"] == "ok" for lines in by_system.values() for line in lines):
            raise StepFailed(f"{name}: no system answered any item; there is nothing to report")
    return answers


def read_lines(config: Benchmark, inputs: Inputs, file: str) -> Answers:
    """A file of every cell by task and system, in the order A, its files, B, C-F16, the quantized ones."""
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
    for unit, name in (("points", "forest.png"), ("grade", "forest_grades.png")):
        rows = [row for row in results["contrasts"] if "interval" in row and row.get("unit", "points") == unit]
        if rows:
            pictures[name] = plots.forest(rows, unit)
    for name, task in tasks.items():
        found = dict(list(results["tasks"][name].items())[:PLOTTED_SYSTEMS_MAX])
        matrices = {system: r["confusion"] for system, r in found.items() if "confusion" in r}
        if matrices:
            pictures[f"confusion_{name}.png"] = plots.confusions(name, task.names, matrices)
        curves = {system: r["reliability"] for system, r in found.items() if "reliability" in r}
        if curves:
            pictures[f"calibration_{name}.png"] = plots.calibration(curves, f"calibration: {name}")
    curve = plots.training(read_jsonl(history)) if history.is_file() else None
    if curve is not None:
        pictures["training.png"] = curve
    return pictures


def headline(results: dict[str, Any]) -> Facts:
    """The few numbers that the manifest and the model card show."""
    return {
        "complete": results["complete"],
        "errors": results["errors"],
        "scores": {
            task: {
                system: {name: r[name] for name in ("n", "errors", "accuracy", "macro_f1", "rating") if name in r}
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
