"""Config of benchmark: which tasks are asked, and the contrasts, declared before any answer is seen."""

import hashlib
from importlib import resources
from typing import Annotated, Literal

from pydantic import Field

from so8t.section import Section

Task = Literal["safety", "digits", "tones"]
Share = Annotated[float, Field(gt=0, lt=1)]


def task_text(name: str) -> str:
    """The YAML of a task that comes with the package."""
    return resources.files("so8t.benchmark").joinpath("tasks", f"{name}.yaml").read_text(encoding="utf-8")


class Cell(Section):
    """One system on one task."""

    system: str
    """A, B, C-F16 or C-<quantization>."""
    task: str
    """Name of the task."""
    task_sha256: str
    """Digest of the task's YAML: a changed task is another cell."""
    batch_items: Annotated[int, Field(ge=1)] = 32
    """Items scored and stored at a time. Batches are fixed, so a resumed run gives the same bits."""
    context_tokens: Annotated[int, Field(ge=32)] = 4096
    """Longest prompt; a longer one is an error, never a wrong answer. The base's original context caps it."""
    replies: Annotated[int, Field(ge=0)] = 4
    """Items that are also answered in full, greedily, to show the thinking format at work."""
    reply_tokens: Annotated[int, Field(ge=1)] = 160
    """Longest full answer."""


class Contrast(Section):
    """One declared comparison of two systems, on each of its tasks."""

    name: str
    """What the comparison tells apart, for example the training or the baking."""
    of: str
    """A system; `C-*` stands for every quantized one."""
    against: str
    """The system that it is compared with."""
    test: Literal["superiority", "equivalence", "non_inferiority"]
    """What is to be shown."""
    margin: Share = 0.05
    """Largest accuracy difference that counts as none; superiority does not use it."""
    tasks: tuple[Task, ...] = ()
    """On which tasks; none named means all that the benchmark asks."""


CONTRASTS = (
    Contrast(name="training", of="B", against="A", test="superiority"),
    Contrast(name="delivered", of="C-*", against="A", test="superiority"),
    Contrast(name="baking", of="C-F16", against="B", test="equivalence", margin=0.03),
    Contrast(name="quantization", of="C-*", against="C-F16", test="non_inferiority", margin=0.05),
)


class Benchmark(Section):
    """Which tasks are asked, and what is compared."""

    tasks: tuple[Task, ...] = ("safety", "digits", "tones")
    """Tasks that come with the package."""
    contrasts: tuple[Contrast, ...] = CONTRASTS
    """Declared beforehand; Holm's correction spans the tests of one superiority contrast."""
    alpha: Share = 0.05
    """Error of the first kind."""
    power: Share = 0.8
    """For the minimum detectable effect beside every null result."""
    resamples: Annotated[int, Field(ge=200)] = 10_000
    """Bootstrap and permutation samples."""
    seed: int = 20_251_107
    """Of the resampling."""
    calibration_bins: Annotated[int, Field(ge=2)] = 10
    """Equal-mass bins of the calibration error."""
    batch_items: Annotated[int, Field(ge=1)] = 32
    """See Cell."""
    context_tokens: Annotated[int, Field(ge=32)] = 4096
    """See Cell."""
    replies: Annotated[int, Field(ge=0)] = 4
    """See Cell."""
    reply_tokens: Annotated[int, Field(ge=1)] = 160
    """See Cell."""

    def cell(self, system: str, task: str) -> Cell:
        """The section of one cell."""
        return Cell(
            system=system,
            task=task,
            task_sha256=hashlib.sha256(task_text(task).encode("utf-8")).hexdigest(),
            batch_items=self.batch_items,
            context_tokens=self.context_tokens,
            replies=self.replies,
            reply_tokens=self.reply_tokens,
        )
