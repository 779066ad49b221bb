"""What baking and quantizing lose, measured as the gates do: the live adapter model against every file.

    python -m benchmarks.bake_parity PLACE                 random weights of Phi-3.5-mini's layer shapes, two layers
    python -m benchmarks.bake_parity PLACE --home HOME     the newest training in HOME, on its validation split

Prints one line a file: max |dlogit|, mean KL, top-1 and perplexity ratio, bytes, peak memory, tokens a second. The
random model has a random adapter on every linear. The importance matrix is computed on other chats than the measure.
"""

import argparse
import gc
from pathlib import Path
from typing import Any, get_args

import torch
from safetensors.torch import save_file

from benchmarks.random_phi3 import make_base
from so8t import durable, models
from so8t.artifacts import Store
from so8t.bake import checks, imatrix, imatrix_file, quantize
from so8t.bake.chats import plain_chats
from so8t.bake.config import GUIDED, Gates, Imatrix, Quantization, Speed
from so8t.bake.f32 import measure_f32
from so8t.bake.gguf_model import write_model
from so8t.bake.live import load_text
from so8t.bake.material import Material
from so8t.bake.parity import Parity
from so8t.bake.reference import Chats, ask_folded, load_folded, read_chats
from so8t.bake.run import compared
from so8t.bake.speed import measure_speed
from so8t.collect.demo.text import pretraining_chats
from so8t.so8 import saved

NAME = "parity-phi-3"
TYPES = get_args(Quantization)
LAYERS, RANK, ALPHA = 2, 4, 0.8
CALIBRATION = Imatrix(chats=128, tokens_max=256)


def random_material(place: Path) -> Material:
    """A base of two layers and a random adapter: rotations on both sides, and a low-rank term."""
    geometry = make_base(place / "base", LAYERS)
    ids = models.write_thinking_tokenizer(place / "base", place / "tokenizer")
    generator = torch.Generator().manual_seed(1)

    def draw(*shape: int, std: float) -> torch.Tensor:
        return std * torch.randn(*shape, generator=generator)

    state: dict[str, torch.Tensor] = {}
    for layer in range(LAYERS):
        for linear, (rows, columns) in geometry.linears.items():
            module = f"model.layers.{layer}.{linear}"
            state |= {
                f"{module}.so8_out": draw(rows // 8, 28, std=0.3), f"{module}.so8_in": draw(columns // 8, 28, std=0.3),
                f"{module}.lora_a": draw(RANK, columns, std=0.02), f"{module}.lora_b": draw(rows, RANK, std=0.02),
            }  # fmt: skip
    for name in ("embed_tokens", "lm_head"):
        state[f"token_rows.{name}"] = draw(len(ids), geometry.hidden, std=0.02)
    (place / "adapter").mkdir(exist_ok=True)
    save_file(state, place / "adapter" / "adapter.safetensors")
    header = {"format": saved.FORMAT, "alpha": ALPHA, "map": "cayley", "lora_scale": 1.0, "token_ids": ids,
              "base_content": "", "convention": saved.CONVENTION}  # fmt: skip
    durable.write_json(place / "adapter" / "adapter.json", header)
    return Material(place / "base", place / "adapter", place / "tokenizer", None)


def trained_material(home: Path) -> tuple[Material, Path]:
    """The newest training, and its data."""
    made = list(Store(home).all())
    train = max((one for one in made if one.manifest.step == "train"), key=lambda one: one.manifest.finished_at)
    wanted = {role: entry.content for role, entry in train.manifest.inputs.items()}
    base, data = (next(one.path for one in made if one.content == wanted[role]) for role in ("base", "data"))
    return Material.of(base, train.path), data


def guide_of(model: Any, ids: list[list[int]], place: Path) -> dict[str, Any]:
    """The importance matrix of a model on some chats."""
    with torch.inference_mode(), imatrix.watched(model) as sums:
        for row in ids:
            model(input_ids=torch.tensor([row]))
    path = place / imatrix_file.FILE
    imatrix_file.write(path, {name: total.numpy() for name, total in sums.items()}, sum(map(len, ids)), 256)
    return imatrix_file.read(path)


def measure(
    place: Path, material: Material, chats: Chats, calibration: list[list[int]], types: list[str]
) -> list[list[str]]:
    """The table's rows; a type that ends in -imat is guided."""
    model = load_text(material)
    live = ask_folded(model, chats)
    del model
    gc.collect()
    model = load_folded(material.base, material.text)
    plain = ask_folded(model, chats)
    guided = [kind for kind in types if kind.endswith(GUIDED)]
    guide = guide_of(model, calibration, place) if guided else {}
    del model
    gc.collect()
    fold = compared(live, plain, chats.ids)
    rows = [row_of("folded, in transformers (relative)", fold, fold.relative_error)]
    f32 = measure_f32(place / "f32.gguf.tmp", material, NAME, {}, chats.ids, plain, 0)
    rows.append(row_of("F32 GGUF against transformers", f32, f32.difference_max))
    source = place / f"{NAME}-F16.gguf"
    write_model(source, material.base, material.text, material.tokenizer, NAME, "F16", {}, lambda done, total: None)
    made = [("F16", source)]
    for kind in types:
        path = place / f"{NAME}-{kind}.gguf"
        quantize.quantize(source, path, kind.removesuffix(GUIDED), 0, guide if kind in guided else None)
        made.append((kind, path))
    for kind, path in made:
        found = checks.measure(path, chats.ids, live, 0)
        speed = measure_speed(path, Speed(), 0, "cpu")
        told = [
            path.stat().st_size / 1e6,
            speed["memory_peak_bytes"] / 1e6,
            speed["prompt_tokens_per_s"],
            speed["new_tokens_per_s"],
        ]
        rows.append(row_of(kind, found, found.difference_max) + [f"{number:.1f}" for number in told])
        print("|", " | ".join(rows[-1]), "|", flush=True)
    return rows


def row_of(name: str, parity: Parity, difference: float) -> list[str]:
    """The losses of one file."""
    top1 = f"{100 * parity.top1:.2f} %"
    return [name, f"{difference:.2e}", f"{parity.kl:.2e}", top1, f"{parity.perplexity_ratio:.5f}"]


def main() -> None:
    """Print the table."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("place", type=Path)
    options.add_argument("--home", type=Path)
    options.add_argument("--texts", type=int, default=64)
    options.add_argument("--types", nargs="*", default=TYPES, choices=TYPES)
    chosen = options.parse_args()
    chosen.place.mkdir(parents=True, exist_ok=True)
    if chosen.home:
        material, data = trained_material(chosen.home)
        tokenizer = models.load_tokenizer(material.tokenizer)
        chats = read_chats(data, tokenizer, Gates(texts=chosen.texts, tokens_max=256))
        calibration = imatrix.read_chats(data / "train.parquet", tokenizer, CALIBRATION)
    else:
        material = random_material(chosen.place)
        tokenizer = models.load_tokenizer(material.tokenizer)
        chats = plain_chats(tokenizer, Gates(texts=chosen.texts, tokens_max=256), None)
        calibration = [models.chat_ids(tokenizer, *pair)[:256] for pair in pretraining_chats(7)[:32]]
    positions = sum(map(len, chats.ids))
    print(f"{len(chats.ids)} texts, {positions} positions; calibration: {sum(map(len, calibration))} tokens")
    head = [
        "file",
        "max d logit",
        "mean KL",
        "top-1",
        "perplexity ratio",
        "MB",
        "MB of memory",
        "read tokens/s",
        "written tokens/s",
    ]
    for row in [head, ["---"] * len(head), *measure(chosen.place, material, chats, calibration, list(chosen.types))]:
        print("|", " | ".join(row), "|")


if __name__ == "__main__":
    main()
