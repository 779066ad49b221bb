"""Tiny real systems (bake's base, adapters and GGUF) and a data artifact that asks them something."""

from pathlib import Path

import pytest

from so8t import records, thinking
from so8t.artifacts import Artifact
from so8t.bake import quantize
from so8t.bake import stock as bake_stock
from so8t.bake.config import Bake
from so8t.benchmark.config import Benchmark, Cell
from so8t.labels import Label
from so8t.records import Record
from tests.bake.conftest import artifact, folded, make_progress, picture, progress, world

__all__ = ["artifact", "folded", "make_progress", "picture", "progress", "world"]

KEYS = "0123456789*#ABCD"
TASK_WORDS = {"text": "classify", "image": "read the picture", "audio": "hear the tone"}


def reply(modality: str, language: str, label: Label, final: str) -> str:
    return thinking.render(f"{TASK_WORDS[modality]} {language}", label, " reason", "answer", final)


def text_row(index: int, split: str) -> Record:
    label, language = Label(index % 4), ("ja", "en")[index // 4 % 2]
    prompt = f"質問{index}。教えてください。" if language == "ja" else f"Question {index}, please explain."
    made = Record(f"{split}-text-{index:02}", "text", language, prompt, reply("text", language, label, "ok"))
    return made.with_(label=int(label), category=f"カテゴリ{index % 3}", split=split)


def picture_row(index: int, split: str, modality: str) -> Record:
    answer = str(index % 10) if modality == "image" else KEYS[index % 16]
    made = Record(f"{split}-{modality}-{index:02}", modality, "en", "What is it?")
    response = reply(modality, "en", Label.ALLOW, answer)
    return made.with_(response=response, answer=answer, label=0, image=picture(index), category="x", split=split)


def rows(split: str, texts: int, pictures: int) -> list[Record]:
    return [
        *(text_row(index, split) for index in range(texts)),
        *(picture_row(index, split, "image") for index in range(pictures)),
        *(picture_row(index, split, "audio") for index in range(pictures)),
    ]


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> Artifact:
    folder = tmp_path_factory.mktemp("data")
    records.write(folder / "train.parquet", rows("train", 16, 6))
    records.write(folder / "test.parquet", rows("test", 20, 8))
    return artifact(folder, "preprocess")


@pytest.fixture(scope="session")
def stock(tmp_path_factory, world, progress) -> dict[str, Artifact]:
    """The untouched base in F16, its tower, and the base in Q8_0."""
    made = {}
    for part, given in (("text", {"base": world.base}), ("vision", {"train": world.train})):
        out = tmp_path_factory.mktemp(part)
        made[part] = artifact(out, "bake.stock", **bake_stock.run(Bake().stock(part), given, out, progress))
    out = tmp_path_factory.mktemp("stock-quantized")
    facts = quantize.run(Bake().quantize("Q8_0"), {"fold": made["text"]}, out, progress)
    return {**made, "Q8_0": artifact(out, "bake.quantize", **facts)}


@pytest.fixture(scope="session")
def inputs(data, world, folded, stock):
    """Inputs of a cell by system."""

    def give(system: str) -> dict[str, Artifact]:
        shared = {"data": data, "train": world.train}
        if system.startswith("A-"):
            return {**shared, "tower": stock["vision"], "fold": stock["text"], "quantized": stock["Q8_0"]}
        return {**shared, "base": world.base} if system in {"A", "B"} else {**shared, "fold": folded}

    return give


def cell_config(system: str, task: str, **changes: object) -> Cell:
    return Benchmark(batch_items=6, replies=1, reply_tokens=12).cell(system, task).model_copy(update=changes)


def lines_of(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()
