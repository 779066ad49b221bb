"""What folding into a GGUF costs beside merging, saving and converting: CPU time, peak memory and bytes written.

    python -m benchmarks.bake_cost CONVERTER [--layers 5] [--folder DIR]

CONVERTER is llama.cpp's convert_hf_to_gguf.py, as the llama-cpp-python source distribution holds it. The checkpoint is
random, bf16, in Phi-3.5-mini's exact layer shapes, one file a layer. Each route is a process of its own on one thread;
CPU time is user and system, memory the process's peak, both as the kernel counts them. Linux counts into that peak what
the process was before its exec, so this one imports nothing large, and another makes the checkpoint.

    fold    ours: adapter and base -> F16 GGUF, with the rotations and low-rank terms of configs/borea_phi35.yaml
    lora    the same from PEFT's adapter
    convert llama.cpp's converter alone, base -> F16 GGUF, no adapter
    merge   transformers and PEFT: load, merge the LoRA, save; then the converter on what was saved
"""

import argparse
import math
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

LINEARS = ("self_attn.qkv_proj", "self_attn.o_proj", "mlp.gate_up_proj", "mlp.down_proj")
BASE = "Toy-phi-3"
RANK, STD = 16, 0.02
FOLD = """
import sys
from pathlib import Path
from so8t.bake import fold
from so8t.bake.alone import folder_as_artifact
from so8t.bake.config import Fold
from so8t.config import Machine
from so8t.progress import Progress
base, adapter, out = map(Path, sys.argv[1:])
inputs = {"base": folder_as_artifact(base, hashed=False), "train": folder_as_artifact(adapter, hashed=False)}
fold.run(Fold(stock=False), inputs, out, Progress("fold", Machine(threads=1), out))
"""
MERGE = """
import sys
import torch
from peft import PeftModel
from transformers import AutoTokenizer, Phi3ForCausalLM
base, adapter, out = sys.argv[1:]
torch.set_num_threads(1)
model = PeftModel.from_pretrained(Phi3ForCausalLM.from_pretrained(base, dtype=torch.bfloat16), adapter)
model.merge_and_unload().save_pretrained(out)
"""


@dataclass(frozen=True)
class Cost:
    """Of one process."""

    cpu_s: float
    peak_mb: float


def cost_of(arguments: Sequence[str]) -> Cost:
    """Run to the end and ask the kernel what it took."""
    threads = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")}
    process = subprocess.Popen(arguments, env={**os.environ, **threads}, stdout=subprocess.DEVNULL)  # noqa: S603
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{arguments[:2]} ended with {process.returncode}")
    return Cost(usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def size_of(*folders: Path) -> int:
    """Bytes of all files in the folders, or of the files."""
    paths = [path for folder in folders for path in ([folder] if folder.is_file() else folder.rglob("*"))]
    return sum(path.stat().st_size for path in paths if path.is_file())


def prepare(root: Path, layers: int) -> None:
    """The checkpoint, an adapter of ours and one of PEFT's, all random."""
    import torch

    from benchmarks.random_phi3 import make_base
    from so8t.so8.peft import export_peft
    from so8t.so8.saved import Saved

    linears = make_base(root / BASE, layers).linears
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return STD * torch.randn(*shape, generator=generator)

    low: dict[str, torch.Tensor] = {}
    rotations: dict[str, torch.Tensor] = {}
    for layer in range(layers):
        for name in LINEARS:
            rows, columns = linears[name]
            module = f"model.layers.{layer}.{name}"
            low |= {f"{module}.lora_a": draw(RANK, columns), f"{module}.lora_b": draw(rows, RANK)}
            rotations[f"{module}.so8_out"] = draw(rows // 8, 28)
    Saved({**low, **rotations}).write(root / "ours")
    Saved(low).write(root / "low")
    export_peft(root / "low", root / "peft")


def main() -> None:
    """Print one line a route, and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("converter", type=Path)
    parser.add_argument("--layers", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=2, help="each route so often; the least CPU time counts")
    parser.add_argument("--prepare", type=Path, metavar="DIR", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help="where the checkpoint goes (default: a temporary folder)")
    options = parser.parse_args()
    if options.prepare:
        prepare(options.prepare, options.layers)
        return
    root = options.folder or Path(tempfile.mkdtemp(prefix="so8t-bake-"))
    try:
        compare(root, options.converter, options.layers, options.rounds)
    finally:
        if options.folder is None:
            shutil.rmtree(root)


def compare(root: Path, converter: Path, layers: int, rounds: int) -> None:
    """Every route on the same checkpoint, in turns."""
    base = root / BASE
    prepared = ["-m", "benchmarks.bake_cost", str(converter), "--layers", str(layers), "--prepare", str(root)]
    subprocess.run([sys.executable, *prepared], check=True)  # noqa: S603
    print(f"checkpoint: {size_of(base) / 1e9:.2f} GB, {layers} layers, {len(list(base.glob('*.safetensors')))} files")
    python, merged = sys.executable, root / "merged"
    convert = [python, str(converter), "--outtype", "f16", "--outfile"]
    routes = {
        "fold": [[python, "-c", FOLD, str(base), str(root / "ours"), str(root / "fold")]],
        "lora": [[python, "-c", FOLD, str(base), str(root / "peft"), str(root / "lora")]],
        "convert": [[*convert, str(root / "convert" / "m.gguf"), str(base)]],
        "merge": [
            [python, "-c", MERGE, str(base), str(root / "peft"), str(merged)],
            [*convert, str(root / "merge" / "m.gguf"), str(merged)],
        ],
    }
    cpu_s, peak_mb, written = dict.fromkeys(routes, math.inf), dict.fromkeys(routes, 0.0), dict.fromkeys(routes, 0)
    for _ in range(rounds):
        for name, commands in routes.items():
            for folder in (root / name, merged):
                shutil.rmtree(folder, ignore_errors=True)
            (root / name).mkdir()
            costs = [cost_of(commands[0])]
            if name == "merge":
                # save_pretrained leaves the tokenizer out, and the converter reads SentencePiece's own file.
                for path in base.glob("*token*"):
                    shutil.copy(path, merged)
                costs.append(cost_of(commands[1]))
            cpu_s[name] = min(cpu_s[name], sum(cost.cpu_s for cost in costs))
            peak_mb[name] = max(peak_mb[name], *(cost.peak_mb for cost in costs))
            written[name] = size_of(root / name) + (size_of(merged) if name == "merge" else 0)
            shutil.rmtree(root / name)
    for name in routes:
        print(
            f"{name:<8} {cpu_s[name]:7.2f} CPU s  {peak_mb[name]:8.0f} MB at most  {written[name] / 1e9:6.2f} GB written"
        )
    print(
        f"CPU, fold to convert: {cpu_s['fold'] / cpu_s['convert']:.2f}; to merge: {cpu_s['fold'] / cpu_s['merge']:.2f}"
    )
    print(f"written, fold to merge: {written['fold'] / written['merge']:.2f}")


if __name__ == "__main__":
    main()
