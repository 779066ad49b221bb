"""Which step of the phase is which: minibatches of updates, and the reviews between them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """An optimizer step of an update, or the review after it."""

    update: int
    within: int
    review: bool = False


@dataclass(frozen=True)
class Schedule:
    """`updates` of `per_update` optimizer steps each; a review after each `every` updates but the last (0: none)."""

    updates: int
    per_update: int
    every: int

    @property
    def steps(self) -> int:
        """Optimizer steps and reviews."""
        reviews = (self.updates - 1) // self.every if self.every and self.updates else 0
        return self.updates * self.per_update + reviews

    def at(self, position: int) -> Place:
        """What stands at a position."""
        if not self.every:
            return Place(*divmod(position, self.per_update))
        cycle, inside = divmod(position, self.every * self.per_update + 1)
        if inside == self.every * self.per_update:
            return Place((cycle + 1) * self.every - 1, self.per_update - 1, review=True)
        update, within = divmod(inside, self.per_update)
        return Place(cycle * self.every + update, within)

    def ended(self, position: int) -> int | None:
        """How many updates are done where the last of `position` steps ended one; else None."""
        place = self.at(position - 1)
        return place.update + 1 if not place.review and place.within == self.per_update - 1 else None
