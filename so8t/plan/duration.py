"""Time by step, in seconds, as a range: arithmetic and memory traffic at shares of a machine's peak. Estimates."""

from typing import TYPE_CHECKING

from so8t.bake.config import GUIDED
from so8t.plan.hardware import Speed
from so8t.plan.memory import NF4, Shapes, weights_bytes
from so8t.plan.parameters import adapted_layers, adapter_parameters

if TYPE_CHECKING:
    from so8t.config import Config
    from so8t.search.config import Search

Range = tuple[float, float]
# Shares of the stated peak: eager PyTorch, from well-filled to small batches.
BEST, WORST = 0.5, 0.12
# A decoding step reads all weights once and, without CUDA graphs, waits for launches (facts of eager decoding).
LAUNCHES_S = 0.035
DISK_BYTES_PER_S: Range = (1.5e9, 0.15e9)
# bitsandbytes widens each 4-bit linear before it multiplies.
NF4_SLOWER = 1.5
LLAMA_QUANTIZE_PARAMETERS_PER_S: Range = (4e7, 5e6)


def durations(shapes: Shapes, speed: Speed, search: "Search") -> dict[str, Range]:
    """Fastest and slowest of the training. Fetching, collecting and measuring depend on network and data: left out."""
    warm = {
        **({"tower": _scaled(_tower_flops(shapes), speed)} if shapes.config.vision.epochs else {}),
        "align": _scaled(_align_flops(shapes), speed),
        "warm-up": _scaled(_warmup_flops(shapes), speed),
    }
    updates = shapes.config.ppo.updates
    trials = search.trials * search.updates
    return {
        # A training after a search begins where the search's warm-up ended.
        **{f"{'train.search' if trials else 'train'}: {name}": span for name, span in warm.items()},
        **({"train.search: trials": _times(trials, _update(shapes, speed))} if trials else {}),
        "train: ppo": _times(updates, _update(shapes, speed)),
        "train: alpha": _scaled(_alpha_flops(shapes), speed),
    }


def bake_durations(shapes: Shapes, speed: Speed, config: "Config") -> dict[str, Range]:
    """Fastest and slowest of what makes files. A fold reads the base and writes it twice; so does the untouched base."""
    text = 2 * shapes.geometry.parameters
    tower = 2 * (shapes.counts.tower + shapes.counts.projector)
    types, quantizations = config.base_types(), config.bake.quantizations
    files = [*quantizations, *(f"A-{name}" for name in types if name != "F16")]
    stock = {
        "bake.stock[text]": _at(3 * text, DISK_BYTES_PER_S),
        "bake.stock[vision]": _at(3 * tower, DISK_BYTES_PER_S),
    }
    return {
        "bake.fold": _at(3 * text, DISK_BYTES_PER_S),
        **(stock if types else {}),
        **({"bake.imatrix": _imatrix(shapes, speed, config)} if any(map(_guided, quantizations)) else {}),
        **{
            f"bake.quantize[{name}]": _at(shapes.geometry.parameters, LLAMA_QUANTIZE_PARAMETERS_PER_S) for name in files
        },
    }


def _guided(name: str) -> bool:
    return name.endswith(GUIDED)


def _imatrix(shapes: Shapes, speed: Speed, config: "Config") -> Range:
    """A forward pass over the chats, whole ones at most; the fastest is a quarter of that."""
    guide = config.bake.imatrix
    tokens = guide.chats * guide.tokens_max
    low, high = _scaled(tokens * token_flops(shapes, guide.tokens_max), speed)
    return low / 4, high


def passes(shapes: Shapes) -> float:
    """Forward passes that one training pass costs: the frozen base needs gradients of activations only."""
    return 2.0 + shapes.config.adapter.gradient_checkpointing


def token_flops(shapes: Shapes, length: int) -> float:
    """One token's forward pass through text model and adapters; logits are made for replies only."""
    geometry, adapter = shapes.geometry, shapes.config.adapter
    rotated = adapted_layers(adapter, geometry) * 8 * adapter_parameters(adapter, geometry) / 28 * 8
    attention = 2 * length * geometry.hidden
    return 2 * (geometry.linear_parameters + rotated + geometry.layers * attention)


def head_flops(shapes: Shapes) -> float:
    """One token's logits."""
    return 2 * shapes.geometry.vocabulary * shapes.geometry.hidden


def _align_flops(shapes: Shapes) -> float:
    config, length = shapes.config.align, shapes.prompt_tokens
    return config.steps * config.batch * length * passes(shapes) * token_flops(shapes, length)


def _warmup_flops(shapes: Shapes) -> float:
    config = shapes.config.warmup
    samples = config.batch_text + config.batch_image
    return config.steps * samples * passes(shapes) * _row_flops(shapes)


def _row_flops(shapes: Shapes) -> float:
    """A row's forward pass; that a reply is as long as its prompt is a guess, so the range is wide."""
    length = min(shapes.config.warmup.max_tokens, 2 * shapes.prompt_tokens)
    return length * token_flops(shapes, length) + (length - shapes.prompt_tokens) * head_flops(shapes)


def _alpha_flops(shapes: Shapes) -> float:
    config = shapes.config.alpha
    return config.trials * config.rows * _row_flops(shapes)


def _tower_flops(shapes: Shapes) -> float:
    # Rows are not known before collecting: as many as the demo has.
    rows = 3000
    return 6.0 * shapes.counts.tower * shapes.tower.tokens * rows * shapes.config.vision.epochs


def _update(shapes: Shapes, speed: Speed) -> Range:
    config = shapes.config.ppo
    length = shapes.prompt_tokens + config.max_new_tokens
    reply = length * token_flops(shapes, length) + config.max_new_tokens * head_flops(shapes)
    # Prefill, policy and reference, then the training passes.
    flops = config.batch * reply * (3 + config.epochs * passes(shapes))
    low, high = _scaled(flops, speed)
    traffic = weights_bytes(shapes) / speed.bytes_per_s
    decode = (config.max_new_tokens * traffic, config.max_new_tokens * (traffic / BEST + LAUNCHES_S))
    if shapes.config.adapter.base_dtype == NF4:
        high, decode = high * NF4_SLOWER, (decode[0], decode[1] * NF4_SLOWER)
    return low + decode[0], high + decode[1]


def _times(count: int, span: Range) -> Range:
    return count * span[0], count * span[1]


def _scaled(flops: float, speed: Speed) -> Range:
    return flops / (speed.flops * BEST), flops / (speed.flops * WORST)


def _at(amount: float, rates: Range) -> Range:
    return amount / rates[0], amount / rates[1]
