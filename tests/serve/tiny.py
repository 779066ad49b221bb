"""A tiny model that really thinks in tags: five chats learnt by heart, folded and written by the bake step."""

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional

from so8t import durable, models
from so8t.bake import fold
from so8t.bake.config import Fold
from so8t.collect.basemodel import demo
from so8t.collect.config import DemoBase
from so8t.labels import Label
from so8t.so8 import saved
from so8t.thinking import ADDED_TOKENS, IMAGE_TOKEN, render
from tests.bake.conftest import _make_vision, artifact, make_progress

HIDDEN, STEPS = 64, 90
# A word that stands only in the thinking.
SECRET = "zebra"
CHATS = {
    "How are you?": render(f"{SECRET} greeting", Label.ALLOW, f"{SECRET} harmless", f"{SECRET} answer", "I am fine."),
    "How do I make a bomb?": render(SECRET, Label.REFUSE, f"{SECRET} harm", f"{SECRET} refuse", "I will not help."),
    "頭が痛いです。": render(SECRET, Label.ESCALATION, f"{SECRET} 医療", SECRET, "医師に相談してください。"),
    "Say nothing well-formed.": f"<think-task>{SECRET} and no end of it",
    "Tell me a secret.": render(SECRET, Label.ALLOW, SECRET, SECRET, f"<think-task>{SECRET}</think-task>"),
}


@dataclass(frozen=True)
class Baked:
    """The files of a fold artifact, with a manifest beside them."""

    folder: Path
    model: Path
    mmproj: Path


def bake(root: Path) -> Baked:
    """Make base, training and fold in `root`: about seven CPU-seconds."""
    torch.set_num_threads(1)
    progress = make_progress(root)
    base, train, out = root / "base", root / "train", root / "fold"
    demo.make(DemoBase(kind="demo", steps=1, batch=1, length=16, hidden=HIDDEN, layers=2), base, progress)
    ids = models.write_thinking_tokenizer(base, train / "tokenizer")
    rows = _learn(base, train / "tokenizer", sorted(ids.values()))
    _write_adapter(train / "adapter", rows, ids)
    generator = torch.Generator().manual_seed(1)
    _make_vision(
        base, train / "vision", ids[IMAGE_TOKEN],
        lambda *shape, std=0.1: std * torch.randn(*shape, generator=generator),
    )  # fmt: skip
    out.mkdir()
    fold.run(Fold(), {"base": artifact(base, "collect.base"), "train": artifact(train, "train")}, out, progress)
    durable.write_text(out / "manifest.json", artifact(out, "bake.fold").manifest.model_dump_json())
    return Baked(out, out / "gguf" / "so8t-phi-3-F16.gguf", out / "gguf" / "so8t-phi-3-mmproj-F16.gguf")


def _learn(base: Path, tokenizer_folder: Path, ids: list[int]) -> dict[str, torch.Tensor]:
    """Overfit the base on the chats, in place; give the rows of the added tokens."""
    torch.manual_seed(3)
    model, tokenizer = models.load_base(base), models.load_tokenizer(tokenizer_folder)
    rows = []
    for prompt, reply in CHATS.items():
        head = models.prompt_ids(tokenizer, prompt)
        whole = head + models.reply_ids(tokenizer, reply + models.END_TOKEN)
        rows.append((torch.tensor([whole]), torch.tensor([[-100] * len(head) + whole[len(head) :]])))
    optimizer = torch.optim.AdamW(model.parameters(), 6e-3, betas=(0.9, 0.95), weight_decay=0.0)
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = 6e-3 * min(1.0, 1.5 * (1 - step / STEPS))
        optimizer.zero_grad()
        for tokens, wanted in rows:
            logits = model(input_ids=tokens).logits
            functional.cross_entropy(logits[0, :-1], wanted[0, 1:], ignore_index=-100).backward()
        optimizer.step()
    state = model.state_dict()
    for path in base.glob("*.safetensors"):
        names = load_file(path)
        save_file({name: state[name].to(names[name].dtype).contiguous() for name in names}, path, {"format": "pt"})
    return {
        "token_rows.embed_tokens": state["model.embed_tokens.weight"][ids].clone(),
        "token_rows.lm_head": state["lm_head.weight"][ids].clone(),
    }


def _write_adapter(folder: Path, rows: dict[str, torch.Tensor], ids: dict[str, int]) -> None:
    folder.mkdir()
    save_file(rows, folder / "adapter.safetensors")
    durable.write_json(
        folder / "adapter.json",
        {
            "format": saved.FORMAT, "alpha": 1.0, "map": "cayley", "lora_scale": 1.0, "token_ids": ids,
            "base_content": "", "convention": saved.CONVENTION,
        },
    )  # fmt: skip


def without_tags(baked: Baked, folder: Path) -> Path:
    """The same model as a stock one would be: each tag another word in the file."""
    data = baked.model.read_bytes()
    for token in ADDED_TOKENS:
        data = data.replace(token.encode(), b"#" + token.encode()[1:])
    path = folder / "stock.gguf"
    path.write_bytes(data)
    return path
