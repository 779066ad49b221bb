"""Strings on which transformers and llama.cpp must give the same ids, or a file is not the model it came from."""

import random
import re
from typing import Any

from so8t import models
from so8t.thinking import ADDED_TOKENS

ODD_TEXTS = (
    "", " ", "  two  spaces  ", "\n", "\n\n\n", "\t tab", "a\u3000b", "line\r\nline", "\x00\x01\x7f\x1b[0m", "\u200b\ufeff\u00a0",
    "😀👩‍👩‍👧‍👦🇯🇵", "①㈱㍻ﾊﾝｶｸ", "髙﨑𠮷野家", "Ünïcödé ẞ", "0123456789*#", "<|user|>\n", "<|end|>\n\n  x", "<|assistant|> y", "</s> z",
    "<think-task", "<final >", "< final>", "<s>", "<unk>", "▁", "▁▁x", "a▁b",
)  # fmt: skip
PIECES = (
    " ", "  ", "\n", "\r\n", "\t", "\u3000", "\u00a0", "\u200b", "\ufeff", "\x00", "\x1b[31m", "\x7f", "▁", "あ", "雨", "鬱", "ﾊﾟ", "𠮷",
    "が", "か\u3099", "ですます。", "😀", "👨‍👩‍👧", "🇯🇵", "é", "e\u0301", "مرحبا", "한국", "Ω", "the", " the", "don't", "0.5", "1e-5", "http://x.y/z?q=1",
    "def f(x):\n    return x\n", "for (int i = 0; i < n; ++i) {", "{\"a\": [1, 2]}", "<br/>", "<", ">", "|", "</", "<|", "|>", "[INST]",
)  # fmt: skip
LENGTH_MAX = 12


def parity_texts(tokenizer: Any, prompts: list[str], count: int, seed: int = 0) -> list[str]:
    """More than `count` different strings: prompts, odd ones, each added token in every company, and random rows of all.

    Each of them stands also as user text in a chat. transformers drops any whitespace behind an added token, llama.cpp only
    ASCII's: where a string has other whitespace there, it is left out. In a chat that cannot be (models.chat_text).
    """
    added = sorted(tokenizer.get_added_vocab())
    tagged = [
        f"{before}{token}{after}"
        for token in dict.fromkeys([*ADDED_TOKENS, *added])
        for before in ("", "a", " ", "\n")
        for after in ("7", " 七", "\n\nx")
    ]
    wide = re.compile(f"(?:{'|'.join(map(re.escape, added))})[ \\t-\\r]*[^\\S \\t-\\r]")
    found: dict[str, None] = {}
    rng = random.Random(seed)  # noqa: S311
    drawn = ["".join(rng.choices((*PIECES, *added), k=rng.randint(1, LENGTH_MAX))) for _ in range(count)]
    for text in [*prompts[: count // 4], *ODD_TEXTS, *tagged, *drawn]:
        found |= dict.fromkeys(made for made in (text, models.chat_text(tokenizer, text)) if not wide.search(made))
    return list(found)


def conversations(prompts: list[str]) -> list[list[dict[str, str]]]:
    """Chats of one to four turns, with and without a system message, on which two renderings of a template must agree."""
    made = []
    for first, second in zip(prompts, [*prompts[1:], *ODD_TEXTS], strict=False):
        turn, reply = {"role": "user", "content": first}, {"role": "assistant", "content": second}
        again = [turn, reply, {"role": "user", "content": f" {second}\n"}]
        made += [[turn], again, [{"role": "system", "content": second}, *again]]
    return made
