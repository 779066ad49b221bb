"""The declared contrasts, computed. Each row says what was to be shown and whether it was.

Superiority is corrected by Holm over the rows of one contrast. Equivalence and non-inferiority
rows need no correction for the claim "every row holds" (intersection-union, Berger 1982).
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from so8t.benchmark import classification as c
from so8t.benchmark import ratings
from so8t.benchmark import statistics as s
from so8t.benchmark.config import Benchmark, Contrast
from so8t.benchmark.statistics import proportion
from so8t.benchmark.summary import RATES, Answer
from so8t.benchmark.task import Rate, TaskFile
from so8t.errors import ConfigError

Answers = dict[str, dict[str, list[Answer]]]  # task -> system -> answers by id
Row = dict[str, Any]
ANY_QUANTIZED = "C-*"
SAME_TYPE = "A-*"


def compute(config: Benchmark, tasks: dict[str, TaskFile], answers: Answers) -> list[Row]:
    """Every row of every declared contrast; ConfigError where one names a system that does not exist."""
    rows = []
    for contrast in config.contrasts:
        family = [
            row
            for name in contrast.tasks or config.tasks
            for of, against in resolve(contrast, sorted(answers[name]))
            for row in _rows(config, contrast, tasks[name], of, against, answers[name])
        ]
        if contrast.test == "superiority":
            _correct(config, family)
        rows.extend(family)
    return rows


def resolve(contrast: Contrast, systems: Sequence[str]) -> list[tuple[str, str]]:
    """The pairs of systems that a contrast is about."""
    for wanted in {contrast.of, contrast.against} - {ANY_QUANTIZED, SAME_TYPE}:
        if wanted not in systems:
            raise ConfigError(
                f"the contrast {contrast.name!r} names the system {wanted!r}",
                f"one of {', '.join(systems)}, or {ANY_QUANTIZED} for `of` and {SAME_TYPE} for `against`",
            )
    several = [system for system in systems if system.startswith("C-") and system != "C-F16"]
    firsts = several if contrast.of == ANY_QUANTIZED else [contrast.of]
    if contrast.against != SAME_TYPE:
        return [(first, contrast.against) for first in firsts]
    pairs = [(first, f"A-{first.removeprefix('C-')}") for first in firsts if first.startswith("C-")]
    found = [(first, base) for first, base in pairs if base in systems]
    if firsts and not found:
        raise ConfigError(
            f"the contrast {contrast.name!r} compares {contrast.of} with {SAME_TYPE}, and no type has both",
            "a type in benchmark.base_types that bake.quantizations has too",
        )
    return found


def _rows(
    config: Benchmark, contrast: Contrast, task: TaskFile, of: str, against: str, by_system: dict[str, list[Answer]]
) -> list[Row]:
    first, second = by_system[of], by_system[against]
    head: Row = {
        "contrast": contrast.name,
        "test": contrast.test,
        "task": task.name,
        "of": of,
        "against": against,
    }
    errors = sum(a["status"] != "ok" or b["status"] != "ok" for a, b in zip(first, second, strict=True))
    if errors:
        sentence = f"incomplete: {errors} of {len(first)} items lack an answer of one system; nothing is ranked"
        return [{**head, "measure": task.metric, "n": len(first), "verdict": "incomplete", "sentence": sentence}]
    if isinstance(task, Rate):
        return [{**head, "unit": "grade", **_rated(config, contrast, task, first, second)}]
    if contrast.test == "superiority":
        return [{**head, **_superiority(config, task, first, second)}]
    rows = [{**head, **_margin(config, contrast, "accuracy", first, second, _right)}]
    if task.truth == "label" and contrast.test == "non_inferiority":
        rows += [
            {**head, **_margin(config, contrast, f"free of {name}", *_among(first, second, name), _clean(name))}
            for name in ("over_refusal", "under_blocking")
        ]
    return rows


def _rated(config: Benchmark, contrast: Contrast, task: Rate, first: Sequence[Answer], second: Sequence[Answer]) -> Row:
    if not all("grade" in a for a in (*first, *second)):
        sentence = f"not scored: without a judge there is no {task.score}"
        return {"measure": "rating", "n": len(first), "verdict": "not scored", "sentence": sentence}
    one, other = ([float(a["grade"]) for a in side] for side in (first, second))
    found = ratings.compare(one, other, config.resamples, config.seed, config.alpha, config.power)
    row: Row = {"measure": "rating", **asdict(found)}
    if contrast.test == "superiority":
        return {**row, "method": "paired sign flips; BCa interval over items; Wilcoxon-Pratt beside it"}
    test = ratings.equivalence if contrast.test == "equivalence" else ratings.non_inferiority
    result = test(one, other, contrast.rating_margin, config.alpha)
    tails = 2 if contrast.test == "equivalence" else 1
    reachable = ratings.reachable_margin(np.subtract(one, other), tails, config.alpha, config.power)
    return {
        **row,
        "interval": asdict(result.interval),
        "margin": contrast.rating_margin,
        "p": result.p,
        "reachable_margin": reachable,
        "verdict": "shown" if result.shown else "not shown",
        "sentence": _margin_sentence(config, contrast, result, len(one), reachable, "grade"),
        "method": "one-sided paired t tests (Schuirmann 1987)",
    }


def _right(answer: Answer) -> bool:
    return bool(answer["truth"] == answer["predicted"])


def _among(first: Sequence[Answer], second: Sequence[Answer], name: str) -> tuple[list[Answer], list[Answer]]:
    """The items whose truth a rate is about."""
    truths = {label.name for label in RATES[name][0]}
    return [a for a in first if a["truth"] in truths], [b for b in second if b["truth"] in truths]


def _clean(name: str) -> Callable[[Answer], bool]:
    """Success is to be free of the fault that a rate counts."""
    faults = {label.name for label in RATES[name][1]}
    return lambda answer: answer["predicted"] not in faults


def _superiority(config: Benchmark, task: TaskFile, first: Sequence[Answer], second: Sequence[Answer]) -> Row:
    table = s.paired_table([_right(a) for a in first], [_right(b) for b in second])
    row: Row = {"measure": task.metric, "n": table.n, "table": asdict(table), "accuracy_difference": table.difference}
    p1, p2 = (table.n11 + table.n10) / table.n, (table.n11 + table.n01) / table.n
    row |= {"cohens_h": s.cohens_h(p1, p2), "mcnemar_p": s.mcnemar_exact(table)}
    if task.metric == "accuracy":
        interval = s.paired_interval(table, config.resamples, config.seed, 1 - config.alpha)
        discordance = s.wilson(table.discordant, table.n).high
        mde = s.mde_mcnemar(table.n, discordance, config.alpha, config.power)
        values = {"first": p1, "second": p2, "difference": table.difference, "p": row["mcnemar_p"], "mde": mde}
        return {**row, **values, "interval": asdict(interval), "method": "exact McNemar; BCa interval over items"}
    names = task.names
    truth, one, other = (
        [names.index(a[field]) for a in side]
        for field, side in (("truth", first), ("predicted", first), ("predicted", second))
    )
    joint = c.joint_table(truth, one, other, len(names))
    score = c.paired_macro_f1(joint, config.resamples, config.seed, 1 - config.alpha)
    # Without any differing answer the bootstrap has no spread; the accuracy's effect bounds what could be seen.
    mde = s.mde_normal(score.standard_error, config.alpha, config.power)
    if mde == 0:
        mde = s.mde_mcnemar(table.n, s.wilson(table.discordant, table.n).high, config.alpha, config.power)
    values = {"first": score.first, "second": score.second, "difference": score.difference, "p": score.p, "mde": mde}
    return {
        **row,
        **values,
        "interval": asdict(score.interval),
        "method": "paired permutation; stratified BCa interval",
    }


def _margin(
    config: Benchmark,
    contrast: Contrast,
    measure: str,
    first: Sequence[Answer],
    second: Sequence[Answer],
    success: Callable[[Answer], bool],
) -> Row:
    if not first:
        return {
            "measure": measure,
            "n": 0,
            "verdict": "incomplete",
            "sentence": "no item of this kind in the test split",
        }
    table = s.paired_table([success(a) for a in first], [success(b) for b in second])
    test = s.equivalence if contrast.test == "equivalence" else s.non_inferiority
    found = test(table, contrast.margin, config.alpha)
    same = sum(a["predicted"] == b["predicted"] for a, b in zip(first, second, strict=True))
    tails = 2 if contrast.test == "equivalence" else 1
    discordance = s.wilson(table.discordant, table.n).high
    reachable = s.reachable_margin(table.n, discordance, tails, config.alpha, config.power)
    return {
        "measure": measure,
        "n": table.n,
        "table": asdict(table),
        "first": (table.n11 + table.n10) / table.n,
        "second": (table.n11 + table.n01) / table.n,
        "difference": found.difference,
        "interval": asdict(found.interval),
        "margin": contrast.margin,
        "p": found.p,
        "agreement": proportion(same, len(first)),
        "reachable_margin": reachable,
        "verdict": "shown" if found.shown else "not shown",
        "sentence": _margin_sentence(config, contrast, found, table.n, reachable),
        "method": "score test and interval of the paired difference (Tango 1998)",
    }


def _margin_sentence(
    config: Benchmark, contrast: Contrast, found: s.MarginTest, n: int, reachable: float, unit: str = "points"
) -> str:
    words = "equivalent" if contrast.test == "equivalence" else "not inferior"
    level = round(100 * found.interval.level)
    span = f"{level} % interval {amount(found.interval.low, unit)} to {amount(found.interval.high, unit)} {NAMES[unit]}"
    within = f"within {size(found.margin, unit)} {NAMES[unit]} ({span})"
    if found.shown:
        return f"{words} {within}"
    return (
        f"not shown to be {words} {within}; with {n} items truly equal systems would be shown within "
        f"{size(reachable, unit)} {NAMES[unit]} with {100 * config.power:g} % power"
    )


NAMES = {"points": "points", "grade": "grade points"}


def amount(value: float, unit: str) -> str:
    """A difference with its sign: shares in points of a hundred, grades as they are."""
    return f"{value:+.2f}" if unit == "grade" else f"{100 * value:+.1f}"


def size(value: float, unit: str) -> str:
    """The same without a sign."""
    return f"{value:.2f}" if unit == "grade" else f"{100 * value:.1f}"


def _correct(config: Benchmark, family: list[Row]) -> None:
    """Holm over the complete rows of one contrast, then the verdicts."""
    tested = [row for row in family if "p" in row]
    for row, p in zip(tested, s.holm([row["p"] for row in tested]), strict=True):
        row["p_holm"] = p
        row["family"] = len(tested)
        unit = row.get("unit", "points")
        if p < config.alpha and row["difference"] != 0:
            row["verdict"] = "better" if row["difference"] > 0 else "worse"
            by = f"{row['verdict']} by {size(abs(row['difference']), unit)} {NAMES[unit]}"
            row["sentence"] = f"{by} (p = {p:.2g} after Holm over {len(tested)})"
        else:
            row["verdict"] = "no evidence"
            row["sentence"] = (
                f"{s.NULL_SENTENCE} (p = {p:.2g} after Holm over {len(tested)}); with {row['n']} items a true difference "
                f"of {size(row['mde'], unit)} {NAMES[unit]} would be found with {100 * config.power:g} % power"
            )
