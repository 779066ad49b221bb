"""Japanese, English, or neither, as far as a row has to know."""

import re

from so8t.collect.web.decode import KANA_SHARE_MIN, kana_share

# The words that a fifth of English text consists of (Brown corpus).
_ENGLISH = frozenset(
    {"the", "of", "and", "to", "a", "in", "is", "that", "for", "it", "was", "on", "with", "as", "you", "are"}
)
_ENGLISH_SHARE_MIN = 0.12
_WORD = re.compile(r"[A-Za-z]+(?:'[a-z]+)?")


def language_of(text: str, declared: str) -> str:
    """`ja`, `en`, or "" where it is neither: kana decide, then what the page declares, then English's small words."""
    if kana_share(text) >= KANA_SHARE_MIN:
        return "ja"
    words = _WORD.findall(text.lower())
    letters = sum(character.isalpha() for character in text)
    if declared.split("-")[0] == "ja" and sum(map(len, words)) < letters / 2:
        return "ja"
    if not words or sum(map(len, words)) < 0.8 * letters:
        return ""
    share = sum(word in _ENGLISH for word in words) / len(words)
    return "en" if share >= _ENGLISH_SHARE_MIN else ""
