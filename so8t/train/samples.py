"""What the model writes while it learns: the same held-out prompts again and again, greedily.

Nothing of it reaches the training: no random number is drawn, and the adapters are as before.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import torch

from so8t import durable
from so8t.batching import pad
from so8t.models import END_TOKEN
from so8t.session import now
from so8t.train.data import Sample
from so8t.train.learner import Learner


class Samples:
    """Appends a line for each prompt every so many updates of a phase, and at its end."""

    def __init__(
        self,
        learner: Learner,
        held_out: Sequence[Sample],
        path: Path,
        every: int,
        tokens_max: int,
        ended: Mapping[str, Callable[[int], int | None]],
    ) -> None:
        """`ended`: by phase that is looked at, how many updates are done where so many steps end one; else None."""
        self.learner, self.path, self.every, self.tokens_max = learner, path, every, tokens_max
        self.ended = ended
        self.shown = choose(held_out)

    def after(self, phase: str, position: int, steps: int, global_step: int) -> None:
        """Write samples where they are due; `position` steps of the phase's `steps` are done."""
        if not self.every or phase not in self.ended or not self.shown:
            return
        done = self.ended[phase](position)
        if position == steps or (done and done % self.every == 0):
            self._write(phase, global_step)

    def _write(self, phase: str, step: int) -> None:
        replies = [reply for part in self.shown for reply in greedy(self.learner, part, self.tokens_max)]
        lines = [
            {
                "time": now(),
                "phase": phase,
                "step": step,
                "id": sample.record.id,
                "prompt": sample.record.prompt,
                "wanted": sample.record.response,
                "reply": reply,
            }
            for sample, reply in zip((s for part in self.shown for s in part), replies, strict=True)
        ]
        durable.make_folder(self.path.parent)
        with self.path.open("a", encoding="utf-8", newline="\n") as file:
            file.write("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def choose(held_out: Sequence[Sample]) -> list[list[Sample]]:
    """One sample of each class and modality, the first by id; those of one list are generated together."""

    def kind(sample: Sample) -> tuple[bool, str, int]:
        return bool(sample.record.image), sample.record.modality, sample.record.label

    fit = sorted((s for s in held_out if not s.record.nsfw), key=lambda sample: (kind(sample), sample.record.id))
    first = [next(group) for _, group in groupby(fit, kind)]
    return [list(group) for _, group in groupby(first, lambda sample: kind(sample)[0])]


@torch.no_grad()
def greedy(learner: Learner, samples: Sequence[Sample], tokens_max: int) -> list[str]:
    """Replies to prompts of one kind (all with an image, or none), without the end token."""
    prompts = [sample.prompt for sample in samples]
    ids = pad(prompts, learner.pad_id, left=True).to(learner.device)
    mask = pad([[1] * len(row) for row in prompts], 0, left=True).to(learner.device)
    pixels = learner.pixels(samples)
    seen: dict[str, Any] = {} if pixels is None else {"pixel_values": pixels}
    with learner.text.cached(), learner.sight.cached():
        whole = learner.model.generate(
            input_ids=ids,
            attention_mask=mask,
            **seen,
            do_sample=False,
            max_new_tokens=tokens_max,
            eos_token_id=learner.stop,
            pad_token_id=learner.pad_id,
        )
    texts = learner.tokenizer.batch_decode(whole[:, ids.shape[1] :], skip_special_tokens=False)
    return [text.partition(END_TOKEN)[0] for text in texts]
