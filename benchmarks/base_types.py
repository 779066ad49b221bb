"""What do a frozen base's types cost: bytes held, and a training step of the default adapters?

    OMP_NUM_THREADS=1 python -m benchmarks.base_types [--layers N] [--tokens N] [--rounds N] [--place DIR]

Phi-3.5-mini's widths and vocabulary with random weights. Bytes are those of parameters and quantization state;
CPU-seconds are those of one thread for a forward and a backward pass, the median of the rounds. Whole means 32 layers.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.random_phi3 import make_base
from so8t.models import Dtype, load_base
from so8t.plan.geometry import PHI35_MINI
from so8t.so8.config import Adapter
from so8t.so8.placing import text_adapters

PEER: Dtype = "bfloat16"


def held(module: nn.Module) -> int:
    """Bytes of parameters, those of packed ones with all that unpacks them."""
    found = 0
    for parameter in module.parameters():
        found += parameter.numel() * parameter.element_size()
        state = getattr(parameter, "quant_state", None)
        while state is not None:
            parts = (state.absmax, state.code, state.offset)
            found += sum(part.numel() * part.element_size() for part in parts if part is not None)
            state = state.state2
    return found


def measure(folder: Path, dtype: Dtype, tokens: int, rounds: int) -> dict[str, Any]:
    """Bytes and CPU-seconds with one type."""
    model = load_base(folder, dtype).requires_grad_(False)
    layers = held(model.model.layers)
    rest = held(model) - layers
    shape = Adapter.model_validate({"base_dtype": dtype, "gradient_checkpointing": False})
    text_adapters(shape, model.model, "adapter")
    ids = torch.randint(3, 1000, (1, tokens), generator=torch.Generator().manual_seed(0))
    spent = []
    for _ in range(1 + rounds):
        started = time.process_time()
        model(ids, labels=ids, use_cache=False).loss.backward()
        spent.append(time.process_time() - started)
    whole = rest + layers * PHI35_MINI["num_hidden_layers"] // len(model.model.layers)
    return {"layers_bytes": layers, "rest_bytes": rest, "whole_bytes": whole, "cpu_s": statistics.median(spent[1:])}


def main() -> None:
    """Print one line a type, and a JSON line of all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--place", type=Path, help="where the base is written for the time of the run")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=chosen.place) as place:
        make_base(Path(place), chosen.layers)
        types: tuple[Dtype, ...] = (PEER, "float32", "nf4")
        found = {dtype: measure(Path(place), dtype, chosen.tokens, chosen.rounds) for dtype in types}
    for dtype, row in found.items():
        print(
            f"{dtype:9} layers {row['layers_bytes'] / 2**20:7.1f} MiB ({row['layers_bytes'] / found[PEER]['layers_bytes']:.3f} x)"
            f"  rest {row['rest_bytes'] / 2**20:6.1f}  whole {row['whole_bytes'] / 2**30:5.2f} GiB"
            f"  step {row['cpu_s']:6.2f} CPU-s ({row['cpu_s'] / found[PEER]['cpu_s']:.2f} x)"
        )
    print(json.dumps({"layers": chosen.layers, "tokens": chosen.tokens, **found}))


if __name__ == "__main__":
    main()
