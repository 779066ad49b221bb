"""Config of the search."""

from typing import Annotated, Self

from pydantic import Field, ValidationError, model_validator

from so8t.section import Section
from so8t.train.config import Alpha, Head, Train, with_values

Count = Annotated[int, Field(ge=0)]
AtLeastOne = Annotated[int, Field(ge=1)]
# What a trial itself decides, what trials are compared by, what they cost, and what needs a model that they lack.
FIXED = frozenset({
    "ppo.updates", "ppo.evaluation_prompts", "ppo.evaluation_every", "ppo.batch", "ppo.group", "ppo.micro_batch",
    "reward.classifier",
})  # fmt: skip


class Range(Section):
    """One key under `train.ppo` or `train.reward`, and where its best value is looked for."""

    name: str
    """The key, such as ppo.learning_rate."""
    low: float
    """Smallest value."""
    high: float
    """Largest value."""
    log: bool = False
    """Whether ratios count, not differences: for learning rates."""

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        section, _, key = self.name.partition(".")
        found = getattr(getattr(Train(), section), key, None) if section in ("ppo", "reward") else None
        if isinstance(found, bool) or not isinstance(found, int | float) or self.name in FIXED:
            raise ValueError(f"{self.name!r} is no number of train.ppo or train.reward that a trial can change")
        if not self.low < self.high:
            raise ValueError(f"{self.name}: from {self.low:g} to {self.high:g} is no range: low < high")
        if self.log and self.low <= 0:
            raise ValueError(f"{self.name}: a logarithmic range begins above 0, not at {self.low:g}")
        if self.whole and not (self.low.is_integer() and self.high.is_integer()):
            raise ValueError(f"{self.name} is a whole number; the range from {self.low:g} to {self.high:g} is not")
        for end in (self.low, self.high):
            try:
                with_values(Train(), {self.name: end})
            except ValidationError as error:
                raise ValueError(f"{self.name}: {error.errors()[0]['msg']}, found {end:g}") from None
        return self

    @property
    def whole(self) -> bool:
        """Whether its values are integers."""
        section, _, key = self.name.partition(".")
        return isinstance(getattr(getattr(Train(), section), key), int)


class Search(Section):
    """Trials of other PPO settings, each from the state that the warm-up left; the best values go to the training."""

    trials: Count = 0
    """Trials, the first with the config's own values; 0 leaves the search out."""
    updates: AtLeastOne = 16
    """PPO updates a trial."""
    report_every: AtLeastOne = 4
    """Updates between two looks at the held-out reward, by which a trial is pruned."""
    prompts: AtLeastOne = 48
    """Validation prompts for that reward; nothing else in the training looks at them."""
    startup: AtLeastOne = 4
    """Trials before proposals become informed, and before any is pruned."""
    tries_max: AtLeastOne = 3
    """Deaths of the process in a row without a new checkpoint after which a trial counts as failed."""
    parameters: Annotated[tuple[Range, ...], Field(min_length=1)] = (
        Range(name="ppo.learning_rate", low=1e-5, high=1e-3, log=True),
        Range(name="ppo.kl_target", low=0.01, high=1.0, log=True),
        Range(name="reward.quality", low=0.25, high=4.0, log=True),
        Range(name="reward.over_refusal", low=0.1, high=2.0, log=True),
    )
    """What is searched."""

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        names = [one.name for one in self.parameters]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"{', '.join(twice)}: each parameter once")
        if self.report_every > self.updates:
            raise ValueError(f"a report every {self.report_every} updates never comes in trials of {self.updates}")
        return self


class SearchRun(Section):
    """What a search's result depends on."""

    search: Search
    train: Train


def section(search: Search, train: Train) -> SearchRun:
    """The step's own section: what comes after PPO plays no part."""
    return SearchRun(search=search, train=train.model_copy(update={"alpha": Alpha(), "head": Head()}))
