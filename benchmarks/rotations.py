"""What does it cost to build every rotation of Phi-3.5-mini, with its gradient?

    python benchmarks/rotations.py [--blocks N] [--repeats N]

Peers in the same run: PEFT's OFT (its default Neumann series and its exact solve, where peft is installed),
torch.linalg.solve left to autograd, and torch.linalg.matrix_exp. CPU-seconds of one thread, the best of the
repeats; the error is max |R'R - I|. 69,632 blocks are the input sides of the four fused linears (3072 channels
three times, 8192 once) in 32 layers, which is also what PEFT's OFT would have; the default targets' output
sides are 24,576 and all sides together 196,608.
"""

import argparse
import importlib.util
import json
import time
from collections.abc import Callable

import torch
from torch import Tensor

from so8t.so8.generators import BLOCK, GENERATORS, skew
from so8t.so8.rotation import cayley, expm, orthogonality_error

Build = Callable[[Tensor], Tensor]


def solve(entries: Tensor) -> Tensor:
    """The Cayley map as one would write it down."""
    half, identity = skew(entries) / 2, torch.eye(BLOCK)
    result: Tensor = torch.linalg.solve(identity - half, identity + half)
    return result


def peft_builds(blocks: int) -> dict[str, Build]:
    """PEFT's own code on the same generators; A / 2 is what it calls Q."""
    if importlib.util.find_spec("peft") is None:
        return {}
    from peft.tuners.oft.layer import OFTRotationModule

    module = OFTRotationModule(blocks, GENERATORS, BLOCK, blocks * BLOCK)
    return {
        "peft Neumann, 5 terms (its default)": lambda entries: module._cayley_batch(entries / 2, BLOCK, True, 5),
        "peft exact": lambda entries: module._cayley_batch(entries / 2, BLOCK, False),
    }


def measure(build: Build, entries: Tensor, gradient: Tensor, repeats: int) -> dict[str, float]:
    """CPU-seconds of forward and backward, and the distance from SO(8)."""
    best, rotations = float("inf"), entries
    for _ in range(repeats):
        leaf = entries.clone().requires_grad_()
        started = time.process_time()
        rotations = build(leaf)
        rotations.backward(gradient)
        best = min(best, time.process_time() - started)
    return {"cpu_s": round(best, 4), "orthogonality_error": orthogonality_error(rotations.detach())}


def main() -> None:
    """Print one line a way, and a JSON line of all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=69_632)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--std", type=float, default=0.05)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    entries = chosen.std * torch.randn(chosen.blocks, GENERATORS, generator=generator)
    gradient = torch.randn(chosen.blocks, BLOCK, BLOCK, generator=generator)
    builds: dict[str, Build] = {"so8t cayley": cayley, "solve, autograd": solve, "so8t expm": expm}
    found = {
        name: measure(build, entries, gradient, chosen.repeats)
        for name, build in {**builds, **peft_builds(chosen.blocks)}.items()
    }
    ours = found["so8t cayley"]["cpu_s"]
    for name, row in found.items():
        row["ratio"] = round(row["cpu_s"] / ours, 2)
        print(f"{name:38} {row['cpu_s']:8.3f} CPU-s  {row['ratio']:6.2f} x  |R'R-I| {row['orthogonality_error']:.1e}")
    print(json.dumps({"blocks": chosen.blocks, **found}))


if __name__ == "__main__":
    main()
