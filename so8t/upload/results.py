"""The benchmark's results.json as tables and as the Hub's evaluation results."""

from collections.abc import Sequence
from typing import Any

from huggingface_hub import EvalResult

TASK_TYPES = {"safety": "text-classification", "digits": "image-classification", "tones": "audio-classification"}
MEASURES = {"accuracy": "accuracy", "macro_f1": "f1"}

Results = dict[str, Any]


def eval_results(results: Results, data_content: str, prefix: str = "C-") -> list[EvalResult]:
    """One entry a measure for each baked system whose name begins so (A and B are in the card's tables).

    Entries of one task share everything but metric name and arguments: the client's index drops what
    differs elsewhere (huggingface_hub 2.4).
    """
    found = []
    for task, systems in sorted(results["tasks"].items()):
        for system, r in sorted(systems.items()):
            if not system.startswith(prefix) or "accuracy" not in r:
                continue
            for measure in (name for name in MEASURES if name in r):
                interval = r[f"{measure}_interval"]
                found.append(
                    EvalResult(
                        task_type=TASK_TYPES.get(task, "text-generation"),
                        dataset_type=f"so8t-{task}",
                        dataset_name=_dataset_name(results, task),
                        dataset_split=None if from_outside(results, task) else "test",
                        dataset_revision=None if from_outside(results, task) else data_content[:40],
                        metric_type=MEASURES[measure],
                        metric_value=r[measure],
                        metric_name=f"{measure} of {system}",
                        metric_args={"n": r["n"], "interval_95": [interval["low"], interval["high"]]},
                    )
                )
    return found


def _dataset_name(results: Results, task: str) -> str:
    """Where the questions are from: the held-out rows of this pipeline, or a data set of others."""
    return f"{task}: {origin(results, task)}" if from_outside(results, task) else f"SO8T {task}, held out"


def from_outside(results: Results, task: str) -> bool:
    """Whether a data set of others was asked; the pipeline's own test split is named by its revision."""
    return "revision" not in results["questions"][task]


def origin(results: Results, task: str) -> str:
    """Where a task's questions are from."""
    return str(results["questions"][task]["origin"])


def task_table(systems: dict[str, Any]) -> list[str]:
    """Markdown rows: one system a line."""
    rows = []
    for system, r in systems.items():
        if "accuracy" in r:
            accuracy = f"{percent(r['accuracy'])} {span(r['accuracy_interval'])}"
            f1 = _decimal(r["macro_f1"], r["macro_f1_interval"]) if "macro_f1" in r else "-"
            chance = percent(r["chance"]) if "chance" in r else "-"
            rows.append([system, str(r["n"]), str(r["errors"]), accuracy, f1, chance])
        elif "rating" in r:
            grade = f"mean grade {_decimal(r['rating']['mean'], r['rating']['interval'])}"
            rows.append([system, str(r["n"]), str(r["errors"]), grade, "-", "-"])
        else:
            rows.append([system, str(r["n"]), str(r["errors"]), "-", "-", "-"])
    return table(["system", "n", "errors", "accuracy (95 %)", "macro-F1 (95 %)", "chance"], rows)


def fault_table(systems: dict[str, Any]) -> list[str]:
    """Markdown rows: the faults that matter for safety, none where the task has no classes."""
    answered = {system: r for system, r in systems.items() if r.get("rates")}
    names = sorted({name for r in answered.values() for name in r["rates"]})
    rows = [[system, *(_share(r["rates"].get(name)) for name in names)] for system, r in answered.items()]
    return table(["system", *(name.replace("_", " ") for name in names)], rows) if rows else []


def contrast_list(results: Results) -> list[str]:
    """One sentence a declared contrast."""
    return [
        f"- {row['contrast']}, {row['task']} ({row['measure']}), {row['of']} against {row['against']}: {row['sentence']}."
        for row in results["contrasts"]
    ]


def gate_table(gates: Sequence[dict[str, Any]]) -> list[str]:
    """Markdown rows of the bake's gates."""
    return table(
        ["gate", "measured", "wanted"],
        [[str(g["name"]), f"{float(g['value']):.4g}", f"{g['sense']} {float(g['limit']):.4g}"] for g in gates],
    )


def file_table(paths: Sequence[str], measured: Sequence[dict[str, Any]]) -> list[str]:
    """Markdown rows: what each GGUF file loses against the live model; a dash where not measured.

    Memory and speed differ each time and stay out of what counts by its bytes; the bake's manifest has them.
    """
    known = {str(row["file"]): row for row in measured}
    rows = []
    for path in paths:
        row = known.get(path.rpartition("/")[2], {})
        losses = [f"{row['kl']:.3g}", percent(row["top1"]), f"{row['perplexity_ratio']:.4f}"] if row else ["-"] * 3
        rows.append([f"`{path}`", *losses])
    return table(["GGUF file", "mean KL", "top-1", "perplexity ratio"], rows)


def table(head: list[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table."""
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


def _decimal(value: float, interval: dict[str, float]) -> str:
    return f"{value:.3f} [{interval['low']:.3f}, {interval['high']:.3f}]"


def percent(share: float) -> str:
    """A share as a percentage."""
    return f"{100 * share:.1f} %"


def span(interval: dict[str, float]) -> str:
    """An interval of shares in brackets."""
    return f"[{percent(interval['low'])}, {percent(interval['high'])}]"


def _share(found: dict[str, Any] | None) -> str:
    if found is None or found["share"] is None:
        return "-"
    return f"{found['successes']}/{found['n']} = {percent(found['share'])} {span(found['interval'])}"
