"""Memory of a training by phase and part, in bytes, from shapes.

Tensors that live through a phase are counted exactly. Activations are counted from what the layer's operations keep
for the backward pass, with eager attention and rotations in fp32; constants say bytes a number and which tensors
they stand for. benchmarks/geometry.py compares the sums with measured peaks.

Legend: tokens are those of one forward pass, length is that of one sequence.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from so8t.plan.geometry import Geometry, TowerShape
from so8t.plan.parameters import BLOCK, Counts, adapted_layers, count, placed
from so8t.train.config import Train

GIB = 1 << 30
# A prompt's text, where nothing is said; an image comes on top. The demo asks a sentence.
TEXT_TOKENS, DEMO_TEXT_TOKENS = 256, 32
# The longest of the demo's own rows has 130 tokens, without template, tags and classes.
DEMO_ROW_TOKENS = 256
FP32 = 4
NF4: str = "nf4"
DTYPE_BYTES = {"float32": 4, "bfloat16": 2, NF4: 2}
# 4 bits, one 8-bit scale for 64 numbers, and one fp32 for 256 scales (Dettmers et al. 2023, section 3).
NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
# Context and libraries of a process that uses CUDA; on the CPU the interpreter with torch and transformers.
CUDA_CONTEXT_BYTES = GIB // 2
PROCESS_BYTES = GIB // 2
# The caching allocator keeps blocks that fit nothing: a share of all that comes and goes.
FRAGMENTATION = 0.1
# An automatic micro-batch leaves the rest to the desktop and to other programs.
ROOM_SHARE = 0.9
# Per logit, backward pass: base-type output twice (head, added rows) while fp32 log-probabilities, their gradient
# and the scaled logits stand beside them.
LOGIT_BYTES = 2 * 2 + 3 * FP32
LOGIT_BYTES_FORWARD = 2 * 2 + 2 * FP32


@dataclass(frozen=True)
class Need:
    """Bytes by part, on the device that computes and in main memory; on a CPU both are the same memory."""

    device: dict[str, int]
    host: dict[str, int] = field(default_factory=dict)

    @property
    def device_bytes(self) -> int:
        """Sum on the device."""
        return sum(self.device.values())

    @property
    def host_bytes(self) -> int:
        """Sum in main memory."""
        return sum(self.host.values())


@dataclass(frozen=True)
class Shapes:
    """What all phases share."""

    config: Train
    geometry: Geometry
    tower: TowerShape
    counts: Counts
    on_gpu: bool
    prompt_tokens: int
    row_tokens: int = 0  # the longest row's, where that is known

    @classmethod
    def of(
        cls, config: Train, geometry: Geometry, tower: TowerShape, on_gpu: bool, prompt_tokens: int, row_tokens: int = 0
    ) -> "Shapes":
        """With the counts."""
        return cls(config, geometry, tower, count(config, geometry, tower), on_gpu, prompt_tokens, row_tokens)

    @property
    def item_bytes(self) -> int:
        """Of one activation."""
        return DTYPE_BYTES[self.config.adapter.base_dtype]


def phases(shapes: Shapes, room_bytes: int = 0) -> dict[str, Need]:
    """Peak of each phase of training that has one of its own. `room_bytes`: what an automatic micro-batch may fill."""
    align, warmup, ppo = shapes.config.align, shapes.config.warmup, shapes.config.ppo
    most = max(warmup.batch_text, warmup.batch_image)

    def size(setting: int, need: Callable[[Shapes, int], Need], most: int) -> int:
        return min(setting, most) if setting else fitting(shapes, need, most, room_bytes)

    return {
        # A pretrained tower has no such phase.
        **({"tower": tower_need(shapes)} if shapes.config.vision.epochs else {}),
        "align": align_need(shapes, size(align.micro_batch, align_need, align.batch)),
        "warmup": warmup_need(shapes, size(warmup.micro_batch, warmup_need, most)),
        "ppo rollout": rollout_need(shapes),
        "ppo update": update_need(shapes, size(ppo.micro_batch, update_need, ppo.minibatch)),
    }


def fitting(shapes: Shapes, need: Callable[[Shapes, int], Need], most: int, room_bytes: int) -> int:
    """The largest of `most`, its half, its quarter ... that needs no more than a share of `room_bytes`; at least 1."""
    size = most
    while size > 1:
        found = need(shapes, size)
        if found.device_bytes + (0 if shapes.on_gpu else found.host_bytes) <= ROOM_SHARE * room_bytes:
            break
        size = -(-size // 2)
    return size


def weights_bytes(shapes: Shapes) -> int:
    """The frozen base as it lies in memory."""
    geometry, dtype = shapes.geometry, shapes.config.adapter.base_dtype
    if dtype == NF4:
        return int(geometry.linear_parameters * NF4_BYTES) + 2 * geometry.row_parameters
    return DTYPE_BYTES[dtype] * geometry.parameters


def standing(shapes: Shapes, trained: int, extra_state: int) -> Need:
    """What lives through a phase that trains so many numbers and checkpoints `extra_state` bytes beside them."""
    counts = shapes.counts
    # A tower that somebody else has trained stays frozen and is in no checkpoint.
    saved = counts.own - (counts.tower if shapes.config.vision.pretrained else 0)
    host = {
        "initial tower": FP32 * (counts.tower + counts.projector),
        "checkpoint buffers": FP32 * (saved + 2 * trained) + extra_state,
        "process": PROCESS_BYTES,
    }
    device = {
        "base": weights_bytes(shapes),
        "tower and projector": FP32 * (counts.tower + counts.projector),
        "adapters, rows, heads": FP32 * (counts.own - counts.tower - counts.projector),
        "gradients": FP32 * trained,
        "Adam": 2 * FP32 * trained,
    }
    if shapes.on_gpu:
        device["CUDA context"] = CUDA_CONTEXT_BYTES
    return Need(device, host)


def tower_need(shapes: Shapes) -> Need:
    """Tower and projector learn alone."""
    counts, eye = shapes.counts, shapes.config.vision
    need = standing(shapes, counts.tower + counts.projector, 0)
    tokens = eye.batch * shapes.tower.tokens
    # Two norms, q, k, v, attention's output, two residuals; gelu's input and output; scores and probabilities.
    block = FP32 * (8 * eye.hidden + 2 * eye.intermediate + 2 * eye.heads * shapes.tower.tokens)
    return moving_added(
        need, shapes, {"activations": tokens * (eye.layers * block + FP32 * 3 * shapes.geometry.hidden)}
    )


def align_need(shapes: Shapes, micro_batch: int) -> Need:
    """The projector learns; the tower before it keeps nothing for the way back. A caption takes a prompt's length."""
    tokens = micro_batch * shapes.prompt_tokens
    need = standing(shapes, shapes.counts.projector, 0)
    return moving_added(need, shapes, backward_parts(shapes, tokens, shapes.prompt_tokens, tokens))


def warmup_need(shapes: Shapes, micro_batch: int) -> Need:
    """The longest sequences that the config allows and the data have, `micro_batch` of them a pass."""
    counts, config = shapes.counts, shapes.config.warmup
    trained = counts.adapters + counts.token_rows
    if config.batch_image:
        trained += counts.projector + counts.tower_adapters
    need = standing(shapes, trained, 0)
    length = min(config.max_tokens, shapes.row_tokens or config.max_tokens)
    tokens = micro_batch * length
    moving = backward_parts(shapes, tokens, length, tokens)
    if config.batch_image:
        moving["tower's activations"] = _tower_activations(shapes, micro_batch)
    return moving_added(need, shapes, moving)


def rollout_need(shapes: Shapes) -> Need:
    """Generation of a whole rollout with its KV cache."""
    counts, config, geometry = shapes.counts, shapes.config.ppo, shapes.geometry
    need = standing(shapes, _policy_trained(shapes), _ppo_state(shapes))
    need.device["gradients"] = 0
    context, length = shapes.prompt_tokens, shapes.prompt_tokens + config.max_new_tokens
    cache = 2 * geometry.layers * geometry.kv_heads * geometry.head_dim * shapes.item_bytes
    return moving_added(
        need,
        shapes,
        {
            "reference": FP32 * (counts.adapters + counts.token_rows),
            "good state": 3 * FP32 * _policy_trained(shapes),
            "kept rotations": rotations_bytes(shapes),
            "KV cache": config.batch * length * cache,
            "activations": forward_bytes(shapes, config.batch * context, context),
            "logits": config.batch * geometry.vocabulary * LOGIT_BYTES,
            # oneDNN lays the head out anew for the product with a single position.
            "head laid out": 0 if shapes.on_gpu else geometry.vocabulary * geometry.hidden * shapes.item_bytes,
        },
    )


def update_need(shapes: Shapes, micro_batch: int) -> Need:
    """One backward pass over `micro_batch` replies; the KV cache is gone by then."""
    counts, config = shapes.counts, shapes.config.ppo
    need = standing(shapes, _policy_trained(shapes), _ppo_state(shapes))
    length = shapes.prompt_tokens + config.max_new_tokens
    moving = backward_parts(shapes, micro_batch * length, length, micro_batch * config.max_new_tokens)
    moving["reference"] = FP32 * (counts.adapters + counts.token_rows)
    moving["good state"] = 3 * FP32 * _policy_trained(shapes)
    moving["rollout buffer"] = _buffer_bytes(shapes)
    return moving_added(need, shapes, moving)


def backward_parts(shapes: Shapes, tokens: int, length: int, answers: int) -> dict[str, int]:
    """Activations and logits of one training pass of the text model."""
    layers = shapes.geometry.layers
    one = layer_bytes(shapes, tokens, length)
    if shapes.config.adapter.gradient_checkpointing:
        kept = layers * tokens * shapes.geometry.hidden * shapes.item_bytes + one
    else:
        kept = layers * one
    return {
        "activations": kept + _backward_extra(shapes, tokens, length),
        "logits": answers * shapes.geometry.vocabulary * LOGIT_BYTES,
        **_workspace(shapes),
    }


def layer_bytes(shapes: Shapes, tokens: int, length: int) -> int:
    """What one layer keeps for the backward pass."""
    geometry, item = shapes.geometry, shapes.item_bytes
    # Two norms: fp32 input and normalised fp32, and the latter in the base's type. Two residuals.
    norms = 2 * (2 * FP32 + item) * geometry.hidden
    attention = 3 * item * geometry.hidden + (FP32 + item) * geometry.heads * length
    mlp = 3 * item * geometry.intermediate
    rotated = FP32 * _rotated_channels(shapes)
    return tokens * (norms + attention + mlp + rotated) + _built_weights(shapes)


def forward_bytes(shapes: Shapes, tokens: int, length: int) -> int:
    """The largest moment of a pass without gradients."""
    geometry, item = shapes.geometry, shapes.item_bytes
    attention = (FP32 + 2 * item) * geometry.heads * length + 4 * item * geometry.hidden
    mlp = 4 * item * geometry.intermediate
    rotation = 3 * FP32 * geometry.hidden
    return tokens * (max(attention, mlp) + rotation + 2 * item * geometry.hidden)


def rotations_bytes(shapes: Shapes) -> int:
    """8x8 matrices, and the adapted weights where these are built."""
    kept = shapes.counts.rotations * BLOCK * BLOCK * FP32
    if shapes.config.adapter.apply_to == "weights":
        linears = shapes.geometry.linears
        sizes = [out * into for out, into in (linears[name] for name in shapes.config.adapter.targets)]
        kept += adapted_layers(shapes.config.adapter, shapes.geometry) * sum(sizes) * shapes.item_bytes
    return kept


def _backward_extra(shapes: Shapes, tokens: int, length: int) -> int:
    """Gradients of the layer in hand: attention's scores in fp32 twice, or the MLP's two halves."""
    geometry, item = shapes.geometry, shapes.item_bytes
    return tokens * max((2 * FP32 + item) * geometry.heads * length, 4 * item * geometry.intermediate)


def _rotated_channels(shapes: Shapes) -> int:
    adapter = shapes.config.adapter
    if adapter.apply_to == "weights":
        return 0
    # The input of a low-rank term is kept in fp32 too.
    return sum(
        out * place.output + into * (place.input + (place.rank > 0))
        for place, out, into in placed(adapter, shapes.geometry)
    )


def _built_weights(shapes: Shapes) -> int:
    """With apply_to: weights each side's product is kept in fp32."""
    adapter = shapes.config.adapter
    if adapter.apply_to != "weights":
        return 0
    return sum(
        FP32 * (1 + place.output + place.input) * out * into for place, out, into in placed(adapter, shapes.geometry)
    )


def _tower_activations(shapes: Shapes, images: int) -> int:
    eye = shapes.config.vision
    block = FP32 * (8 * eye.hidden + 2 * eye.intermediate + 2 * eye.heads * shapes.tower.tokens)
    return images * shapes.tower.tokens * (eye.layers * block + FP32 * 3 * shapes.geometry.hidden)


def _workspace(shapes: Shapes) -> dict[str, int]:
    """A 4-bit linear is widened for each use."""
    if shapes.config.adapter.base_dtype != NF4:
        return {}
    return {"widened linear": 2 * max(out * into for out, into in shapes.geometry.linears.values())}


def _policy_trained(shapes: Shapes) -> int:
    return shapes.counts.adapters + shapes.geometry.hidden


def _buffer_bytes(shapes: Shapes) -> int:
    """Ids and masks as 64-bit numbers; four fp32 numbers a reply token."""
    config = shapes.config.ppo
    return config.batch * (16 * (shapes.prompt_tokens + config.max_new_tokens) + (8 + 4 * FP32) * config.max_new_tokens)


def _ppo_state(shapes: Shapes) -> int:
    """Reference, the state that rolling back would return to, and the rollout."""
    kept = shapes.counts.adapters + shapes.counts.token_rows + 3 * _policy_trained(shapes)
    return FP32 * kept + _buffer_bytes(shapes)


def moving_added(need: Need, shapes: Shapes, moving: dict[str, int]) -> Need:
    """What comes and goes is added, and on a GPU an allowance for blocks that fit nothing."""
    device = {**need.device, **moving}
    if shapes.on_gpu:
        device["fragmentation"] = int(FRAGMENTATION * sum(moving.values()))
    return Need({name: size for name, size in device.items() if size}, need.host)
