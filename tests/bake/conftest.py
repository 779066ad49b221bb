"""A tiny base and a random training result in the common formats, made once a session."""

import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from so8t import durable, records, thinking
from so8t.artifacts import Artifact, FileEntry, Manifest, content_of, hash_file
from so8t.bake import fold
from so8t.bake.config import Fold
from so8t.collect.basemodel import demo
from so8t.collect.config import DemoBase
from so8t.config import Machine
from so8t.labels import Label
from so8t.models import load_base, write_thinking_tokenizer
from so8t.progress import Progress
from so8t.so8 import saved, vit
from so8t.thinking import IMAGE_TOKEN

HIDDEN, LAYERS, ALPHA, SCALE = 256, 2, 0.8, 0.5
LINEARS = {
    "self_attn.qkv_proj": (768, 256),
    "self_attn.o_proj": (256, 256),
    "mlp.gate_up_proj": (1024, 256),
    "mlp.down_proj": (256, 512),
}
PROMPTS = ("明日の天気を教えてください。", "How do I boil an egg?", "二人で話す。", "Tell me a story, please!")


@dataclass(frozen=True)
class World:
    """Artifacts of the steps before bake."""

    base: Artifact
    train: Artifact
    data: Artifact


def artifact(path: Path, step: str, **facts: object) -> Artifact:
    """A folder with a manifest in memory, as the store would give it."""
    files = [
        FileEntry(path=p.relative_to(path).as_posix(), size_bytes=p.stat().st_size, sha256=hash_file(p))
        for p in sorted(path.rglob("*"))
        if p.is_file()
    ]
    empty: dict[str, object] = {"inputs": {}, "config": {}, "code": {}, "packages": {}, "machine": {}}
    manifest = Manifest(
        step=step, version=1, key="0" * 64, content=content_of(files), files=files, facts=facts, started_at="", finished_at="", **empty
    )  # fmt: skip
    return Artifact(path, manifest)


def make_progress(home: Path) -> Progress:
    return Progress("bake", Machine(threads=1), home)


@pytest.fixture(scope="session")
def progress(tmp_path_factory) -> Progress:
    return make_progress(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="session")
def world(tmp_path_factory, progress) -> World:
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("world")
    facts = demo.make(
        DemoBase(kind="demo", steps=1, batch=1, length=16, hidden=HIDDEN, layers=LAYERS), root / "base", progress
    )
    _enlarge(root / "base")
    _make_train(root / "base", root / "train")
    _make_data(root / "data")
    return World(
        artifact(root / "base", "collect.base", licence=facts["licence"]),
        artifact(root / "train", "train"),
        artifact(root / "data", "preprocess"),
    )


@pytest.fixture(scope="session")
def folded(tmp_path_factory, world, progress) -> Artifact:
    out = tmp_path_factory.mktemp("fold")
    facts = fold.run(Fold(), {"base": world.base, "train": world.train}, out, progress)
    return artifact(out, "bake.fold", **facts)


def _enlarge(base: Path) -> None:
    """Weights near their start give almost equal logits: nothing would show. Three times as large, everything does.

    The head starts five times as long as the other matrices; all get the same size here. Norms of one would hide that
    one is missing.
    """
    generator = torch.Generator().manual_seed(3)
    for path in base.glob("*.safetensors"):
        tensors = load_file(path)
        for name, tensor in tensors.items():
            if tensor.dim() == 2:
                tensors[name] = (0.6 if name == "lm_head.weight" else 3.0) * tensor
            else:
                tensors[name] = tensor * (1 + 0.2 * torch.rand(tensor.shape, generator=generator)).to(tensor.dtype)
        save_file(tensors, path, metadata={"format": "pt"})


def _make_train(base: Path, train: Path) -> None:
    generator = torch.Generator().manual_seed(1)

    def draw(*shape: int, std: float = 0.3) -> torch.Tensor:
        return std * torch.randn(*shape, generator=generator)

    ids = write_thinking_tokenizer(base, train / "tokenizer")
    state = {}
    for layer in range(LAYERS):
        for name, (rows, columns) in LINEARS.items():
            module = f"model.layers.{layer}.{name}"
            state[f"{module}.so8_out"] = draw(rows // 8, 28)
            state[f"{module}.so8_in"] = draw(columns // 8, 28)
            state[f"{module}.lora_a"], state[f"{module}.lora_b"] = draw(4, columns, std=0.1), draw(rows, 4, std=0.1)
    state["token_rows.embed_tokens"], state["token_rows.lm_head"] = (
        draw(len(ids), HIDDEN, std=0.1),
        draw(len(ids), HIDDEN, std=0.1),
    )
    (train / "adapter").mkdir()
    save_file(state, train / "adapter" / "adapter.safetensors")
    durable.write_json(
        train / "adapter" / "adapter.json",
        {
            "format": saved.FORMAT,
            "alpha": ALPHA,
            "map": "cayley",
            "lora_scale": SCALE,
            "token_ids": ids,
            "base_content": "",
            "convention": saved.CONVENTION,
        },
    )
    _make_vision(base, train / "vision", ids[IMAGE_TOKEN], draw)


def _make_vision(base: Path, folder: Path, image_id: int, draw) -> None:
    torch.manual_seed(2)
    vision = vit.describe(
        hidden=64, layers=2, heads=2, intermediate=128, image_size=32, patch_size=8, image_token_id=image_id
    )
    model = vit.join(load_base(base), vision)
    folder.mkdir()
    tensors = {name: tensor + draw(*tensor.shape, std=0.05) for name, tensor in vit.vision_state(model).items()}
    save_file(tensors, folder / "model.safetensors")
    save_file(tensors, folder / "initial.safetensors")
    state = {}
    for name, tensor in tensors.items():
        if (".encoder." in name and name.endswith("proj.weight")) or name.endswith("fc1.weight"):
            module = name.removesuffix(".weight")
            state[f"{module}.so8_out"], state[f"{module}.so8_in"] = (
                draw(tensor.shape[0] // 8, 28),
                draw(tensor.shape[1] // 8, 28),
            )
    save_file(state, folder / "adapter.safetensors")
    durable.write_json(folder / "config.json", {**json.loads(json.dumps(vision.__dict__)), "alpha": ALPHA})


def picture(seed: int) -> bytes:
    """A random 32x32 RGB PNG."""
    pixels = np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def _make_data(folder: Path) -> None:
    rows = []
    for index, prompt in enumerate(PROMPTS):
        reply = thinking.render("考える", Label.ALLOW, " 安全です", "answer", f"はい {index}")
        rows.append(records.Record(f"text-{index}", "text", "ja", prompt, reply, label=0, split="validation"))
    for index in range(3):
        reply = thinking.render("look", Label.ALLOW, "safe", "answer", str(index))
        rows.append(
            records.Record(
                f"image-{index}",
                "image",
                "en",
                "Which digit is this?",
                reply,
                str(index),
                label=0,
                image=picture(index),
                split="validation",
            )
        )
    records.write(folder / "validation.parquet", rows)
