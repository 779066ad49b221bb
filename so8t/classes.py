"""What a four-class head learns by: masked pooling, class weights, focal loss (its measures: measures.py).

Legend: N rows, B rows of a batch, L tokens, C = 4 classes in the order of `Label`.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional


def mean_pool(states: Tensor, mask: Tensor) -> Tensor:
    """Mean over the mask [B, L] of hidden states [B, L, hidden]; padding does not count."""
    weights = mask.unsqueeze(-1).to(states.dtype)
    return (states * weights).sum(1) / weights.sum(1)


def max_pool(states: Tensor, mask: Tensor) -> Tensor:
    """The greatest of each channel over the mask [B, L] of hidden states [B, L, hidden]."""
    return states.masked_fill(mask.unsqueeze(-1) == 0, float("-inf")).max(1).values


def balance(counts: Sequence[int], weights: Sequence[float]) -> Tensor:
    """Class weights times inverse frequency [C], with mean 1 over the classes that occur; 0 for one that does not."""
    raw = torch.tensor([w / n if n else 0.0 for w, n in zip(weights, counts, strict=True)])
    return raw / raw[raw > 0].mean()


def focal_loss(logits: Tensor, labels: Tensor, weights: Tensor, gamma: float) -> Tensor:
    """Weighted focal loss (arXiv 1708.02002, eq. 5) of logits [N, C], divided by the weights that really occurred."""
    picked = weights.to(logits.device)[labels]
    return focal_sum(logits, labels, weights, gamma) / picked.sum()


def focal_sum(logits: Tensor, labels: Tensor, weights: Tensor, gamma: float) -> Tensor:
    """The same undivided, for rows that come in parts."""
    logprobs = functional.log_softmax(logits, -1).gather(1, labels[:, None])[:, 0]
    return -(weights.to(logits.device)[labels] * (1 - logprobs.exp()) ** gamma * logprobs).sum()
