"""Config of benchmark."""

from typing import Literal

from so8t.section import Section

Task = Literal["safety", "digits", "tones"]


class Cell(Section):
    """One system on one task."""

    system: str
    task: str


class Benchmark(Section):
    """Which tasks are asked, and what is compared."""

    tasks: tuple[Task, ...] = ("safety", "digits", "tones")

    def cell(self, system: str, task: str) -> Cell:
        """The section of one cell."""
        return Cell(system=system, task=task)
