"""The model in training: frozen base, tower, projector, adapters, token rows and value head under one roof."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from so8t.batching import pad, positions_of
from so8t.errors import InputError
from so8t.labels import Label
from so8t.models import load_base, load_tokenizer, stop_ids
from so8t.so8.adapter import Adapters
from so8t.so8.linear import Placement, Setting
from so8t.so8.placing import enable_recomputing, recomputing, text_adapters
from so8t.so8.pretrained import as_pretrained, load_tower
from so8t.so8.vit import (
    LINEARS,
    TOWER,
    Vision,
    describe,
    join,
    own_parameters,
    vision_modules,
    vision_state,
)
from so8t.thinking import IMAGE_TOKEN
from so8t.train.config import Train
from so8t.train.data import Batch, Sample


@dataclass
class Learner:
    """Everything that phases share. What they train is in `text`, `sight`, tower, projector and `value_head`."""

    model: Any  # LlavaForConditionalGeneration
    tokenizer: Any
    vision: Vision
    text: Adapters
    sight: Adapters
    value_head: nn.Linear
    head: nn.Linear  # four classes, on the masked mean of the prompt's hidden states
    token_ids: dict[str, int]
    stop: list[int]
    device: torch.device
    initial_vision: dict[str, Tensor]
    recompute: bool = False
    frozen_tower: bool = False
    _own: dict[str, Tensor] = field(init=False, repr=False)
    _alpha: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._alpha = torch.ones((), dtype=torch.float64)
        parameters: dict[str, Tensor] = {f"text.{name}": p for name, p in self.text.parameters().items()}
        parameters |= {f"sight.{name}": p for name, p in self.sight.parameters().items()}
        for prefix, module in vision_modules(self.model).items():
            if prefix == TOWER and self.frozen_tower:
                # It can be loaded again, and is many times as large as all that is trained.
                continue
            parameters |= {f"vision.{prefix}{name}": p for name, p in own_parameters(module).items()}
        parameters |= {
            "value_head": self.value_head.weight, "head.weight": self.head.weight, "head.bias": self.head.bias
        }  # fmt: skip
        self._own = {name: parameter.detach() for name, parameter in parameters.items()} | {"alpha": self._alpha}

    @property
    def alpha(self) -> float:
        """How far the language model's rotations are turned once they are learnt."""
        return float(self._alpha)

    def set_alpha(self, alpha: float) -> None:
        """Turn them so far from now on; a change of the state, for commits only."""
        self._alpha.fill_(alpha)
        self.text.setting.alpha = alpha

    @contextmanager
    def backward_pass(self) -> Iterator[None]:
        """Forward passes in the block keep only what `recompute` leaves them."""
        with recomputing(list(self.model.model.language_model.layers) if self.recompute else []):
            yield

    @property
    def pad_id(self) -> int:
        """Any id does where the mask is 0."""
        return self.stop[0]

    def tensors(self) -> dict[str, Tensor]:
        """All that training changes: the very memory, not copies.

        It was looked up at the start, because parameters point elsewhere while the reference policy borrows them,
        and a signal may come just then.
        """
        return dict(self._own)

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what `tensors` gave."""
        if set(tensors) != set(self._own):
            odd = sorted(set(tensors) ^ set(self._own))
            raise InputError(f"{odd[0]} is absent or unknown ({len(odd)} such)", "the tensors of this very training")
        for name, tensor in self._own.items():
            if tensors[name].shape != tensor.shape:
                raise InputError(f"{name} has the shape {tuple(tensors[name].shape)}", f"{tuple(tensor.shape)}")
            tensor.copy_(tensors[name])
        self.set_alpha(self.alpha)

    def collate(self, samples: Sequence[Sample]) -> Batch:
        """Samples of one kind (all with images, or none), padded on the right."""
        ids = [sample.ids for sample in samples]
        weights = [[0.0] * len(sample.prompt) + sample.weights for sample in samples]
        return Batch(
            pad(ids, self.pad_id).to(self.device),
            pad([[1] * len(row) for row in ids], 0).to(self.device),
            pad(weights, 0.0, dtype=torch.float32).to(self.device),
            self.pixels(samples),
        )

    def pixels(self, samples: Sequence[Sample]) -> Tensor | None:
        """The samples' images, normalised; None for text."""
        images = [sample.record.image for sample in samples if sample.record.image]
        return self.vision.pixel_values(images).to(self.device) if images else None

    def hidden(self, ids: Tensor, mask: Tensor, pixels: Tensor | None = None) -> Tensor:
        """Last hidden states [B, L, hidden], after the final norm."""
        output = self.model.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions_of(mask),
            pixel_values=pixels,
            vision_feature_layer=self.vision.feature_layer,
            vision_feature_select_strategy="full",
            use_cache=False,
        )
        states: Tensor = output.last_hidden_state
        return states

    def next_logits(self, prefixes: Sequence[Sequence[int]], pixels: Tensor | None) -> Tensor:
        """Logits [B, vocabulary] of the token after each prefix."""
        ids = pad(prefixes, self.pad_id, left=True).to(self.device)
        mask = pad([[1] * len(row) for row in prefixes], 0, left=True).to(self.device)
        logits: Tensor = self.model.lm_head(self.hidden(ids, mask, pixels)[:, -1]).float()
        return logits


def build(
    config: Train,
    base_folder: Path,
    tokenizer_folder: Path,
    token_ids: dict[str, int],
    device: str,
    tower: Path | None = None,
) -> Learner:
    """Assemble the learner; new tensors are drawn from the seed alone, whatever ran before.

    `tower`: the folder of a pretrained one, which stays frozen.
    """
    torch.manual_seed(config.seed)
    base = load_base(base_folder, config.adapter.base_dtype, device)
    base.requires_grad_(False)
    eye = config.vision
    vision = describe(
        hidden=eye.hidden,
        layers=eye.layers,
        heads=eye.heads,
        intermediate=eye.intermediate,
        image_size=eye.image_size,
        patch_size=eye.patch_size,
        image_token_id=token_ids[IMAGE_TOKEN],
    )
    vision = replace(vision, map=config.adapter.map)
    if tower is not None:
        vision = as_pretrained(vision, tower)
    hidden = base.config.hidden_size
    model = join(base, vision)
    if tower is not None:
        load_tower(model.model.vision_tower, tower)
    if config.adapter.gradient_checkpointing:
        enable_recomputing(model.model.language_model)
    initial = vision_state(model)
    text = _text_adapters(config, model, token_ids)
    sight = Adapters(Setting(apply_to=config.adapter.apply_to, rotation_map=vision.map))
    if eye.adapters:
        placements = {f"{TOWER}encoder.layers.{i}.{name}": Placement() for i in range(eye.layers) for name in LINEARS}
        sight.attach(model.model.vision_tower, TOWER, placements)
    value_head, head = nn.Linear(hidden, 1, bias=False).to(device), nn.Linear(hidden, len(Label)).to(device)
    for tensor in (value_head.weight, head.weight, head.bias):
        nn.init.zeros_(tensor)
    learner = Learner(
        model, load_tokenizer(tokenizer_folder), vision, text, sight, value_head, head, token_ids,
        stop_ids(base_folder), torch.device(device), initial, config.adapter.gradient_checkpointing, tower is not None,
    )  # fmt: skip
    freeze(learner)
    return learner


def _text_adapters(config: Train, model: Any, token_ids: dict[str, int]) -> Adapters:
    adapters = text_adapters(config.adapter, model.model.language_model, "train.adapter")
    adapters.attach_rows(model.model.language_model, model, sorted(token_ids.values()))
    generator = torch.Generator().manual_seed(config.seed)
    adapters.init_low_rank(generator)
    _init_rows(adapters, generator, spare=min(token_ids.values()))
    return adapters


def _init_rows(adapters: Adapters, generator: torch.Generator, spare: int) -> None:
    """Rows of the added tokens: as large as a usual row and all different; a base's spare rows may be all equal."""
    for module in (adapters.embedding, adapters.head):
        assert module is not None
        used = module.weight.detach()[:spare].float()
        drawn = torch.randn(module.rows.shape, generator=generator).to(used.device)
        module.rows.data.copy_(used.mean(0) + drawn * used.std(0))


def freeze(learner: Learner) -> None:
    """Nothing is trained until a phase says so."""
    learner.model.requires_grad_(False)
    learner.value_head.requires_grad_(False)
    learner.head.requires_grad_(False)


def projector_parameters(learner: Learner) -> dict[str, nn.Parameter]:
    """The projector's parameters by their file names."""
    prefix = "multi_modal_projector."
    return {prefix + name: p for name, p in vision_modules(learner.model)[prefix].named_parameters()}
