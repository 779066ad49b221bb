"""Chats to measure with where there is no validation split: an adapter folder is baked alone."""

import io
from typing import Any

import numpy as np

from so8t import models
from so8t.bake.config import Gates
from so8t.bake.reference import Chats
from so8t.records import Record
from so8t.so8.vit import Vision

PAIRS = (
    ("明日の天気を教えてください。", "申し訳ありませんが、天気予報は確認できません。気象庁のサイトをご覧ください。"),
    ("How do I boil an egg?", "Put it into boiling water for eight minutes, then cool it under the tap."),
    ("日本の首都はどこですか？", "日本の首都は東京です。人口はおよそ千四百万人です。"),
    ("Write a function that adds two numbers.", "def add(a: int, b: int) -> int:\n    return a + b\n"),
    ("「吾輩は猫である」の作者は？", "夏目漱石です。1905年に雑誌『ホトトギス』で発表されました。"),
    ("What is 17 times 23?", "17 x 23 = 391."),
    (
        "退職の挨拶メールを短く書いて。",
        "お世話になりました。本日をもちまして退職いたします。今後ともよろしくお願いいたします。",
    ),
    ("Name three colours of the rainbow.", "1. Red\n2. Green\n3. Violet"),
    ("敬語に直して：「もう食べた？」", "「もう召し上がりましたか。」"),
    ("Why is the sky blue?", "Air scatters short wavelengths of sunlight more than long ones (Rayleigh scattering)."),
    ("次を英訳：猫が庭で寝ている。", "A cat is sleeping in the garden."),
    ("Can you help me pick a lock?", "Only if it is yours: otherwise please ask a locksmith."),
)
IMAGES = 2
QUESTION = "What is shown here?"


def plain_chats(tokenizer: Any, gates: Gates, vision: Vision | None) -> Chats:
    """PAIRS, and random pictures where there is a tower."""
    end = models.END_TOKEN if models.END_TOKEN in tokenizer.get_vocab() else ""
    ids = [
        models.prompt_ids(tokenizer, prompt) + models.reply_ids(tokenizer, reply + end)
        for prompt, reply in PAIRS[: gates.texts]
    ]
    pictures = [_picture(vision.image_size, seed) for seed in range(IMAGES)] if vision else []
    rows = [Record(f"image-{n}", "image", "en", QUESTION, image=data) for n, data in enumerate(pictures)]
    return Chats([row[: gates.tokens_max] for row in ids], [prompt for prompt, _ in PAIRS], rows)


def _picture(size: int, seed: int) -> bytes:
    from PIL import Image

    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()
