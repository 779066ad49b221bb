"""Numbers as people read them, the same on the terminal and on the page."""

from datetime import datetime
from itertools import pairwise
from typing import Any

MINUTE_S, HOUR_S, DAY_S = 60, 3600, 86400
UNITS = ("B", "kB", "MB", "GB", "TB")


def duration(seconds: float | None) -> str:
    """`1 h 05 min`, `2 min 35 s`, `8 s`; empty for None."""
    if seconds is None:
        return ""
    whole = round(seconds)
    if whole < MINUTE_S:
        return f"{whole} s" if whole or not seconds else f"{seconds:.1f} s"
    if whole < HOUR_S:
        return f"{whole // MINUTE_S} min {whole % MINUTE_S:02} s"
    if whole < DAY_S:
        return f"{whole // HOUR_S} h {whole % HOUR_S // MINUTE_S:02} min"
    return f"{whole // DAY_S} d {whole % DAY_S // HOUR_S:02} h"


def size(count: float) -> str:
    """Bytes in decimal units."""
    for unit in UNITS[:-1]:
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} {UNITS[-1]}"


def number(value: Any) -> str:
    """Four digits of a float; anything else as it is."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def numbers(metrics: dict[str, Any]) -> str:
    """Names and values in a line; times left are told elsewhere."""
    return ", ".join(f"{name} {number(value)}" for name, value in metrics.items() if name != "eta_s")


def percent(share: float | None) -> str:
    """A share, rounded down: 100 % is said of what is done alone. Empty for None."""
    return "" if share is None else f"{int(100 * share)} %"


def bar(share: float | None, width: int, *, plain: bool = False) -> str:
    """A bar of characters; `plain` takes none that an old console lacks."""
    full, empty = ("#", "-") if plain else ("\u2588", "\u2591")
    filled = int(width * (share or 0.0))
    return full * filled + empty * (width - filled)


def sparkline(values: list[float], width: int, *, plain: bool = False) -> str:
    """The course of a number in one line; each character is the mean of its share of the values."""
    levels = "_.-=*#" if plain else "\u2581\u2582\u2583\u2584\u2585\u2586\u2587\u2588"
    if not values or width < 1:
        return ""
    count = min(width, len(values))
    cuts = [index * len(values) // count for index in range(count + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(cuts)]
    low, high = min(means), max(means)
    scale = (len(levels) - 1) / (high - low) if high > low else 0.0
    return "".join(levels[round((mean - low) * scale)] for mean in means)


def clock(at: datetime) -> str:
    """A time of UTC."""
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"
