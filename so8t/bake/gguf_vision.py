"""SO8ViT as an mmproj file: the tower and projector that llama.cpp computes with `projector_type = mlp`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from so8t.bake.gguf_file import FileType, Slot, add_general, new_gguf, write_tensors
from so8t.errors import InputError
from so8t.so8.merge import Folded

TOWER, PROJECTOR = "vision_tower.", "multi_modal_projector."
GELU = "gelu_pytorch_tanh"
ACTIVATIONS = (GELU, "gelu")
OUTSIDE = {
    f"{TOWER}embeddings.patch_embedding": "v.patch_embd",
    f"{TOWER}embeddings.position_embedding": "v.position_embd",
    f"{PROJECTOR}linear_1": "mm.0",
    f"{PROJECTOR}linear_2": "mm.2",
}
INSIDE = {
    "layer_norm1": "ln1",
    "layer_norm2": "ln2",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.out_proj": "attn_out",
    "mlp.fc1": "ffn_up",
    "mlp.fc2": "ffn_down",
}
# The feature is the last block's output, before this norm: the file does without it.
LEFT_OUT = f"{TOWER}post_layernorm."


def write_mmproj(
    path: Path, vision: dict[str, Any], folded: Folded, name: str, file_type: FileType, notes: dict[str, str]
) -> None:
    """Write the mmproj; `vision` is vision/config.json. InputError for a tower that llama.cpp would compute wrongly."""
    tower = vision["vision_config"]
    check_shape(vision)
    slots = list(_slots(folded, file_type))
    projection = folded.base.info(f"{PROJECTOR}linear_2.weight").shape[0]
    layers = tower["num_hidden_layers"]
    with new_gguf(path, "clip") as writer:
        add_general(writer, name, "mmproj", file_type, notes)
        writer.add_clip_has_vision_encoder(True)
        writer.add_clip_projector_type("mlp")
        writer.add_bool("clip.use_gelu", True)  # the tanh gelu; without the flag it is quick_gelu
        writer.add_vision_projection_dim(projection)
        writer.add_vision_image_size(vision["image_size"])
        writer.add_vision_patch_size(vision["patch_size"])
        writer.add_vision_embedding_length(tower["hidden_size"])
        writer.add_vision_feed_forward_length(tower["intermediate_size"])
        writer.add_vision_block_count(layers)
        writer.add_vision_head_count(tower["num_attention_heads"])
        writer.add_vision_attention_layernorm_eps(tower["layer_norm_eps"])
        writer.add_vision_image_mean(vision["image_mean"])
        writer.add_vision_image_std(vision["image_std"])
        # Without it the runtime stops one layer early.
        writer.add_array("clip.vision.feature_layer", [layers])
        for _ in write_tensors(writer, slots):
            pass


def check_shape(vision: dict[str, Any]) -> None:
    """InputError unless the tower is one that llama.cpp runs as transformers does."""
    tower = vision["vision_config"]
    wanted: dict[str, tuple[Any, tuple[Any, ...]]] = {
        "model_type": (tower.get("model_type"), ("siglip_vision_model",)),  # a class token shifts all rows by one
        "hidden_act": (tower.get("hidden_act"), (GELU,)),
        "projector_hidden_act": (vision["projector_hidden_act"], ACTIVATIONS),
        "feature_layer": (vision["feature_layer"], (-1,)),
        "vision_use_head": (tower.get("vision_use_head"), (False,)),
    }
    for key, (found, allowed) in wanted.items():
        if found not in allowed:
            raise InputError(
                f"vision {key} is {found!r}", " or ".join(map(repr, allowed)), "llama.cpp computes no other"
            )


def _slots(folded: Folded, file_type: FileType) -> Iterator[Slot]:
    for name in folded.base.names():
        if name.startswith(LEFT_OUT):
            continue
        shape = folded.base.info(name).shape
        # Positions and vectors are added, not multiplied: they stay F32.
        plain = len(shape) == 1 or "position_embedding" in name
        yield Slot(gguf_name(name), shape, "F32" if plain else file_type, [folded.whole(name)])


def gguf_name(name: str) -> str:
    """The mmproj name of a Llava tensor name; InputError where there is none."""
    module, _, kind = name.rpartition(".")
    if module in OUTSIDE:
        return f"{OUTSIDE[module]}.{kind}"
    layer, _, inside = module.removeprefix(f"{TOWER}encoder.layers.").partition(".")
    if layer.isdigit() and inside in INSIDE:
        return f"v.blk.{layer}.{INSIDE[inside]}.{kind}"
    raise InputError(f"the image tower has a tensor {name!r}", "a SigLIP tower without class token or head")
