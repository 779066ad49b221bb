"""How far apart two models are on the same token ids. B: position, V: vocabulary."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from so8t.llama import log_softmax

Floats = NDArray[np.float32]


@dataclass
class Parity:
    """Sums over texts; `reference` is the model that is to be matched."""

    positions: int = 0
    same_top1: int = 0
    kl_sum: float = 0.0
    reference_nll: float = 0.0
    nll: float = 0.0
    targets: int = 0
    difference_max: float = 0.0
    reference_max: float = 0.0
    not_finite: int = 0

    def add(self, reference_BV: Floats, found_BV: Floats, ids: list[int]) -> None:
        """Compare the logits of one text of which `ids` are the tokens."""
        self.not_finite += int((~np.isfinite(found_BV)).sum())
        # np.maximum keeps a NaN, which Python's max may drop.
        self.difference_max = float(np.maximum(self.difference_max, np.abs(reference_BV - found_BV).max()))
        self.reference_max = float(np.maximum(self.reference_max, np.abs(reference_BV).max()))
        self.positions += len(ids)
        self.same_top1 += int((reference_BV.argmax(-1) == found_BV.argmax(-1)).sum())
        p, q = log_softmax(reference_BV), log_softmax(found_BV)
        self.kl_sum += float((np.exp(p) * (p - q)).sum())
        targets = np.array(ids[1:])
        rows = np.arange(len(targets))
        self.reference_nll -= float(p[rows, targets].sum())
        self.nll -= float(q[rows, targets].sum())
        self.targets += len(targets)

    @property
    def relative_error(self) -> float:
        """max |dlogit| / max |logit|."""
        return self.difference_max / self.reference_max

    @property
    def top1(self) -> float:
        """Share of positions with the same most probable token."""
        return self.same_top1 / self.positions

    @property
    def kl(self) -> float:
        """Mean KL(reference || found), nats per position."""
        return self.kl_sum / self.positions

    @property
    def perplexity_ratio(self) -> float:
        """Perplexity of the found model over that of the reference."""
        return float(np.exp((self.nll - self.reference_nll) / self.targets))

    def facts(self) -> dict[str, float | int]:
        """The numbers, for the manifest."""
        return {
            "positions": self.positions,
            "difference_max": self.difference_max,
            "relative_error": self.relative_error,
            "top1": self.top1,
            "kl": self.kl,
            "reference_perplexity": float(np.exp(self.reference_nll / self.targets)),
            "perplexity_ratio": self.perplexity_ratio,
        }


def cosine_least(references: Iterable[Floats], found: Iterable[Floats]) -> float:
    """The least `cosine_min` of several pairs; NaN where one of them is."""
    return float(np.min([cosine_min(*pair) for pair in zip(references, found, strict=True)]))


def cosine_min(reference: Floats, found: Floats) -> float:
    """The cosine of the least alike row of two `[tokens, hidden]` arrays."""
    a, b = reference.astype(np.float64), found.astype(np.float64)
    cosines = (a * b).sum(-1) / (np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1))
    return float(cosines.min())
