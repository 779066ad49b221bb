"""Measures on held-out validation rows. The test split is never read in training."""

from collections.abc import Sequence
from typing import Any

import torch

from so8t.labels import LABEL_TOKENS
from so8t.loop import ranks
from so8t.measures import classification
from so8t.train.data import FINAL, SAFETY, Sample, answer_token
from so8t.train.learner import Learner

EVALUATION_BATCH = 32


def measure(learner: Learner, samples: Sequence[Sample]) -> dict[str, Any]:
    """Four-class macro-F1 on text, accuracy on digits and tones, each by comparing single tokens."""
    result: dict[str, Any] = {}
    with torch.no_grad(), learner.text.cached(), learner.sight.cached():
        text = [sample for sample in samples if sample.record.modality == "text"]
        if text:
            tokens = learner.tokenizer.convert_tokens_to_ids(list(LABEL_TOKENS))
            guessed = choose(learner, text, _forced(learner, text, SAFETY), tokens)
            result["classes"] = classification([sample.record.label for sample in text], guessed)
        for modality in ("image", "audio"):
            shown = [sample for sample in samples if sample.record.modality == modality]
            if shown:
                answers = sorted({sample.record.answer for sample in shown})
                tokens = [answer_token(answer, learner.tokenizer) for answer in answers]
                guessed = choose(learner, shown, _forced(learner, shown, FINAL), tokens)
                hits = sum(answers[g] == s.record.answer for g, s in zip(guessed, shown, strict=True))
                result[modality] = {"accuracy": hits / len(shown), "n": len(shown), "answers": len(answers)}
    return result


def _forced(learner: Learner, samples: Sequence[Sample], mark: str) -> list[list[int]]:
    return [sample.prefix(mark, learner.tokenizer) for sample in samples]


def choose(learner: Learner, samples: Sequence[Sample], prefixes: Sequence[list[int]], tokens: list[int]) -> list[int]:
    """For each sample the index in `tokens` of what the model finds likeliest after its prefix."""
    ordered = sorted(range(len(samples)), key=lambda i: len(samples[i].prompt))
    mine: list[tuple[int, int]] = []
    for start in ranks.share(range(0, len(samples), EVALUATION_BATCH)):
        picked = ordered[start : start + EVALUATION_BATCH]
        part = [samples[i] for i in picked]
        logits = learner.next_logits([prefixes[i] for i in picked], learner.pixels(part))
        mine += zip(picked, logits[:, tokens].argmax(-1).tolist(), strict=True)
    chosen = dict(one for told in ranks.everyones(mine) for one in told)
    return [chosen[i] for i in range(len(samples))]
