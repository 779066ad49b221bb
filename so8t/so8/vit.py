"""SO8ViT: a SigLIP-shaped image tower and a two-layer projector, joined to Phi-3 by transformers' Llava.

The shape is the one that llama.cpp runs: no class token, a fixed square image, tanh gelu in the tower
and in the projector, and the last block's output before `post_layernorm` as the feature.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from so8t import durable
from so8t.errors import InputError
from so8t.so8.adapter import PARTS
from so8t.so8.generators import BLOCK
from so8t.so8.rotation import RotationMap

FEATURE_LAYER = -1
# What ggml_gelu computes, in the tower and in the mlp projector; the erf gelu is not what runs there.
ACTIVATION = "gelu_pytorch_tanh"
# File names as transformers' Llava writes them; in memory both parts lie below `model.`.
TOWER, PROJECTOR = "vision_tower.", "multi_modal_projector."
LINEARS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj", "mlp.fc1", "mlp.fc2")


@dataclass(frozen=True)
class Vision:
    """Everything about the tower that the model side needs to know; `vision/config.json`."""

    vision_config: dict[str, Any]
    projector_hidden_act: str
    image_token_id: int
    image_size: int
    patch_size: int
    tokens: int
    image_mean: list[float]
    image_std: list[float]
    feature_layer: int
    alpha: float
    map: RotationMap = "cayley"

    def write(self, path: Path) -> None:
        """Write the JSON file."""
        durable.write_json(path, asdict(self))

    @classmethod
    def read(cls, path: Path) -> "Vision":
        """Read the JSON file."""
        return cls(**durable.read_json(path))

    def pixel_values(self, images: Sequence[bytes]) -> Tensor:
        """Encoded RGB images of the right size -> normalised fp32 [n, 3, size, size]; InputError for another size."""
        arrays = []
        for data in images:
            picture = Image.open(io.BytesIO(data)).convert("RGB")
            if picture.size != (self.image_size, self.image_size):
                raise InputError(
                    f"an image of {picture.size[0]}x{picture.size[1]}",
                    f"{self.image_size}x{self.image_size}",
                    "give preprocess.image_size and train.vision.image_size the same value",
                )
            arrays.append(np.asarray(picture, dtype=np.float32) / 255.0)
        pixels = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (self.image_mean, self.image_std))
        return ((pixels - mean) / std).contiguous()


def describe(
    *, hidden: int, layers: int, heads: int, intermediate: int, image_size: int, patch_size: int, image_token_id: int
) -> Vision:
    """A tower of this geometry; SigLIP's normalisation to [-1, 1]."""
    vision_config = {
        "model_type": "siglip_vision_model",
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_channels": 3,
        "image_size": image_size,
        "patch_size": patch_size,
        "hidden_act": ACTIVATION,
        "layer_norm_eps": 1e-6,
        "attention_dropout": 0.0,
        "vision_use_head": False,
    }
    vision = Vision(
        vision_config=vision_config,
        projector_hidden_act=ACTIVATION,
        image_token_id=image_token_id,
        image_size=image_size,
        patch_size=patch_size,
        tokens=(image_size // patch_size) ** 2,
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.5, 0.5, 0.5],
        feature_layer=FEATURE_LAYER,
        alpha=1.0,
    )
    check_shape(vision)
    return vision


def check_shape(vision: Vision) -> None:
    """InputError unless llama.cpp computes this tower as transformers does."""
    tower = vision.vision_config
    # A class token shifts all rows by one there; a pooling head it has not; the erf gelu is not what runs.
    wanted: dict[str, tuple[Any, Any]] = {
        "model_type": (tower.get("model_type"), "siglip_vision_model"),
        "vision_use_head": (tower.get("vision_use_head"), False),
        "hidden_act": (tower.get("hidden_act"), ACTIVATION),
        "num_channels": (tower.get("num_channels"), 3),
        "image_size": (tower.get("image_size"), vision.image_size),
        "patch_size": (tower.get("patch_size"), vision.patch_size),
        "projector_hidden_act": (vision.projector_hidden_act, ACTIVATION),
        "feature_layer": (vision.feature_layer, FEATURE_LAYER),
        # Both drop the rest of an image that fills no patch.
        "tokens": (vision.tokens, (vision.image_size // vision.patch_size) ** 2),
    }
    for name, (found, right) in wanted.items():
        if found != right:
            raise InputError(f"the image tower's {name} is {found!r}", f"{right!r}", "llama.cpp computes no other")
    hidden, heads = tower["hidden_size"], tower["num_attention_heads"]
    if hidden % heads:
        raise InputError(f"a width of {hidden} and {heads} heads", "a width that the heads divide")
    odd = {name: tower[name] for name in ("hidden_size", "intermediate_size") if tower[name] % BLOCK}
    if odd:
        raise InputError(f"the image tower has {odd}", f"multiples of {BLOCK}, the width of a rotation")
    if not vision.tokens:
        raise InputError(f"patches of {vision.patch_size} in an image of {vision.image_size}", "at least one patch")


def join(base: Any, vision: Vision) -> Any:
    """A LlavaForConditionalGeneration around the given Phi3ForCausalLM; tower and projector newly initialised.

    The base's modules are taken over, not copied.
    """
    from transformers import LlavaConfig, LlavaForConditionalGeneration, SiglipVisionConfig, SiglipVisionModel
    from transformers.models.llava.modeling_llava import LlavaMultiModalProjector

    fields = {name: value for name, value in vision.vision_config.items() if name != "model_type"}
    tower_config = SiglipVisionConfig(**fields)
    config = LlavaConfig(
        vision_config=tower_config,
        text_config=base.config,
        image_token_index=vision.image_token_id,
        image_token_id=vision.image_token_id,
        projector_hidden_act=vision.projector_hidden_act,
        vision_feature_select_strategy="full",
        vision_feature_layer=vision.feature_layer,
        image_seq_length=vision.tokens,
        tie_word_embeddings=False,
        attn_implementation=base.config._attn_implementation,
    )
    with torch.device("meta"):
        model = LlavaForConditionalGeneration(config)
    device = base.lm_head.weight.device
    model.model.vision_tower = SiglipVisionModel._from_config(tower_config, attn_implementation="eager").to(device)
    model.model.multi_modal_projector = LlavaMultiModalProjector(config).to(device)
    model.model.language_model, model.lm_head = base.model, base.lm_head
    model.generation_config = base.generation_config
    return model.eval()


def vision_modules(model: Any) -> dict[str, nn.Module]:
    """Tower and projector of a joined model by their prefix in the file."""
    return {TOWER: model.model.vision_tower, PROJECTOR: model.model.multi_modal_projector}


def own_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters of a module without those of adapters that wrap its linears."""
    return {name: p for name, p in module.named_parameters() if name.rpartition(".")[2] not in PARTS}


def vision_state(model: Any) -> dict[str, Tensor]:
    """Tower and projector under Llava's file names, fp32 on the CPU, without adapters."""
    return {
        prefix + name: parameter.detach().float().cpu().clone()
        for prefix, module in vision_modules(model).items()
        for name, parameter in own_parameters(module).items()
    }


def load_vision(model: Any, state: Mapping[str, Tensor]) -> None:
    """Put tensors under Llava's file names into tower and projector; InputError for any that is absent or odd."""
    for prefix, module in vision_modules(model).items():
        mine = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
        wanted = own_parameters(module)
        if set(mine) != set(wanted):
            odd = sorted(set(mine) ^ set(wanted))
            raise InputError(
                f"{prefix}{odd[0]} is absent or unknown ({len(odd)} such)", "the tower of vision/config.json"
            )
        for name, parameter in wanted.items():
            parameter.data.copy_(mine[name])


def load_vision_file(model: Any, path: Path) -> None:
    """Like `load_vision`, from a safetensors file."""
    load_vision(model, load_file(path))
