"""What does one training step cost with each adapter, next to PEFT's LoRA of rank 8?

    python -m benchmarks.adapter_step [--tokens N] [--layers N] [--rounds N] [--targets o_proj,down_proj] [--dtype bfloat16]

Phi-3.5-mini's widths with random weights, shared by all: forward and backward of the layers (no embedding, no head),
one thread, CPU-seconds; adapters are fp32 whatever the base is, as PEFT has it too. The ways are measured in turn, round by round, and a ratio is the median of the
ratios within a round. The gradient goes on to the input, as it does wherever a layer below is adapted too.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from peft import LoraConfig, OFTConfig, get_peft_model
from torch import Tensor
from transformers import Phi3Config, Phi3Model

from so8t.plan.geometry import PHI35_MINI
from so8t.so8.adapter import Adapters
from so8t.so8.linear import Placement, Setting

PEER = "PEFT LoRA rank 8"
OUT, IN = Placement(), Placement(output=False, input=True)
PATHS = {"qkv_proj": "self_attn", "o_proj": "self_attn", "gate_up_proj": "mlp", "down_proj": "mlp"}


def models(layers: int, dtype: torch.dtype) -> Callable[[], Any]:
    """Gives models that share their weights."""
    width = {name: PHI35_MINI[name] for name in ("hidden_size", "intermediate_size", "num_attention_heads")}
    config = Phi3Config(vocab_size=64, num_hidden_layers=layers, pad_token_id=0, attn_implementation="sdpa", **width)
    torch.manual_seed(0)
    state = Phi3Model(config).to(dtype).state_dict()

    def make() -> Any:
        with torch.device("meta"):
            model = Phi3Model(config)
        model.load_state_dict(state, assign=True)
        model.rotary_emb = type(model.rotary_emb)(config)  # its buffer is in no state
        return model.requires_grad_(False).eval()

    return make


def ours(model: Any, targets: list[str], placement: Placement, apply_to: str) -> Any:
    """The model with our adapters."""
    adapters = Adapters(Setting(apply_to=apply_to))  # type: ignore[arg-type]
    names = {f"layers.{i}.{PATHS[t]}.{t}": placement for i in range(len(model.layers)) for t in targets}
    adapters.attach(model, "", names)
    for parameter in adapters.parameters().values():
        torch.nn.init.normal_(parameter, std=0.02)
    return model


def theirs(model: Any, config: Any) -> Any:
    """The model with PEFT's adapters."""
    return get_peft_model(model, config)


def step(model: Any, hidden: Tensor) -> float:
    """CPU-seconds of one forward and backward pass."""
    started = time.process_time()
    model(inputs_embeds=hidden, use_cache=False).last_hidden_state.square().mean().backward()
    spent = time.process_time() - started
    model.zero_grad(set_to_none=True)
    return spent


def main() -> None:
    """Print one line a way, and a JSON line of all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--targets", default="qkv_proj,o_proj,gate_up_proj,down_proj")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    dtype: torch.dtype = getattr(torch, chosen.dtype)
    make, targets = models(chosen.layers, dtype), chosen.targets.split(",")
    oft = {"r": 0, "oft_block_size": 8, "target_modules": targets}
    ways = {
        PEER: theirs(make(), LoraConfig(r=8, target_modules=targets)),
        "so8t output": ours(make(), targets, OUT, "activations"),
        "so8t output, weights": ours(make(), targets, OUT, "weights"),
        "so8t output + rank 8": ours(make(), targets, Placement(rank=8), "activations"),
        "so8t input": ours(make(), targets, IN, "activations"),
        "PEFT OFT 8, Neumann": theirs(make(), OFTConfig(use_cayley_neumann=True, **oft)),
        "PEFT OFT 8, exact": theirs(make(), OFTConfig(use_cayley_neumann=False, **oft)),
    }
    hidden = torch.randn(1, chosen.tokens, PHI35_MINI["hidden_size"], dtype=dtype).requires_grad_()
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(1 + chosen.rounds):
        for name, model in ways.items():
            spent[name].append(step(model, hidden))
    found = {}
    for name, seconds in spent.items():
        ratio = statistics.median(a / b for a, b in zip(seconds[1:], spent[PEER][1:], strict=True))
        trained = sum(p.numel() for p in ways[name].parameters() if p.requires_grad)
        found[name] = {"cpu_s": round(min(seconds[1:]), 3), "ratio": round(ratio, 3), "trained": trained}
        print(f"{name:22} {min(seconds[1:]):8.3f} CPU-s  {ratio:6.3f} x  {trained:9,} trained")
    print(
        json.dumps(
            {"tokens": chosen.tokens, "layers": chosen.layers, "dtype": chosen.dtype, "targets": targets, **found}
        )
    )


if __name__ == "__main__":
    main()
