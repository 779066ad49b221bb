"""A phase whose metrics also say, every so many steps, how far the rotations are from SO(8)."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from so8t.loop.phase import Commit, Metrics, Phase
from so8t.so8.adapter import Adapters
from so8t.so8.monitor import rotation_errors


class Watched:
    """The phase itself, and the measures of the state in which every `every`-th step begins."""

    def __init__(self, phase: Phase, adapters: Sequence[Adapters], every: int) -> None:
        self.phase, self.adapters, self.every = phase, adapters, every
        self.name = phase.name

    @property
    def steps(self) -> int:
        """Of the phase, which may end early."""
        return self.phase.steps

    def begin(self) -> None:
        """See `Phase`."""
        self.phase.begin()

    def step(self, position: int) -> Commit:
        """The phase's step, and the measures by position, not by time: the history is part of the result."""
        commit = self.phase.step(position)
        if position % self.every:
            return commit
        errors = rotation_errors(self.adapters)

        def both() -> Metrics:
            return {**commit(), **errors}

        return both

    def finish(self) -> Callable[[], dict[str, Any]]:
        """See `Phase`."""
        return self.phase.finish()

    def tensors(self) -> dict[str, Tensor]:
        """See `Phase`."""
        return self.phase.tensors()

    def values(self) -> dict[str, Any]:
        """See `Phase`."""
        return self.phase.values()

    def restore(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """See `Phase`."""
        self.phase.restore(tensors, values)
