"""Trainable rows of the embedding and the head, for tokens that were added to the vocabulary."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from so8t.so8.linear import Setting


class _Rows(nn.Module):
    """Trainable rows in the place of some of a weight's [vocabulary, hidden]."""

    weight: Tensor
    token_ids: Tensor

    def __init__(self, module: nn.Embedding | nn.Linear, token_ids: Tensor, setting: Setting) -> None:
        super().__init__()
        self.weight, self.setting = module.weight, setting
        self.rows = nn.Parameter(module.weight.detach()[token_ids].float().clone())
        self.register_buffer("token_ids", token_ids, persistent=False)
        self._plain: Tensor | None = None

    def merge(self) -> None:
        """Write the rows into the weight; the plain ones are kept."""
        self._plain = self.weight.data[self.token_ids]
        self.weight.data[self.token_ids] = self.rows.detach().to(self.weight.dtype)

    def unmerge(self) -> None:
        """Write the plain rows back."""
        if self._plain is not None:
            self.weight.data[self.token_ids], self._plain = self._plain, None


class RowsEmbedding(_Rows):
    """An embedding of which the rows of the added tokens are replaced."""

    row_of: Tensor

    def __init__(self, embedding: nn.Embedding, token_ids: Tensor, setting: Setting) -> None:
        super().__init__(embedding, token_ids, setting)
        self.num_embeddings, self.embedding_dim = embedding.num_embeddings, embedding.embedding_dim
        row_of = torch.full((embedding.num_embeddings,), -1, dtype=torch.long, device=token_ids.device)
        row_of[token_ids] = torch.arange(len(token_ids), device=token_ids.device)
        self.register_buffer("row_of", row_of, persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        """[...] -> [..., hidden]."""
        plain = functional.embedding(ids, self.weight)
        if not self.setting.live:
            return plain
        row = self.row_of[ids]
        added = functional.embedding(row.clamp(min=0), self.rows).to(plain.dtype)
        return torch.where((row >= 0).unsqueeze(-1), added, plain)


class RowsHead(_Rows):
    """An output projection of which the rows of the added tokens are replaced."""

    def __init__(self, head: nn.Linear, token_ids: Tensor, setting: Setting) -> None:
        super().__init__(head, token_ids, setting)
        self.bias = None
        self.in_features, self.out_features = head.in_features, head.out_features

    def forward(self, x: Tensor) -> Tensor:
        """[..., hidden] -> [..., vocabulary]."""
        # On a CPU, torch 2.13 copies a bf16 weight into fp32 for a slice: 376 MiB for Phi-3.5's head.
        x = x.contiguous()
        logits = functional.linear(x, self.weight)
        if not self.setting.live:
            return logits
        added = functional.linear(x.to(self.rows.dtype), self.rows).to(logits.dtype)
        return logits.index_copy(-1, self.token_ids, added)
