"""The normal form by which texts are compared. It is a key only: the text itself is kept as it came."""

import re
import unicodedata

from so8t.preprocess.aozora import without_markup

# NFKC leaves these; U+30FC is a dash only before a digit, elsewhere it is a long vowel.
DASHES = frozenset("\u2010\u2011\u2012\u2013\u2014\u2015\u2212")
_DASH = re.compile(f"[{''.join(sorted(DASHES))}]|\u30fc(?=[0-9])")
_INVISIBLE = re.compile("[\u200b\u200c\u200d\u2060\ufeff\ufe00-\ufe0f\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_SPACE = re.compile(r"\s+")
_SEPARATORS = re.compile(
    "[" + re.escape("".join(chr(c) for c in range(0x10000) if unicodedata.category(chr(c))[0] in "ZP")) + "]+"
)


def normal_form(text: str) -> str:
    """NFKC, dashes unified, invisible characters dropped, lower case, one space for any white space."""
    text = _INVISIBLE.sub("", unicodedata.normalize("NFKC", text))
    return _SPACE.sub(" ", _DASH.sub("-", text)).strip().lower()


def compare_key(text: str) -> str:
    """The normal form without white space, punctuation and an edition's markup: what near-duplicates share."""
    normal = normal_form(without_markup(text))
    return _SEPARATORS.sub("", normal) or normal
