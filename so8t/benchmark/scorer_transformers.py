"""The transformers backend: system A, and system B with its adapters live.

Legend: B questions of a batch, L padded length, H hidden size, K choices.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from so8t.benchmark.prompts import Question
from so8t.benchmark.scorer import Reply, scored
from so8t.config import Machine
from so8t.models import pick_device
from so8t.so8.adapted import load_system

PADDING_ID = 0  # padding stands on the right, where causal attention never looks


class TransformersScorer:
    """A Llava-joined Phi-3 in fp32. See `scorer.Scorer`."""

    def __init__(self, base: Path, train: Path, *, adapted: bool, machine: Machine) -> None:
        if machine.threads:
            torch.set_num_threads(machine.threads)
        self._device = pick_device(machine.device)
        self._system = load_system(base, train, adapted, str(self._device))
        self._image_id = self._system.vision.image_token_id

    @torch.inference_mode()
    def choose(self, questions: Sequence[Question]) -> list[list[float]]:
        """See `scorer.Scorer`; prompts are batched, longer choices share their prompt's cache."""
        if any(len(ids) > 1 for question in questions for ids in question.choices):
            return [self._choose_long(question) for question in questions]
        ids_BL, mask_BL = self._padded([self._ids(question) for question in questions])
        hidden_BLH = self._forward(ids_BL, mask_BL, questions).last_hidden_state
        last_BH = hidden_BLH[torch.arange(len(questions), device=self._device), mask_BL.sum(1) - 1]
        logprobs = self._logprobs(last_BH)
        return [
            [float(row[ids[0]]) for ids in question.choices] for row, question in zip(logprobs, questions, strict=True)
        ]

    @torch.inference_mode()
    def generate(self, question: Question, tokens_max: int, stop: Sequence[int]) -> Reply:
        """See `scorer.Scorer`."""
        began = time.monotonic()
        ids = self._ids(question)
        ids_BL, mask_BL = self._padded([ids])
        output = self._forward(ids_BL, mask_BL, [question], use_cache=True)
        token = self._likeliest(output)
        read = time.monotonic()
        found: list[int] = []
        while len(found) < tokens_max and token not in stop:
            found.append(token)
            if len(found) < tokens_max:
                past = output.past_key_values
                step = torch.tensor([[token]], device=self._device)
                output = self._system.model.model(input_ids=step, past_key_values=past, use_cache=True)
                token = self._likeliest(output)
        return Reply(found, len(found) < tokens_max, read - began, time.monotonic() - read)

    def _likeliest(self, output: Any) -> int:
        return int(self._system.model.lm_head(output.last_hidden_state[0, -1]).argmax())

    def close(self) -> None:
        """See `scorer.Scorer`."""
        del self._system

    def _ids(self, question: Question) -> list[int]:
        return [*question.before, *[self._image_id] * question.image_tokens, *question.tail]

    def _padded(self, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Ids [B, L] and mask [B, L], padded on the right."""
        longest = max(map(len, rows))
        ids = torch.tensor([[*row, *[PADDING_ID] * (longest - len(row))] for row in rows], device=self._device)
        lengths = torch.tensor([[len(row)] for row in rows], device=self._device)
        return ids, (torch.arange(longest, device=self._device)[None] < lengths).long()

    def _forward(self, ids_BL: Tensor, mask_BL: Tensor, questions: Sequence[Question], use_cache: bool = False) -> Any:
        images = [question.image for question in questions if question.image]
        pixels = self._system.pixel_values(images) if images else None
        return self._system.model.model(
            input_ids=ids_BL, attention_mask=mask_BL, pixel_values=pixels, use_cache=use_cache
        )

    def _logprobs(self, hidden: Tensor) -> Tensor:
        """[..., H] -> natural log-probabilities [..., V] in float64 on the CPU."""
        return torch.log_softmax(self._system.model.lm_head(hidden).double().cpu(), -1)

    def _choose_long(self, question: Question) -> list[float]:
        """Log-likelihood of choices of any length: the prompt once, then all continuations as one batch."""
        ids_BL, mask_BL = self._padded([self._ids(question)])
        output = self._forward(ids_BL, mask_BL, [question], use_cache=True)
        first = self._logprobs(output.last_hidden_state[0, -1])
        tokens = [[float(first[ids[0]])] for ids in question.choices]
        longer = [k for k, ids in enumerate(question.choices) if len(ids) > 1]
        cache = output.past_key_values
        cache.batch_repeat_interleave(len(longer))
        ids_KL, mask_KL = self._padded([question.choices[k][:-1] for k in longer])
        whole = torch.cat([mask_BL.expand(len(longer), -1), mask_KL], 1)
        hidden = self._system.model.model(
            input_ids=ids_KL, attention_mask=whole, past_key_values=cache, use_cache=True
        ).last_hidden_state
        rows = self._logprobs(hidden)
        for row, k in zip(rows, longer, strict=True):
            rest = question.choices[k][1:]
            tokens[k] += [float(row[position, token]) for position, token in enumerate(rest)]
        return [scored(question, k, logprobs) for k, logprobs in enumerate(tokens)]
