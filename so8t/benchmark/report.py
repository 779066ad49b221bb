"""The report: the same blocks as Markdown and as one self-contained HTML page."""

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from so8t.benchmark.contrasts import Row
from so8t.benchmark.task import TaskFile

Results = dict[str, Any]


@dataclass(frozen=True)
class Block:
    """A heading, a paragraph, a list, a table or a picture."""

    kind: str  # heading | text | list | table | picture
    text: str = ""
    rows: tuple[tuple[str, ...], ...] = field(default=())


def blocks(results: Results, tasks: dict[str, TaskFile], pictures: Sequence[str]) -> list[Block]:
    """The report's content in order; a picture's block names its file."""
    found = [Block("heading", "Benchmark"), *_headline(results)]
    for contrast in dict.fromkeys(row["contrast"] for row in results["contrasts"]):
        rows = [row for row in results["contrasts"] if row["contrast"] == contrast]
        found += [
            Block("heading", f"Contrast: {contrast} ({rows[0]['test'].replace('_', '-')})"),
            _contrast_table(rows),
        ]
    found += [Block("picture", name) for name in pictures if name == "forest.png"]
    for name, task in tasks.items():
        found += _task_blocks(results["tasks"][name], task)
        found += [Block("picture", p) for p in pictures if p in (f"confusion_{name}.png", f"calibration_{name}.png")]
    found += _replies(results["replies"])
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
    sentences = [
        f"{row['contrast']}, {row['task']} ({row['measure']}): {row['of']} against {row['against']}: {row['sentence']}."
        for row in results["contrasts"]
    ]
    return [Block("text", coverage), Block("list", "", tuple((line,) for line in sentences))]


def _contrast_table(rows: Sequence[Row]) -> Block:
    head = (
        "task",
        "measure",
        "of",
        "against",
        "n",
        "n11 n10 n01 n00",
        "first",
        "second",
        "difference",
        "interval",
        "p",
        "h",
        "verdict",
    )
    body = []
    for row in rows:
        table, p = row.get("table"), row.get("p_holm", row.get("p"))
        body.append(
            (
                row["task"], row["measure"], row["of"], row["against"], str(row["n"]),
                " ".join(str(table[cell]) for cell in ("n11", "n10", "n01", "n00")) if table else "-",
                percent(row.get("first")), percent(row.get("second")), points(row.get("difference")),
                span(row.get("interval"), points), "-" if p is None else f"{p:.2g}",
                f"{row['cohens_h']:+.2f}" if "cohens_h" in row else "-", row["verdict"],
            )
        )  # fmt: skip
    return Block("table", "", (head, *body))


def _task_blocks(systems: dict[str, Any], task: TaskFile) -> list[Block]:
    head = (
        "system",
        "n",
        "errors",
        "accuracy",
        "95 % interval",
        "macro-F1",
        "95 % interval",
        "balanced",
        "ECE",
        "Brier",
    )
    body = []
    for system, r in systems.items():
        if "accuracy" not in r:
            body.append((system, str(r["n"]), str(r["errors"]), *["-"] * 7))
            continue
        intervals = span(r["accuracy_interval"], percent), span(r["macro_f1_interval"], decimal)
        numbers = decimal(r["balanced_accuracy"]), decimal(r["ece"]), decimal(r["brier"])
        shares = percent(r["accuracy"]), intervals[0], decimal(r["macro_f1"]), intervals[1]
        body.append((system, str(r["n"]), str(r["errors"]), *shares, *numbers))
    made = [
        Block("heading", f"{task.title} (task {task.name}, version {task.version})"),
        Block("table", "", (head, *body)),
    ]
    answered = {system: r for system, r in systems.items() if "accuracy" in r}
    if task.truth == "label":
        made += [Block("text", "Faults and recalls, each with its 95 % Wilson interval:"), _faults(answered)]
    for name in ("languages", "categories"):
        made += [Block("text", f"Accuracy by {name}:"), _by_field(answered, name)]
    return made


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
        "A: the base with the untrained image tower; B: the base with live adapters; C: the baked files in llama.cpp, "
        "C-F16 unquantized. The contrasts and margins were declared in the config before any answer was computed.",
        "The reply is forced up to the answer in the words of the training split's references, and the choices are compared "
        "by log-probability: this measures what the model prefers there, not what it writes freely.",
        "An item without an answer is an error, never a wrong answer, and nothing stands in for it.",
        "Differences are first minus second. Superiority: exact McNemar, or a paired permutation test of macro-F1; Holm over "
        "the rows of a contrast. Equivalence and non-inferiority: score tests of the paired difference (Tango 1998).",
        "No evidence of a difference is not evidence of no difference; the minimum detectable effect stands beside it.",
        f"alpha {results['alpha']}, {results['resamples']} resamples, seed {results['seed']}; calibration in equal-mass bins.",
    )
    return [Block("heading", "How this was measured"), Block("list", "", tuple((line,) for line in lines))]


def percent(value: float | None) -> str:
    """A share as a percentage."""
    return "-" if value is None else f"{100 * value:.1f} %"


def points(value: float | None) -> str:
    """A difference of shares in points, with its sign."""
    return "-" if value is None else f"{100 * value:+.1f}"


def decimal(value: float | None) -> str:
    """Three decimals."""
    return "-" if value is None else f"{value:.3f}"


def span(interval: dict[str, float] | None, form: Any) -> str:
    """An interval in brackets."""
    return "-" if interval is None else f"[{form(interval['low'])}, {form(interval['high'])}]"


def markdown(content: Sequence[Block]) -> str:
    """The blocks as Markdown; pictures are links to the files beside it."""
    parts = []
    for index, block in enumerate(content):
        if block.kind == "heading":
            parts.append(f"{'#' if index == 0 else '##'} {block.text}")
        elif block.kind == "text":
            parts.append(block.text)
        elif block.kind == "list":
            parts.append("\n".join(f"- {row[0]}" for row in block.rows))
        elif block.kind == "picture":
            parts.append(f"![{block.text}]({block.text})")
        else:
            escaped = [[cell.replace("|", "\\|") for cell in row] for row in block.rows]
            lines = ["| " + " | ".join(row) + " |" for row in escaped]
            parts.append("\n".join([lines[0], "|" + "---|" * len(block.rows[0]), *lines[1:]]))
    return "\n\n".join(parts) + "\n"


PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Benchmark</title><style>
body {{ font: 15px/1.5 system-ui, "Noto Sans CJK JP", "Yu Gothic", sans-serif; margin: 2em auto; max-width: 75em; padding: 0 1em }}
table {{ border-collapse: collapse; display: block; overflow-x: auto; margin: 1em 0 }}
td, th {{ border: 1px solid #ccc; padding: .2em .5em; text-align: left; white-space: nowrap }}
th {{ background: #f3f3f3 }} img {{ max-width: 100% }}
</style></head><body>
{body}
</body></html>
"""


def page(content: Sequence[Block], pictures: dict[str, bytes]) -> str:
    """The blocks as one HTML page that needs no other file."""
    parts = []
    for index, block in enumerate(content):
        text = html.escape(block.text)
        if block.kind == "heading":
            level = 1 if index == 0 else 2
            parts.append(f"<h{level}>{text}</h{level}>")
        elif block.kind == "text":
            parts.append(f"<p>{text}</p>")
        elif block.kind == "list":
            parts.append("<ul>" + "".join(f"<li>{html.escape(row[0])}</li>" for row in block.rows) + "</ul>")
        elif block.kind == "picture":
            data = base64.b64encode(pictures[block.text]).decode("ascii")
            parts.append(f'<p><img alt="{text}" src="data:image/png;base64,{data}"></p>')
        else:
            parts.append(_html_table(block.rows))
    return PAGE.format(body="\n".join(parts))


def _html_table(rows: Sequence[Sequence[str]]) -> str:
    lines = []
    for index, row in enumerate(rows):
        tag = "th" if index == 0 else "td"
        lines.append("<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row) + "</tr>")
    return "<table>" + "\n".join(lines) + "</table>"
