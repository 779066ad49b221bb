"""The clocks of one moment: what counts work, what a machine shows, and what a jump of the one is not for the other."""

import sys
import time
from dataclasses import dataclass

from so8t.session import boot_id

JUMP_S = 60.0


@dataclass(frozen=True)
class Moment:
    """`running_s` counts the seconds since the boot (without sleep on Linux and macOS), `passed_s` those with sleep."""

    boot: str
    running_s: float
    passed_s: float
    wall_s: float


def moment() -> Moment:
    """Now, by clocks that all processes of one boot share."""
    return Moment(boot_id(), time.monotonic(), _passed_s(), time.time())


def _passed_s() -> float:
    if sys.platform == "linux":
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    if sys.platform == "darwin":
        return time.clock_gettime(time.CLOCK_MONOTONIC)
    return time.monotonic()


def watched_s(before: Moment | None, now: Moment, most_s: float) -> float:
    """Seconds between two looks that count as seen: none across a boot, and no more than `most_s`.

    A machine that slept, a paused virtual machine and a monitor that was off all look like a long time without
    progress; nobody saw it, so it does not count.
    """
    if before is None or before.boot != now.boot:
        return 0.0
    return max(0.0, min(now.running_s - before.running_s, most_s))


def jumped_s(before: Moment | None, now: Moment) -> float:
    """By how much somebody set the clock between two looks of one boot; 0 within a minute, and for a machine that slept."""
    if before is None or before.boot != now.boot:
        return 0.0
    jump_s = (now.wall_s - before.wall_s) - (now.passed_s - before.passed_s)
    return jump_s if abs(jump_s) > JUMP_S else 0.0
