"""How many numbers there are, and how many of them are trained."""

from dataclasses import dataclass

from so8t.labels import Label
from so8t.plan.geometry import Geometry, TowerShape
from so8t.so8.config import Adapter
from so8t.thinking import ADDED_TOKENS
from so8t.train.config import Train

BLOCK, ENTRIES = 8, 28


@dataclass(frozen=True)
class Counts:
    """Parameters by part. `rotations` is the number of 8x8 blocks of the text adapters."""

    base: int
    adapters: int
    rotations: int
    token_rows: int
    tower: int
    projector: int
    tower_adapters: int
    heads: int

    def as_dict(self) -> dict[str, int]:
        """By name, for people and JSON."""
        return {
            "base": self.base,
            "text adapters": self.adapters,
            "token rows": self.token_rows,
            "tower": self.tower,
            "projector": self.projector,
            "tower adapters": self.tower_adapters,
            "value and class heads": self.heads,
        }

    @property
    def own(self) -> int:
        """All that training may change: what a checkpoint holds beside the phase's own state."""
        return self.adapters + self.token_rows + self.tower + self.projector + self.tower_adapters + self.heads


def adapter_parameters(adapter: Adapter, linear: tuple[int, int]) -> int:
    """Numbers around one linear [out, in]."""
    out, into = linear
    rotated = out * adapter.output + into * adapter.input
    return rotated // BLOCK * ENTRIES + adapter.rank * (out + into)


def count(config: Train, geometry: Geometry, tower: TowerShape) -> Counts:
    """All parts of the model in training."""
    adapter = config.adapter
    chosen = [geometry.linears[name] for name in adapter.targets]
    rotated = sum(out * adapter.output + into * adapter.input for out, into in chosen)
    sight = tower.layers * sum(out // BLOCK * ENTRIES for out, _ in tower.linears) if config.vision.adapters else 0
    return Counts(
        base=geometry.parameters,
        adapters=geometry.layers * sum(adapter_parameters(adapter, linear) for linear in chosen),
        rotations=geometry.layers * rotated // BLOCK,
        token_rows=2 * len(ADDED_TOKENS) * geometry.hidden,
        tower=tower.tower,
        projector=tower.projector,
        tower_adapters=sight,
        heads=geometry.hidden * (1 + len(Label)) + len(Label),
    )
