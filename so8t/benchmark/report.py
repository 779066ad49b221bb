"""What the report says, as blocks; `page.py` renders them."""

from collections.abc import Sequence
from typing import Any

from so8t.benchmark.contrasts import Row, amount
from so8t.benchmark.page import Block
from so8t.benchmark.task import Rate, TaskFile

Results = dict[str, Any]


def blocks(results: Results, tasks: dict[str, TaskFile], pictures: Sequence[str]) -> list[Block]:
    """The report's content in order; a picture's block names its file."""
    found = [Block("heading", "Benchmark"), *_headline(results)]
    for contrast in dict.fromkeys(row["contrast"] for row in results["contrasts"]):
        rows = [row for row in results["contrasts"] if row["contrast"] == contrast]
        found += [
            Block("heading", f"Contrast: {contrast} ({rows[0]['test'].replace('_', '-')})"),
            _contrast_table(rows),
        ]
    found += [Block("picture", name) for name in pictures if name in ("forest.png", "forest_grades.png")]
    for name, task in tasks.items():
        found += _task_blocks(results, name, task)
        found += [Block("picture", p) for p in pictures if p in (f"confusion_{name}.png", f"calibration_{name}.png")]
    found += _replies(results["replies"])
    found += _questions(results["questions"], tasks)
    if "training.png" in pictures:
        found += [Block("heading", "Training"), Block("picture", "training.png")]
    return [*found, *_method(results)]


def _headline(results: Results) -> list[Block]:
    complete = results["complete"]
    coverage = (
        "Every system answered every item, with the same token ids."
        if complete
        else "INCOMPLETE: some items have no answer of some system. Such a task is not compared, and nothing is ranked on it."
    )
    missing = [
        (f"{name}: {system} gave no answer to {count} of {results['tasks'][name][system]['n']} items.",)
        for name, by_system in results["errors"].items()
        for system, count in by_system.items()
        if count
    ]
    sentences = [
        f"{row['contrast']}, {row['task']} ({row['measure']}): {row['of']} against {row['against']}: {row['sentence']}."
        for row in results["contrasts"]
    ]
    listed = [Block("list", "", tuple(missing))] if missing else []
    return [Block("text", coverage), *listed, Block("list", "", tuple((line,) for line in sentences))]


def _contrast_table(rows: Sequence[Row]) -> Block:
    head = (
        "task",
        "measure",
        "of",
        "against",
        "n",
        "n11 n10 n01 n00, or won/tied/lost",
        "first",
        "second",
        "difference",
        "interval",
        "p",
        "Cohen's h, or rank-biserial",
        "verdict",
    )
    body = []
    for row in rows:
        table, p, unit = row.get("table"), row.get("p_holm", row.get("p")), row.get("unit", "points")
        share: Any = decimal if unit == "grade" else percent
        effect = row.get("cohens_h", row.get("rank_biserial"))
        body.append(
            (
                row["task"], row["measure"], row["of"], row["against"], str(row["n"]),
                " ".join(str(table[cell]) for cell in ("n11", "n10", "n01", "n00")) if table else _won(row),
                share(row.get("first")), share(row.get("second")), _difference(row.get("difference"), unit),
                span(row.get("interval"), lambda value, unit=unit: _difference(value, unit)),
                "-" if p is None else f"{p:.2g}", "-" if effect is None else f"{effect:+.2f}", row["verdict"],
            )
        )  # fmt: skip
    return Block("table", "", (head, *body))


def _won(row: Row) -> str:
    return f"{row['wins']}/{row['ties']}/{row['losses']}" if "wins" in row else "-"


def _difference(value: float | None, unit: str) -> str:
    return "-" if value is None else amount(value, unit)


def _task_blocks(results: Results, name: str, task: TaskFile) -> list[Block]:
    systems: dict[str, Any] = results["tasks"][name]
    version = f", version {task.version}" if task.version else ""
    made = [Block("heading", f"{task.title} (task {task.name}{version})")]
    if isinstance(task, Rate):
        return [*made, *_graded(systems, task, results["judge"]), *_ranking(results["rankings"][name])]
    made.append(_scores(systems))
    answered = {system: r for system, r in systems.items() if "accuracy" in r}
    if task.truth == "label":
        made += [Block("text", "Faults and recalls, each with its 95 % Wilson interval:"), _faults(answered)]
    made += _writing(systems)
    for field_name in ("languages", "categories"):
        if len({value for r in answered.values() for value in r[field_name]}) > 1 or task.truth == "label":
            made += [Block("text", f"Accuracy by {field_name}:"), _by_field(answered, field_name)]
    return [*made, *_ranking(results["rankings"][name])]


def _scores(systems: dict[str, Any]) -> Block:
    head = ("system", "n", "errors", "accuracy", "95 % interval", "chance", "macro-F1", "95 % interval", "balanced", "ECE", "Brier")  # fmt: skip
    body = []
    for system, r in systems.items():
        numbers = (decimal(r.get(key)) for key in ("balanced_accuracy", "ece", "brier"))
        shares = percent(r.get("accuracy")), span(r.get("accuracy_interval"), percent), percent(r.get("chance"))
        f1 = decimal(r.get("macro_f1")), span(r.get("macro_f1_interval"), decimal)
        body.append((system, str(r["n"]), str(r["errors"]), *shares, *f1, *numbers))
    return Block("table", "", (head, *body))


def _graded(systems: dict[str, Any], task: Rate, judge: dict[str, Any]) -> list[Block]:
    """The mean grade under its name only where a judge gave it; without one the alarms alone."""
    if judge:
        kappa = judge["quadratic_kappa"]
        steady = "" if kappa is None else f", with itself on {judge['repeated']} replies: quadratic kappa {kappa:.2f}"
        said = (
            f"{task.score}: mean of the grades 1 to 5 by {judge['label']}{steady}. Grades of different judges are not "
            "comparable" + (", and those of a local judge with no published score." if judge["kind"] == "gguf" else ".")
        )
    else:
        said = f"Not scored: without a judge there is no {task.score}. chrF is an alarm for a broken model, no more."
    head = (
        "system",
        "n",
        "errors",
        *((task.score, "95 % interval", "grades 1 2 3 4 5") if judge else ()),
        "chrF (alarm)",
    )
    body = []
    for system, r in systems.items():
        rating, grades = r.get("rating", {}), r.get("grades", {})
        given = (
            decimal(rating.get("mean")),
            span(rating.get("interval"), decimal),
            " ".join(map(str, grades.values())),
        )
        body.append(
            (system, str(r["n"]), str(r["errors"]), *(given if judge else ()), decimal(r.get("chrf", {}).get("mean")))
        )
    return [Block("text", said), Block("table", "", (head, *body)), *_writing(systems)]


def _writing(systems: dict[str, Any]) -> list[Block]:
    """What the written replies look like."""
    found = {system: r["writing"] for system, r in systems.items() if "writing" in r}
    if not found:
        return []
    shares, means = ("empty", "ended", "declined", "malformed"), ("japanese_share", "repeated_share", "characters")
    head = ("system", *shares, "Japanese letters", "repeated 8-grams", "characters")
    body = [
        (system, *(_cell(w[name]) for name in shares), *(f"{w[name]:.3g}" for name in means))
        for system, w in found.items()
    ]
    said = "The written replies, as their reader would see them (thinking taken off; a malformed one shows nothing):"
    return [Block("text", said), Block("table", "", (head, *body))]


def _ranking(found: dict[str, Any]) -> list[Block]:
    """Average ranks; none where not every system answered every item."""
    if "why_not" in found:
        return [Block("text", f"No ranking: {found['why_not']}.")]
    order = sorted(range(len(found["systems"])), key=lambda k: (found["average_ranks"][k], k))
    names = [found["systems"][k] for k in order]
    body = [
        (
            found["systems"][k],
            f"{found['average_ranks'][k]:.3f}",
            *(f"{found['nemenyi_p'][k][other]:.2g}" for other in order),
        )
        for k in order
    ]
    said = (
        f"Average ranks over {found['n']} items (1 is best; Friedman chi2 {found['chi2']:.2f}, p = {found['p']:.2g}, "
        f"Kendall's W {found['kendall_w']:.3f}); ranks closer than {found['critical_difference']:.3f} do not differ "
        "(Nemenyi). p of each pair:"
    )
    return [Block("text", said), Block("table", "", (("system", "average rank", *names), *body))]


def _questions(found: dict[str, Any], tasks: dict[str, TaskFile]) -> list[Block]:
    """Where the questions are from, and what the training split holds of them."""
    head = ("task", "questions from", "licence", "its evidence", "rows", "held by the training split")
    body = []
    for name in tasks:
        source = found[name]
        held = source.get("contamination", "-")
        if isinstance(held, dict):
            held = f"{len(held['flagged'])} of {held['items']} (13-grams), {held['certain']} nearly whole"
        origin = source["origin"] + (f" {source['revision'][:12]}" if "revision" in source else "")
        body.append((name, origin, *(str(source.get(key, "-")) for key in ("licence", "evidence", "rows")), held))
    return [Block("heading", "Questions"), Block("table", "", (head, *body))]


def speeds(cells: dict[str, dict[str, Any]]) -> list[Block]:
    """Speed and memory of every cell: what the clock says, so no part of the report."""
    head = (
        "cell", "files, MB", "memory at most, MB", "prompt tokens", "prompt tokens/s", "new tokens", "new tokens/s",
    )  # fmt: skip
    body = []
    for name, facts in cells.items():
        sizes = (f"{facts.get(key, 0) / 1e6:.1f}" for key in ("file_bytes", "memory_peak_bytes"))
        rates = (facts.get(key) for key in ("prompt_tokens", "prompt_tokens_per_s", "new_tokens", "new_tokens_per_s"))
        body.append((name, *sizes, *("-" if rate is None else f"{rate:.0f}" for rate in rates)))
    said = "A prompt is read once for all its choices, and counts once. Memory is the whole process's."
    return [Block("heading", "Speed and memory"), Block("text", said), Block("table", "", (head, *body))]


def _faults(systems: dict[str, Any]) -> Block:
    first: dict[str, Any] = next(iter(systems.values()), {"rates": {}, "recall": {}})
    names = [("rates", name) for name in first["rates"]] + [("recall", name) for name in first["recall"]]
    head = ("system", *(f"recall {name}" if kind == "recall" else name for kind, name in names), "quadratic kappa")
    body = [
        (system, *(_cell(r[kind][name]) for kind, name in names), decimal(r["quadratic_kappa"]))
        for system, r in systems.items()
    ]
    return Block("table", "", (head, *body))


def _by_field(systems: dict[str, Any], name: str) -> Block:
    values = sorted({value for r in systems.values() for value in r[name]})
    body = [(value or "(none)", *(_cell(r[name].get(value)) for r in systems.values())) for value in values]
    return Block("table", "", ((name, *systems), *body))


def _cell(found: dict[str, Any] | None) -> str:
    if found is None or found["share"] is None:
        return "-"
    return f"{found['successes']}/{found['n']} {percent(found['share'])} {span(found['interval'], percent)}"


def _replies(lines: Sequence[dict[str, Any]]) -> list[Block]:
    """Full greedy replies with nothing forced: the format as the model writes it by itself."""
    names = ("task", "system", "n", "well_formed", "same_as_B")
    asked = [line for line in lines if line["n"]]
    if not asked:
        return []
    head = ("task", "system", "replies", "well-formed", "same tokens as B")
    table = Block("table", "", (head, *(tuple(str(line[name]) for name in names) for line in asked)))
    return [Block("heading", "Full replies, greedy, nothing forced (a sample, not a score)"), table]


def _method(results: Results) -> list[Block]:
    lines = (
        "A: the base with the untrained image tower, A-Q8_0 and the like the same as a file of that type in llama.cpp; B: the "
        "base with live adapters; C: the baked files in llama.cpp, C-F16 unquantized. The contrasts and margins were declared in the config before any answer was computed.",
        "safety, digits, tones: the reply is forced up to the answer in the words of the training split's references, and the "
        "choices are compared by log-probability: what the model prefers there, not what it writes freely. Tasks on questions "
        "from outside are asked as their task files say.",
        "An item without an answer is an error, never a wrong answer, and nothing stands in for it.",
        "Differences are first minus second. Superiority: exact McNemar, or a paired permutation test of macro-F1; Holm over "
        "the rows of a contrast. Equivalence and non-inferiority: score tests of the paired difference (Tango 1998); grades: "
        "paired sign flips, and one-sided paired t tests for the margins.",
        "No evidence of a difference is not evidence of no difference; the minimum detectable effect stands beside it.",
        f"alpha {results['alpha']}, {results['resamples']} resamples, seed {results['seed']}; calibration in equal-mass bins.",
    )
    return [Block("heading", "How this was measured"), Block("list", "", tuple((line,) for line in lines))]


def percent(value: float | None) -> str:
    """A share as a percentage."""
    return "-" if value is None else f"{100 * value:.1f} %"


def decimal(value: float | None) -> str:
    """Three decimals."""
    return "-" if value is None else f"{value:.3f}"


def span(interval: dict[str, float] | None, form: Any) -> str:
    """An interval in brackets."""
    return "-" if interval is None else f"[{form(interval['low'])}, {form(interval['high'])}]"
