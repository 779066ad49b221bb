"""Phase `tower`: image tower and projector learn to name what an image shows.

Two losses: a linear probe on the tower's mean feature, and the cosine of the projector's mean output to
the base's own embedding of the answer's token. The second puts the image into the base's space before
the base is asked anything, which is far cheaper than learning it through the whole model.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from so8t.batching import indices
from so8t.loop import ranks
from so8t.loop.phase import Commit, Metrics, Optimizer, warmup_cosine
from so8t.so8.vit import PROJECTOR, TOWER, own_parameters, vision_modules
from so8t.train.config import Vision
from so8t.train.data import Sample, answer_token
from so8t.train.learner import Learner

COSINE_SHARPNESS = 10.0
LABEL_SMOOTHING = 0.1


class Tower:
    """See the module."""

    name = "tower"

    def __init__(
        self, learner: Learner, config: Vision, seed: int, train: Sequence[Sample], held_out: Sequence[Sample]
    ) -> None:
        self.learner, self.config, self.seed = learner, config, seed
        self.train, self.held_out = train, held_out
        self.steps = config.epochs * -(-len(train) // config.batch) if train else 0

    def begin(self) -> None:
        """Answers become classes; the probe is drawn from the seed."""
        self.answers = sorted({sample.record.answer for sample in self.train})
        self.classes = torch.tensor([self.answers.index(sample.record.answer) for sample in self.train])
        device = self.learner.device
        tokens = [answer_token(answer, self.learner.tokenizer) for answer in self.answers]
        rows = self.learner.model.get_input_embeddings().weight.detach()[tokens].float()
        self.anchors = functional.normalize(rows - rows.mean(0), dim=-1) if len(tokens) else rows
        width = self.config.hidden
        drawn = torch.randn(len(self.answers), width, generator=torch.Generator().manual_seed(self.seed)) / width**0.5
        self.probe = nn.Parameter(drawn.to(device))
        tower, projector = vision_modules(self.learner.model).values()
        named = {TOWER + n: p for n, p in own_parameters(tower).items() if "post_layernorm" not in n}
        named |= {PROJECTOR + n: p for n, p in own_parameters(projector).items()}
        decayed = {n: p for n, p in named.items() if p.ndim > 1} | {"probe": self.probe}
        plain = {n: p for n, p in named.items() if p.ndim == 1}
        rate = self.config.learning_rate
        self.optimizer = Optimizer([(decayed, rate, self.config.weight_decay), (plain, rate, 0.0)])

    def step(self, position: int) -> Commit:
        """One batch."""
        picked = indices(len(self.train), self.seed, position, self.config.batch)
        pixels = self.learner.pixels([self.train[i] for i in picked])
        assert pixels is not None
        # The whole batch is shifted and blurred by each process, so that all go on with the same random numbers.
        pixels = self._augment(pixels)
        wanted = self.classes[picked].to(self.learner.device)
        self.optimizer.zero_grad()
        measured = self._backward(pixels, wanted, ranks.share(range(len(picked))))
        self.optimizer.add_up()
        self.optimizer.clip(1.0)

        def commit() -> Metrics:
            self.optimizer.step(warmup_cosine(position, self.steps))
            return {**measured, "epoch": (position + 1) * self.config.batch / len(self.train)}

        return commit

    def _backward(self, pixels: Tensor, wanted: Tensor, mine: list[int]) -> Metrics:
        """Gradients of this process's images; loss and accuracy of the whole batch."""
        sums = {"loss": 0.0, "accuracy": 0.0}
        if mine:
            probed, named = self._logits(pixels[mine])
            answers, total = wanted[mine], len(wanted)
            loss = functional.cross_entropy(probed, answers, label_smoothing=LABEL_SMOOTHING, reduction="sum") / total
            loss = loss + functional.cross_entropy(named, answers, reduction="sum") / total
            loss.backward()  # type: ignore[no-untyped-call]
            sums = {"loss": float(loss.detach()), "accuracy": float((named.argmax(-1) == answers).sum()) / total}
        return ranks.sums(sums)

    def _augment(self, pixels: Tensor) -> Tensor:
        noisy = pixels + self.config.noise * torch.randn(pixels.shape).to(pixels.device)
        reach = self.config.shift
        if not reach:
            return noisy
        moves = torch.randint(-reach, reach + 1, (len(pixels), 2)).tolist()
        return torch.stack([torch.roll(image, tuple(move), (1, 2)) for image, move in zip(noisy, moves, strict=True)])

    def _logits(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        tower, projector = vision_modules(self.learner.model).values()
        features = tower(pixels, output_hidden_states=True).hidden_states[self.learner.vision.feature_layer]
        probed = functional.layer_norm(features.mean(1), (features.shape[-1],)) @ self.probe.T
        seen = functional.normalize(projector(features), dim=-1).mean(1)
        return probed, COSINE_SHARPNESS * seen @ self.anchors.T

    @torch.no_grad()
    def finish(self) -> Callable[[], dict[str, Any]]:
        """Held-out accuracy by nearest anchor, by modality."""
        self.optimizer.freeze()
        self.probe.requires_grad_(False)
        result: dict[str, Any] = {"steps": self.steps, "classes": len(self.answers)}
        for modality in ("image", "audio"):
            samples = [s for s in self.held_out if s.record.modality == modality and s.record.answer in self.answers]
            pixels = self.learner.pixels(samples) if self.steps else None
            if pixels is not None:
                guessed = torch.cat([self._logits(part)[1].argmax(-1) for part in torch.split(pixels, 64)]).tolist()
                hits = sum(self.answers[g] == s.record.answer for g, s in zip(guessed, samples, strict=True))
                result[f"validation_accuracy_{modality}"] = hits / len(samples)
        return lambda: result

    def tensors(self) -> dict[str, Tensor]:
        """Probe and optimizer."""
        return {"probe": self.probe.detach(), **self.optimizer.tensors()}

    def values(self) -> dict[str, Any]:
        """None."""
        return {}

    def restore(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """See `Phase`."""
        self.probe.data.copy_(tensors["probe"])
        self.optimizer.restore(tensors)
