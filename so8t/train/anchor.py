"""What the base knew before: its own answers to neutral prompts, and how likely the policy still finds them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from so8t.loop import ranks
from so8t.train.config import Anchor
from so8t.train.data import Sample
from so8t.train.generation import Sampling, generate
from so8t.train.learner import Learner
from so8t.train.pictures import no_pictures
from so8t.train.rollout import response_logprobs


@dataclass(frozen=True)
class Anchors:
    """Prompts [n, C] padded on the left with the base's greedy answers [n, T]; part of a checkpoint."""

    ids: Tensor
    mask: Tensor
    context: Tensor  # one number
    reply_mask: Tensor

    @classmethod
    def make(cls, learner: Learner, samples: Sequence[Sample], config: Anchor, rows: int = 0) -> "Anchors":
        """Answered by the bare base, adapters and token rows off, `rows` together."""
        pictures = no_pictures(torch.zeros(len(samples), 1, device=learner.device))
        with learner.text.off():
            replies = generate(learner, samples, pictures, Sampling(config.max_new_tokens, 0.0, rows=rows))
        return cls(replies.ids, replies.mask, torch.tensor(replies.context), replies.reply_mask)

    @torch.no_grad()
    def perplexity(self, learner: Learner, micro_batch: int) -> float:
        """Of the answers under the policy as it is now."""
        total = torch.zeros((), dtype=torch.float64)
        pictures = no_pictures(self.ids)
        with learner.text.cached():
            for rows in ranks.share(torch.split(torch.arange(len(self.ids), device=self.ids.device), micro_batch)):
                logprobs, _ = response_logprobs(
                    learner, self.ids[rows], self.mask[rows], int(self.context), pictures.rows(rows), temperature=1.0
                )
                total += (logprobs * self.reply_mask[rows]).double().sum().cpu()
        ranks.add_up(total)
        # A model that was destroyed finds them impossible; a log keeps finite numbers only.
        return math.exp(min(700.0, -float(total) / int(self.reply_mask.sum())))

    def tensors(self) -> dict[str, Tensor]:
        """By name."""
        return {
            "anchor.ids": self.ids, "anchor.mask": self.mask, "anchor.context": self.context,
            "anchor.reply_mask": self.reply_mask,
        }  # fmt: skip

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], device: torch.device) -> "Anchors":
        """The inverse."""
        return cls(*(tensors[f"anchor.{name}"].to(device) for name in ("ids", "mask", "context", "reply_mask")))
