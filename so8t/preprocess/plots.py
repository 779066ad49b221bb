"""The data card as one picture: matplotlib on Agg, ASCII labels, the same bytes for the same numbers."""

import io
from typing import TYPE_CHECKING, Any

from so8t.preprocess.index import SPLITS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# No name or date of the program in the file; fonts come with matplotlib.
SAVE: dict[str, Any] = {"format": "png", "dpi": 100, "metadata": {"Software": None}}
STYLE = {"font.family": "DejaVu Sans", "font.size": 8, "axes.spines.top": False, "axes.spines.right": False}
BARS_MAX = 12  # of one panel; the rest is summed up
BY_SPLIT = (("class", "class (text only)"), ("modality", "modality"), ("language", "language"))


def draw(whole: dict[str, Any]) -> bytes:
    """PNG bytes: rows, reasons of removal, licences, and class, modality and language by split."""
    # 40 MB, needed when all else is done.
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(11, 6.5), layout="constrained")
        panels = figure.subplots(2, 3).flat
        for title, key in (("rows", "rows"), ("removed, by reason", "removed"), ("licence", "licence")):
            _bars(next(panels), title, whole[key])
        for key, title in BY_SPLIT:
            _stacked(next(panels), title, whole[key])
        buffer = io.BytesIO()
        figure.savefig(buffer, **SAVE)
        return buffer.getvalue()


def _bars(axes: "Axes", title: str, counts: dict[str, int]) -> None:
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    if len(ordered) > BARS_MAX:
        rest = ordered[BARS_MAX - 1 :]
        ordered = [*ordered[: BARS_MAX - 1], (f"{len(rest)} others", sum(count for _, count in rest))]
    bars = axes.barh([_plain(name) for name, _ in ordered], [count for _, count in ordered], color="#4575b4")
    axes.bar_label(bars, padding=2)
    axes.invert_yaxis()
    axes.set_title(title)
    axes.margins(x=0.15)


def _stacked(axes: "Axes", title: str, by_split: dict[str, dict[str, int]]) -> None:
    names = sorted({name for counts in by_split.values() for name in counts})
    left = [0] * len(SPLITS)
    for place, name in enumerate(names):
        counts = [by_split[split].get(name, 0) for split in SPLITS]
        axes.barh(SPLITS, counts, left=left, label=_plain(name), color=f"C{place % 10}")
        left = [before + count for before, count in zip(left, counts, strict=True)]
    axes.invert_yaxis()
    axes.set_title(title)
    if names:
        axes.legend(fontsize=7, loc="lower right")


def _plain(name: str) -> str:
    """Fonts and terminals differ in everything beyond ASCII; a name from outside is shortened."""
    return name.encode("ascii", "replace").decode()[:40] or "none"
