"""Replies of the policy, or of the bare base, to text and image prompts.

B replies, C prompt positions (padded on the left), T response positions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from so8t.batching import pad
from so8t.loop import ranks
from so8t.models import END_TOKEN
from so8t.train.data import Sample
from so8t.train.learner import Learner
from so8t.train.pictures import Pictures, embed

# A static cache of few different sizes: a GPU compiles the decoding step anew for each.
STATIC_STEP = 64


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn; a temperature of 0 takes the likeliest."""

    max_new_tokens: int
    temperature: float
    cache: Literal["dynamic", "static"] = "dynamic"
    rows: int = 0
    """Replies that a process generates together; 0: all of its share. Fewer draw other random numbers."""


@dataclass(frozen=True)
class Replies:
    """What was generated: ids [B, C + T], mask of real tokens, context length C, mask [B, T] of the reply."""

    ids: Tensor
    mask: Tensor
    context: int
    reply_mask: Tensor
    ended: Tensor
    texts: list[str]


@torch.no_grad()
def generate(learner: Learner, samples: Sequence[Sample], pictures: Pictures, sampling: Sampling) -> Replies:
    """Reply to prompts; draws from the global RNG. The KV cache is gone when this returns."""
    prompts = [sample.prompt for sample in samples]
    ids = pad(prompts, learner.pad_id, left=True).to(learner.device)
    mask = pad([[1] * len(row) for row in prompts], 0, left=True).to(learner.device)
    context = ids.shape[1]
    rows = torch.tensor(ranks.share(range(len(ids))), device=learner.device)
    with learner.text.cached(), ranks.own_random_numbers():
        parts = [
            learner.model.generate(
                inputs_embeds=embed(learner, ids[part], pictures.rows(part)),
                attention_mask=mask[part],
                max_new_tokens=sampling.max_new_tokens,
                eos_token_id=learner.stop,
                pad_token_id=learner.pad_id,
                use_cache=True,
                past_key_values=_static_cache(learner, context, sampling) if sampling.cache == "static" else None,
                **_drawing(sampling.temperature),
            )
            for part in torch.split(rows, sampling.rows or max(1, len(rows)))
            if len(part)
        ]
    reply = ranks.rows_of_all(_stacked(parts, ids, learner.pad_id), len(ids), learner.pad_id)
    is_end = torch.isin(reply, torch.tensor(learner.stop, device=reply.device))
    # Up to and including the first end token: padding may use an end token's id.
    reply_mask = ((is_end.cumsum(1) - is_end.long()) == 0).long()
    texts = [
        learner.tokenizer.decode(row[kept.bool()].tolist(), skip_special_tokens=False).replace(END_TOKEN, "")
        for row, kept in zip(reply, reply_mask, strict=True)
    ]
    whole, real = torch.cat([ids, reply], 1), torch.cat([mask, reply_mask], 1)
    return Replies(whole, real, context, reply_mask, is_end.any(1), texts)


def _stacked(parts: Sequence[Tensor], like: Tensor, fill: int) -> Tensor:
    """Rows of unequal length below each other, `fill` after the shorter ones."""
    width = max((part.shape[1] for part in parts), default=0)
    wide = [functional.pad(part, (0, width - part.shape[1]), value=fill) for part in parts]
    return torch.cat([like.new_empty((0, width)), *wide])


def _drawing(temperature: float) -> dict[str, Any]:
    """Everything is said: what stands in a base's generation_config must not bend the distribution that is trained."""
    if temperature == 0:
        return {"do_sample": False, "temperature": None, "top_k": None, "top_p": None}
    return {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}


def _static_cache(learner: Learner, context: int, sampling: Sampling) -> Any:
    from transformers import StaticCache

    length = -(-(context + sampling.max_new_tokens) // STATIC_STEP) * STATIC_STEP
    return StaticCache(config=learner.model.config.text_config, max_cache_len=length)
