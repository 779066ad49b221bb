"""When something that falls will be gone: by the median of the slopes between all pairs of samples.

One download, one checkpoint or one model that is loaded bends a mean; it does not bend a median (Theil 1950, Sen 1968).
Only a fall that the slopes' confidence interval (95 %) leaves no doubt about is a forecast.
"""

from collections.abc import Sequence

CONFIDENCE = 0.95
# What was seen for half an hour says something about the next hours, not about tomorrow.
REACH = 8.0


def hours_left(times_s: Sequence[float], levels: Sequence[float], samples_min: int) -> float | None:
    """Hours until the level is 0 at the present rate; None while it does not surely fall, or from too few samples.

    `times_s` rises; `levels` has one level of each time; the last is the level now.
    """
    if len(levels) < samples_min or times_s[-1] <= times_s[0]:
        return None
    from scipy.stats import theilslopes

    slope, _, _, highest = theilslopes(levels, times_s, alpha=CONFIDENCE)
    if slope >= 0 or highest >= 0:
        return None
    left_s = float(levels[-1] / -slope)
    return left_s / 3600 if left_s <= REACH * (times_s[-1] - times_s[0]) else None
