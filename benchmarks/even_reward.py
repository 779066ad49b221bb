"""A reward with a known ceiling in the only form that TRL's PPOTrainer takes: a model."""

from types import SimpleNamespace
from typing import Any

import torch
from torch.nn import functional


class EvenBackbone(torch.nn.Module):
    """Gives, as if they were hidden states, the share of even ids in the reply up to each position."""

    def __init__(self, prompt: int) -> None:
        super().__init__()
        self.prompt = prompt

    def forward(self, input_ids: torch.Tensor, **_: Any) -> SimpleNamespace:
        """[B, L] -> one hidden state [B, L, 1]; the first `prompt` ids are no reply."""
        even = (input_ids[:, self.prompt :] % 2 == 0).float().cumsum(1)
        share = even / torch.arange(1, even.shape[1] + 1, device=even.device)
        return SimpleNamespace(hidden_states=[functional.pad(share, (self.prompt, 0))[..., None]])


class EvenReward(torch.nn.Module):
    """The share of even ids among a reply's tokens: half by chance, 1 at most."""

    base_model_prefix = "backbone"

    def __init__(self, prompt: int) -> None:
        super().__init__()
        self.backbone, self.score = EvenBackbone(prompt), torch.nn.Identity()
