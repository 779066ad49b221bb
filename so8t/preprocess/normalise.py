"""The normal form by which texts are compared. It is a key only: the text itself is kept as it came."""

import re
import unicodedata

# NFKC leaves these; U+30FC is a dash only before a digit, elsewhere it is a long vowel.
DASHES = {ord(c): "-" for c in "\u2010\u2011\u2012\u2013\u2014\u2015\u2212"}
DROPPED = {ord(c): None for c in "\u200b\u200c\u200d\u2060\ufeff"} | dict.fromkeys(range(0xFE00, 0xFE10))
CONTROLS = {c: None for c in range(0x20) if c not in (0x09, 0x0A, 0x0D)} | dict.fromkeys(range(0x7F, 0xA0))
TABLE = DASHES | DROPPED | CONTROLS
_LONG_VOWEL_DASH = re.compile("\u30fc(?=[0-9])")
_SPACE = re.compile(r"\s+")


def normal_form(text: str) -> str:
    """NFKC, dashes unified, invisible characters dropped, lower case, one space for any white space."""
    text = unicodedata.normalize("NFKC", text).translate(TABLE)
    return _SPACE.sub(" ", _LONG_VOWEL_DASH.sub("-", text)).strip().lower()


def compare_key(text: str) -> str:
    """The normal form without white space and punctuation: what near-duplicates share."""
    return "".join(c for c in normal_form(text) if unicodedata.category(c)[0] not in "ZP") or normal_form(text)
