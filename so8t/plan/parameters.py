"""How many numbers there are, and how many of them are trained."""

from dataclasses import dataclass

from so8t.labels import Label
from so8t.plan.geometry import Geometry, TowerShape
from so8t.so8.config import Adapter, Place
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


def placed(adapter: Adapter, geometry: Geometry) -> list[tuple[Place, int, int]]:
    """What the linears of one adapted layer get, and how long their outputs and inputs are."""
    return [(place, *geometry.linears[place.target]) for place in map(adapter.place, adapter.targets)]


def adapter_parameters(adapter: Adapter, geometry: Geometry) -> int:
    """Numbers around the linears of one adapted layer."""
    return sum(
        (out * place.output + into * place.input) // BLOCK * ENTRIES + place.rank * (out + into)
        for place, out, into in placed(adapter, geometry)
    )


def adapted_layers(adapter: Adapter, geometry: Geometry) -> int:
    """How many layers get adapters."""
    return geometry.layers if adapter.layers is None else len(set(adapter.layers))


def count(config: Train, geometry: Geometry, tower: TowerShape) -> Counts:
    """All parts of the model in training."""
    adapter = config.adapter
    layers = adapted_layers(adapter, geometry)
    rotated = sum(out * place.output + into * place.input for place, out, into in placed(adapter, geometry))
    sight = tower.layers * sum(out // BLOCK * ENTRIES for out, _ in tower.linears) if config.vision.adapters else 0
    return Counts(
        base=geometry.parameters,
        adapters=layers * adapter_parameters(adapter, geometry),
        rotations=layers * rotated // BLOCK,
        token_rows=2 * len(ADDED_TOKENS) * geometry.hidden,
        tower=tower.tower,
        projector=tower.projector,
        tower_adapters=sight,
        heads=geometry.hidden * (1 + len(Label)) + len(Label),
    )
