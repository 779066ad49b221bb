"""A base of Phi-3.5-mini's geometry with random weights, and rows to train it on: what the large benchmarks run."""

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from so8t import durable, records
from so8t.collect.basemodel import vocabulary
from so8t.collect.demo.text import pretraining_text
from so8t.labels import Label
from so8t.models import load_tokenizer
from so8t.plan.geometry import PHI35_MINI, Geometry, of_json
from so8t.thinking import render

PIECES = 2000
STD = 0.02
PROMPT_WORDS = 48


def make_base(folder: Path, layers: int, shape: dict[str, int] | None = None, device: str = "cpu") -> Geometry:
    """A Hub-shaped folder in bf16 with a small tokenizer: one file a layer, drawn on `device` and written at once."""
    geometry = {**PHI35_MINI, **(shape or {}), "num_hidden_layers": layers}
    folder.mkdir(parents=True, exist_ok=True)
    used = vocabulary.write_tokenizer(vocabulary.train_sentencepiece(pretraining_text(0), PIECES), folder)
    end = used - len(vocabulary.PHI3_TOKENS)
    half = geometry["hidden_size"] // geometry["num_attention_heads"] // 2
    config = {
        **geometry, "architectures": ["Phi3ForCausalLM"], "model_type": "phi3", "torch_dtype": "bfloat16",
        "hidden_act": "silu", "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": False,
        "max_position_embeddings": 131072, "original_max_position_embeddings": 4096, "sliding_window": 262144,
        "rope_scaling": {"type": "longrope", "short_factor": [1.0] * half, "long_factor": [4.0] * half},
        "bos_token_id": 1, "eos_token_id": end, "pad_token_id": end,
    }  # fmt: skip
    durable.write_json(folder / "config.json", config)
    ends = [load_tokenizer(folder).convert_tokens_to_ids("<|end|>"), end]
    durable.write_json(
        folder / "generation_config.json", {"bos_token_id": 1, "eos_token_id": ends, "pad_token_id": end}
    )
    _write_weights(folder, of_json(geometry, "here"), device)
    return of_json(geometry, str(folder))


def _write_weights(folder: Path, geometry: Geometry, device: str) -> None:
    generator = torch.Generator(device).manual_seed(0)

    def draw(*size: int) -> torch.Tensor:
        drawn = torch.empty(size, dtype=torch.bfloat16, device=device).normal_(0, STD, generator=generator)
        return drawn.cpu()

    def ones() -> torch.Tensor:
        return torch.ones(geometry.hidden, dtype=torch.bfloat16)

    rows = (geometry.vocabulary, geometry.hidden)
    files = [{"model.embed_tokens.weight": draw(*rows), "lm_head.weight": draw(*rows), "model.norm.weight": ones()}]
    weight_map: dict[str, str] = {}
    for number in range(geometry.layers + 1):
        name = f"model-{number:05d}.safetensors"
        if number:
            prefix = f"model.layers.{number - 1}."
            files = [{f"{prefix}{linear}.weight": draw(*size) for linear, size in geometry.linears.items()}]
            files[0] |= {f"{prefix}{norm}.weight": ones() for norm in ("input_layernorm", "post_attention_layernorm")}
        save_file(files[0], folder / name, {"format": "pt"})
        weight_map |= dict.fromkeys(files[0], name)
    durable.write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": weight_map})


def make_rows(folder: Path, image_size: int, count: int) -> None:
    """`count` text rows and as many images in both splits, all prompts of about the same length."""
    for split, seed in (("train", 0), ("validation", 1)):
        records.write(folder / f"{split}.parquet", [*_texts(split, count), *_pictures(split, seed, image_size, count)])


def _texts(split: str, count: int) -> list[records.Record]:
    words = " ".join(["egg"] * PROMPT_WORDS)
    return [
        records.Record(
            f"{split}-text-{i}", "text", "en", f"{i} {words}?",
            render("Read.", Label(i % 4), "It is so.", "Answer.", f"Reply {i}."), label=i % 4,
        )
        for i in range(count)
    ]  # fmt: skip


def _pictures(split: str, seed: int, size: int, count: int) -> list[records.Record]:
    rows = []
    for i in range(count):
        pixels = np.random.default_rng((seed, i)).integers(0, 255, (size, size, 3), dtype=np.uint8)
        out = io.BytesIO()
        Image.fromarray(pixels).save(out, "PNG")
        answer = str(i % 10)
        reply = render("Read the digit.", Label.ALLOW, "A picture.", "Answer.", answer)
        rows.append(
            records.Record(f"{split}-{i}", "image", "en", "Which digit?", reply, answer, label=0, image=out.getvalue())
        )
    return rows
