"""In which language a text is written.

Kana decide for Japanese: no other language is written in them. For the rest CLD2 is asked, which also knows texts of
kanji alone. Too little text, or too mixed, says nothing.
"""

from so8t.preprocess.normalise import normal_form

KANA_SHARE = 0.05  # of all letters
UNKNOWN = ""


def identify(text: str) -> str:
    """ISO 639 code of the language (CLD2's own, such as zh-Hant, where there is none), or UNKNOWN."""
    import pycld2

    plain = normal_form(text)
    letters = [c for c in plain if c.isalpha()]
    if not letters:
        return UNKNOWN
    if sum("\u3040" <= c <= "\u30ff" for c in letters) > KANA_SHARE * len(letters):
        return "ja"
    try:
        reliable, _, details = pycld2.detect(plain.encode("utf-8", "ignore"), bestEffort=True)
    except pycld2.error:  # bytes that are no text to it
        return UNKNOWN
    code = str(details[0][1])
    return code if reliable and code != "un" else UNKNOWN
