"""A pretrained SigLIP tower from a folder laid out like its Hub repository, read as SO8ViT's tower.

Its text half and its pooling head stay behind: the feature is the last block's output.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from so8t.durable import read_json
from so8t.errors import InputError
from so8t.models import weight_files
from so8t.so8.vit import ACTIVATION, TOWER, Vision, check_shape, own_parameters

# The name in a config of ours -> the name in SigLIP's.
GEOMETRY = {
    "hidden": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "intermediate": "intermediate_size",
    "image_size": "image_size",
    "patch_size": "patch_size",
}
# PIL's numbers, as preprocessor_config.json has them.
RESAMPLING = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
TYPES = ("siglip", "siglip_vision_model")


def read_tower(folder: Path) -> dict[str, Any]:
    """Geometry by our names, `layer_norm_eps`, `image_mean`, `image_std`, `resampling`.

    InputError unless the folder holds a SigLIP whose pictures are made as ours are: square, scaled to [0, 1], normalised.
    """
    from transformers import SiglipVisionConfig

    config, pictures = (_read(folder / name) for name in ("config.json", "preprocessor_config.json"))
    if config.get("model_type") not in TYPES:
        raise InputError(
            f"{folder} holds a {config.get('model_type')!r}", " or ".join(TYPES),
            "choose a SigLIP: llama.cpp computes a tower with a class token wrongly, and SigLIP 2's flexible one not at all",
        )  # fmt: skip
    # What the file leaves out has SigLIP's default, which is not written there.
    shape = SiglipVisionConfig(**config.get("vision_config", {} if config["model_type"] == "siglip" else config))
    if shape.hidden_act != ACTIVATION or shape.num_channels != 3:
        raise InputError(
            f"the tower of {folder} has {shape.hidden_act} on {shape.num_channels} channels", f"{ACTIVATION} on 3"
        )
    size = pictures.get("size", {})
    edges = (size, size) if isinstance(size, int) else (size.get("height"), size.get("width"))
    if edges != (shape.image_size, shape.image_size):
        raise InputError(f"{folder} makes pictures of {edges}", f"the tower's own {shape.image_size} squared")
    scale = pictures.get("rescale_factor", 1 / 255)
    if abs(scale * 255 - 1) > 1e-6 or not pictures.get("do_normalize", True):
        raise InputError(
            f"{folder} scales pixels by {scale} or does not normalise them", "1/255, then mean and deviation"
        )
    resampling = RESAMPLING.get(pictures.get("resample", 3))
    if resampling is None:
        raise InputError(f"{folder} resamples by PIL's {pictures['resample']}", f"one of {RESAMPLING}")
    return {
        **{ours: getattr(shape, theirs) for ours, theirs in GEOMETRY.items()},
        "layer_norm_eps": shape.layer_norm_eps,
        "image_mean": pictures.get("image_mean", [0.5] * 3),
        "image_std": pictures.get("image_std", [0.5] * 3),
        "resampling": resampling,
    }


def as_pretrained(vision: Vision, folder: Path) -> Vision:
    """`vision` with the tower's own constants; InputError where its geometry is another than the config's."""
    tower = read_tower(folder)
    differing = {ours: tower[ours] for ours, theirs in GEOMETRY.items() if vision.vision_config[theirs] != tower[ours]}
    if differing:
        raise InputError(
            f"train.vision says { ({n: vision.vision_config[GEOMETRY[n]] for n in differing}) }",
            f"the pretrained tower's own {differing}",
            "write these values into train.vision",
        )
    changed = replace(
        vision,
        vision_config={**vision.vision_config, "layer_norm_eps": tower["layer_norm_eps"]},
        image_mean=tower["image_mean"],
        image_std=tower["image_std"],
    )
    check_shape(changed)
    return changed


def load_tower(tower: Any, folder: Path) -> None:
    """Put the folder's weights into a joined model's tower; InputError where one is absent or has another shape."""
    found: dict[str, Tensor] = {}
    for path in weight_files(folder):
        for name, tensor in load_file(path).items():
            found[name.removeprefix("vision_model.")] = tensor
    for name, parameter in own_parameters(tower).items():
        if name not in found or found[name].shape != parameter.shape:
            shape = tuple(found[name].shape) if name in found else "absent"
            raise InputError(f"{folder}: {TOWER}{name} is {shape}", f"{tuple(parameter.shape)}")
        parameter.data.copy_(found[name])


def _read(path: Path) -> dict[str, Any]:
    try:
        value: dict[str, Any] = read_json(path)
    except (FileNotFoundError, ValueError) as error:
        raise InputError(
            f"{path}: {error}", "a folder laid out like a SigLIP repository, preprocessor_config.json included"
        ) from None
    return value
