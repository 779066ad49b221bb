"""What a phase of training is: a number of optimizer steps, each computed first and committed after.

`step` may be abandoned anywhere: it changes nothing that lasts. What it returns is run at once and
undisturbed; all lasting changes (optimizer step, counters, buffers) happen there.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from so8t import asked
from so8t.loop import ranks
from so8t.loop.microbatch import MicroBatch

Metrics = dict[str, float]
Commit = Callable[[], Metrics]


class Trainee(Protocol):
    """What all phases train: the state that outlives each of them."""

    def tensors(self) -> dict[str, Tensor]:
        """All that training changes, by name: the very memory, not copies."""

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what `tensors` gave."""


class Phase(Protocol):
    """One in an order of phases."""

    name: str

    @property
    def steps(self) -> int:
        """How many; a step may end the phase early by lowering it."""

    def begin(self) -> None:
        """Build what is needed from the learner's state at the phase's start."""

    def step(self, position: int) -> Commit:
        """Compute one step."""

    def finish(self) -> Callable[[], dict[str, Any]]:
        """Measure; what the commit gives goes to metrics.json under the phase's name. May be called again."""

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint inside this phase needs beside the learner's own; not copies, and changed by commits only."""

    def values(self) -> dict[str, Any]:
        """The same for plain numbers."""

    def restore(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Take both over, after `begin`."""


class Optimizer:
    """AdamW over named parameters in groups, each with a learning rate of its own."""

    def __init__(
        self,
        groups: list[tuple[dict[str, nn.Parameter], float, float]],
        eps: float = 1e-8,
        betas: tuple[float, float] = (0.9, 0.999),
    ) -> None:
        """`groups`: parameters by name, peak learning rate, weight decay."""
        self.named = {name: p for named, _, _ in groups for name, p in named.items()}
        self.peaks = [rate for _, rate, _ in groups]
        for parameter in self.named.values():
            parameter.requires_grad_(True)
        settings = [
            {"params": list(named.values()), "lr": rate, "weight_decay": decay} for named, rate, decay in groups
        ]
        self.adam = torch.optim.AdamW(settings, eps=eps, betas=betas)

    def zero_grad(self) -> None:
        """Forget gradients."""
        self.adam.zero_grad(set_to_none=True)

    def clip(self, max_norm: float) -> float:
        """Clip the joint gradient norm; give what it was."""
        return float(torch.nn.utils.clip_grad_norm_(list(self.named.values()), max_norm))

    def add_up(self) -> None:
        """Gradients of shares become those of the whole, where several processes train."""
        ranks.add_up_gradients(list(self.named.values()))

    def step(self, factor: float) -> None:
        """One step at `factor` times the peak learning rates, and at what a recovery has made of them."""
        for group, peak in zip(self.adam.param_groups, self.peaks, strict=True):
            group["lr"] = peak * factor * asked.now().rate
        self.adam.step()

    def tensors(self) -> dict[str, Tensor]:
        """Adam's own state by parameter name."""
        return {
            f"adam.{name}.{key}": value.detach()
            for name, parameter in self.named.items()
            for key, value in self.adam.state.get(parameter, {}).items()
        }

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over Adam's state."""
        for name, parameter in self.named.items():
            state = {
                key: tensors[f"adam.{name}.{key}"]
                for key in ("step", "exp_avg", "exp_avg_sq")
                if f"adam.{name}.{key}" in tensors
            }
            if state:
                # Adam keeps its step count on the CPU.
                self.adam.state[parameter] = {
                    k: v.clone() if k == "step" else v.to(parameter.device) for k, v in state.items()
                }

    def freeze(self) -> None:
        """Nothing of this is trained any more."""
        self.zero_grad()
        for parameter in self.named.values():
            parameter.requires_grad_(False)


class OneOptimizer:
    """What a phase with one optimizer and one micro-batch has in a checkpoint."""

    optimizer: Optimizer
    micro: MicroBatch

    def tensors(self) -> dict[str, Tensor]:
        """The optimizer's state."""
        return self.optimizer.tensors()

    def values(self) -> dict[str, Any]:
        """The micro-batch."""
        return {"micro_batch": self.micro.size}

    def restore(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """See `Phase`."""
        self.optimizer.restore(tensors)
        self.micro.restore(values["micro_batch"])


def warmup_cosine(position: int, steps: int, floor: float = 0.0, ramp: float = 0.1) -> float:
    """Linear rise over a share of the steps, then a cosine down to `floor`."""
    rise = max(1, round(ramp * steps))
    if position < rise:
        return (position + 1) / rise
    share = (position - rise) / max(1, steps - rise)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * share))


def linear_decay(position: int, steps: int, floor: float = 0.1) -> float:
    """From 1 down to `floor`."""
    return 1 - (1 - floor) * position / max(1, steps)


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors below a prefix, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
