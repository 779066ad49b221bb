"""What recoveries have asked of the training that this process is about to do: set before its phases are built.

It lies in the training's session (`so8t/recovery/training.py`). A checkpoint says how many halvings it knows of, so
that one that was made after them is not halved again.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Asked:
    """Halvings of the micro-batch, and the factor of all learning rates; `known` lie in the checkpoint gone on from."""

    halvings: int = 0
    rate: float = 1.0
    known: int = 0


_now = Asked()


def now() -> Asked:
    """What is asked."""
    return _now


@contextmanager
def taken(overrides: Mapping[str, float]) -> Iterator[None]:
    """Inside, a training obeys a session's overrides."""
    with _set(Asked(int(overrides.get("halvings", 0)), float(overrides.get("rate", 1.0)))):
        yield


@contextmanager
def gone_on_from(known: int) -> Iterator[None]:
    """Inside, state is taken over from a checkpoint that knows of so many halvings."""
    with _set(replace(_now, known=known)):
        yield


@contextmanager
def _set(asked: Asked) -> Iterator[None]:
    global _now
    before, _now = _now, asked
    try:
        yield
    finally:
        _now = before


def halved(size: int, times: int) -> int:
    """A size halved so often, at least 1."""
    for _ in range(times):
        size = -(-size // 2)
    return size
