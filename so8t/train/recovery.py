"""The newest state that a review found good, and the way back to it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from so8t.loop.phase import Optimizer, under
from so8t.train.config import Ppo

RATE_AFTER_ROLLBACK = 0.5


@dataclass(frozen=True)
class Review:
    """What one looked at: mean held-out reward and its terms, and the anchors' perplexity; None where there is none."""

    reward: dict[str, float] | None
    perplexity: float | None

    def metrics(self) -> dict[str, float]:
        """For the history."""
        found = {f"held_out_{name}": value for name, value in (self.reward or {}).items() if name != "n"}
        return found | ({"anchor_perplexity": self.perplexity} if self.perplexity is not None else {})


class Recovery:
    """Keeps parameters and Adam's state, in memory and in the checkpoint. All changes belong into commits."""

    def __init__(self, config: Ppo, optimizer: Optimizer) -> None:
        self.config, self.optimizer = config, optimizer
        self.first: Review | None = None  # before the first update
        self.good: Review | None = None  # of the state that is kept
        self.best: float | None = None
        self.rate = 1.0
        self.events: list[dict[str, Any]] = []
        self.ended = False
        self._kept: dict[str, Tensor] = {}

    def complaint(self, review: Review) -> str:
        """What is wrong with a state; empty if it is good."""
        anchor, rollback = self.config.anchor, self.config.rollback
        before = self.first.perplexity if self.first is not None else None
        if review.perplexity is not None and before is not None and review.perplexity > anchor.ratio_max * before:
            return f"anchor perplexity {review.perplexity:.4g}, before {before:.4g}"
        if review.reward is not None and self.best is not None and review.reward["reward"] < self.best - rollback.drop:
            return f"held-out reward {review.reward['reward']:.4g}, best {self.best:.4g}"
        return ""

    def keep(self, review: Review) -> None:
        """The state is good."""
        self.first, self.good = self.first or review, review
        if review.reward is not None:
            self.best = max(review.reward["reward"], self.best if self.best is not None else review.reward["reward"])
        parameters = {f"parameter.{name}": p.detach() for name, p in self.optimizer.named.items()}
        self._kept = {name: tensor.clone() for name, tensor in {**parameters, **self.optimizer.tensors()}.items()}

    def go_back(self, position: int, update: int, complaint: str) -> None:
        """Parameters and Adam as they were when last found good, and half the learning rate."""
        for name, parameter in self.optimizer.named.items():
            parameter.data.copy_(self._kept[f"parameter.{name}"])
        self.optimizer.adam.state.clear()
        # Adam changes its state in place.
        self.optimizer.restore({name: tensor.clone() for name, tensor in self._kept.items()})
        self.rate *= RATE_AFTER_ROLLBACK
        self.ended = len(self.events) >= self.config.rollback.limit
        self.events.append({"position": position, "update": update, "why": complaint, "ended": self.ended})

    def kept_parameters(self) -> dict[str, Tensor]:
        """The good state's parameters by their names in the optimizer."""
        return under("parameter.", self._kept)

    def tensors(self) -> dict[str, Tensor]:
        """The good state."""
        return {f"good.{name}": tensor for name, tensor in self._kept.items()}

    def values(self) -> dict[str, Any]:
        """The rest."""
        first, good = (asdict(review) if review is not None else None for review in (self.first, self.good))
        return {
            "first": first, "good": good, "best": self.best, "rate": self.rate, "events": list(self.events),
            "ended": self.ended,
        }  # fmt: skip

    def restore(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """See `Phase`."""
        device = next(iter(self.optimizer.named.values())).device
        self.first, self.good = (Review(**values[name]) if values[name] else None for name in ("first", "good"))
        self.best, self.rate, self.events = values["best"], values["rate"], list(values["events"])
        self.ended = values["ended"]
        kept = under("good.", tensors)
        self._kept = {name: t.clone() if name.endswith(".step") else t.to(device) for name, t in kept.items()}
