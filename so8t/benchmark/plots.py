"""The report's pictures: matplotlib on Agg, ASCII labels, the same bytes for the same numbers."""

import io
import threading
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import matplotlib as mpl
import numpy as np

from so8t.benchmark.contrasts import Row

mpl.use("Agg")

from matplotlib.figure import Figure

# No name or date of the program in the file; fonts come with matplotlib.
SAVE: dict[str, Any] = {"format": "png", "dpi": 110, "metadata": {"Software": None}}
STYLE = {"font.family": "DejaVu Sans", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
COLOURS = {
    "better": "#1b7837",
    "shown": "#1b7837",
    "worse": "#b2182b",
    "no evidence": "#666666",
    "not shown": "#d6604d",
}
DRAWING = threading.Lock()
DIGITS_MAX = 6  # larger confusion matrices carry no numbers in their fields


def png(draw: Callable[[Figure], None], width: float, height: float) -> bytes:
    """Draw on a new figure of this size in inches; give PNG bytes."""
    # The style is the process's: a thread that ends its picture would take it from one that still draws.
    with DRAWING, mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure)
        buffer = io.BytesIO()
        figure.savefig(buffer, **SAVE)
        return buffer.getvalue()


def forest(rows: Sequence[Row], unit: str = "points") -> bytes:
    """Every contrast's difference with its interval; marks are the declared margins. Shares in points of a hundred."""
    scale = 1 if unit == "grade" else 100

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for y, row in enumerate(reversed(rows)):
            low, high = scale * row["interval"]["low"], scale * row["interval"]["high"]
            colour = COLOURS[row["verdict"]]
            axes.plot([low, high], [y, y], color=colour, linewidth=2)
            axes.plot([scale * row["difference"]], [y], "o", color=colour, markersize=5)
            if row["test"] != "superiority":
                margins = [-scale * row["margin"]] + [scale * row["margin"]] * (row["test"] == "equivalence")
                axes.plot(margins, [y] * len(margins), "|", color="black", markersize=12)
        labels = [f"{r['contrast']}: {r['of']} vs {r['against']}, {r['task']} {r['measure']}" for r in reversed(rows)]
        axes.set_yticks(range(len(rows)), labels)
        axes.axvline(0, color="black", linewidth=0.8)
        axes.set_xlabel(f"difference in {'points of the grade' if unit == 'grade' else 'points'}, with its interval; "
                        "bars mark the declared margins")  # fmt: skip

    return png(draw, 9, 1.2 + 0.28 * len(rows))


def confusions(title: str, names: Sequence[str], matrices: dict[str, Sequence[Sequence[int]]]) -> bytes:
    """Confusion matrices side by side; rows are the truth, shade is the share of the row."""

    def draw(figure: Figure) -> None:
        panels = figure.subplots(1, len(matrices), squeeze=False)[0]
        for axes, (system, matrix) in zip(panels, matrices.items(), strict=True):
            counts = np.asarray(matrix)
            axes.imshow(counts / np.maximum(counts.sum(1, keepdims=True), 1), cmap="Blues", vmin=0, vmax=1)
            axes.set_title(f"{title}: {system}")
            axes.set_xticks(range(len(names)), names, rotation=45 if len(names) <= DIGITS_MAX else 0)
            axes.set_yticks(range(len(names)), names)
            axes.set_xlabel("answer")
            axes.set_ylabel("truth")
            if len(names) <= DIGITS_MAX:
                for (i, j), count in np.ndenumerate(counts):
                    share = count / max(counts[i].sum(), 1)
                    axes.text(j, i, str(count), ha="center", va="center", color="white" if share > 0.5 else "black")

    return png(draw, 2.9 * len(matrices) + 0.4, 3.2)


def calibration(curves: dict[str, Sequence[tuple[float, float, int]]], title: str) -> bytes:
    """Accuracy against confidence in equal-mass bins, one line a system."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color="black", linewidth=0.8, linestyle="--")
        for system, bins in curves.items():
            axes.plot([b[0] for b in bins], [b[1] for b in bins], "o-", label=system, markersize=4)
        axes.set(xlabel="mean confidence", ylabel="accuracy", title=title, xlim=(0, 1.02), ylim=(-0.02, 1.02))
        axes.legend()

    return png(draw, 4.6, 4.2)


def training(history: Sequence[dict[str, Any]]) -> bytes | None:
    """The numbers of `CURVES` that training logged, each phase's in a panel of its own; None without any."""
    series: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for line in history:
        phase, step = str(line.get("phase", "")), line.get("step")
        for name, value in line.items():
            if name in CURVES and isinstance(value, int | float) and isinstance(step, int | float):
                series.setdefault((phase, name), []).append((step, value))
    # In the order of `CURVES`, then of the phases.
    ordered = sorted(series.items(), key=lambda item: CURVES.index(item[0][1]))
    drawn = tuple((f"{phase} {name}".strip(), tuple(points)) for (phase, name), points in ordered if len(points) > 1)
    return _panels(drawn) if drawn else None


@lru_cache(maxsize=2)
def _panels(drawn: tuple[tuple[str, tuple[tuple[float, float], ...]], ...]) -> bytes:
    """A run's page and its curves show the same training, the page long after its end: drawn once (a second of CPU)."""

    def draw(figure: Figure) -> None:
        columns = min(3, len(drawn))
        grid = figure.subplots(-(-len(drawn) // columns), columns, squeeze=False)
        for axes in grid.flat[len(drawn) :]:
            axes.set_visible(False)
        for axes, (name, points) in zip(grid.flat, drawn, strict=False):
            axes.plot([step for step, _ in points], [value for _, value in points], ".-", linewidth=1.2, markersize=3)
            axes.set(title=name, xlabel="step")

    return png(draw, 9, 2.2 * -(-len(drawn) // 3) + 0.3)


# What a policy is judged by stands first.
CURVES = ("reward", "kl", "loss", "accuracy", "loss_text", "loss_image", "approx_kl", "v_loss")
