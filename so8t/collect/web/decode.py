"""Bytes of a page to text: what it says it is, checked strictly, then what Japanese pages are.

Order: byte order mark, HTTP, `<meta>` or XML declaration, then strict trials. Shift_JIS is always read as cp932,
which is what such pages are written in (the WHATWG Encoding Standard does the same); Python's shift_jis refuses
the circled digits and abbreviations in them.
"""

import codecs
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

DECLARED_WITHIN_BYTES = 4096
# A page with a few broken octets is a page; more is the wrong encoding.
REPLACED_SHARE_MAX = 0.001
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
_META = re.compile(rb"<meta[^>]{0,500}?charset\s*=\s*[\"']?\s*([A-Za-z0-9_:.-]+)", re.IGNORECASE)
_XML = re.compile(rb"<\?xml[^>]{0,200}?encoding\s*=\s*[\"']([A-Za-z0-9_:.-]+)", re.IGNORECASE)
_HTTP = re.compile(r"charset\s*=\s*[\"']?\s*([A-Za-z0-9_:.-]+)", re.IGNORECASE)
_ESCAPES = (b"\x1b$", b"\x1b(")
_KANA = re.compile(r"[\u3041-\u30ff\uff66-\uff9d]")
KANA_SHARE_MIN = 0.05
_TRIALS = ("utf-8", "euc_jp", "euc_jis_2004", "cp932")
_LABELS = {
    **dict.fromkeys(("shift_jis", "shift-jis", "sjis", "x-sjis", "ms_kanji", "windows-31j", "ms932", "csshiftjis"), "cp932"),
    **dict.fromkeys(("euc-jp", "x-euc-jp", "cseucpkdfmtjapanese"), "euc_jp"),
    **dict.fromkeys(("iso-2022-jp", "csiso2022jp"), "iso2022_jp"),
    **dict.fromkeys(("us-ascii", "ascii", "iso-8859-1", "latin1", "latin-1", "iso_8859-1"), "cp1252"),
    # A declaration that can be read as ASCII cannot be in UTF-16 (HTML, 4.12.5 of the parsing section).
    **dict.fromkeys(("utf-16", "utf-16le", "utf-16be"), "utf-8"),
    "utf8": "utf-8",
}  # fmt: skip
# The rest of the Encoding Standard; a page may not choose among Python's other codecs (punycode, unicode_escape).
_OF_THE_WEB = re.compile(
    r"utf-8|cp932|euc_jp|iso2022_jp|cp1252|windows-125[0-8]|iso-8859-([2-9]|1[0-6])|koi8-[ru]|gbk|gb2312|gb18030|"
    r"big5|big5-hkscs|euc-kr|cp949|tis-620|mac-cyrillic"
)


class Undecodable(ValueError):
    """No encoding reads the bytes, or they are no text."""


@dataclass(frozen=True)
class Decoded:
    """Text, the codec that read it, how that was found, and how many characters were replaced."""

    text: str
    encoding: str
    how: str
    replaced: int = 0


def decode(data: bytes, content_type: str = "") -> Decoded:
    """Read a page; `content_type` is the HTTP header. Undecodable where more than a trace of it stays unread."""
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return _with_replacements(data, ((encoding, "byte order mark"),))
    if b"\x00" in data[:DECLARED_WITHIN_BYTES] and "utf-16" not in content_type.lower():
        raise Undecodable("binary, not text")
    tried: list[tuple[str, str]] = []
    readable: Decoded | None = None
    for encoding, how in _candidates(data, content_type):
        tried.append((encoding, how))
        text = _strictly(data, encoding)
        if text is not None and _is_believable(text, encoding, data):
            return Decoded(text, encoding, how)
        if text is not None and readable is None:
            readable = Decoded(text, encoding, how)
    return readable or _with_replacements(data, tried)


def _candidates(data: bytes, content_type: str) -> Iterator[tuple[str, str]]:
    head = data[:DECLARED_WITHIN_BYTES]
    declared = _HTTP.search(content_type)
    if declared:
        label = declared[1].lower()
        yield (label if label.startswith("utf-16") else codec_of(label)), "HTTP header"
    for pattern, how in ((_META, "meta"), (_XML, "XML declaration")):
        found = pattern.search(head)
        if found:
            yield codec_of(found[1].decode("ascii").lower()), how
    if any(escape in data for escape in _ESCAPES):
        yield "iso2022_jp", "trial"
        yield "iso2022_jp_ext", "trial"
    for encoding in _TRIALS:
        yield encoding, "trial"
    guessed = _guess(data)
    if guessed:
        yield guessed, "cchardet"


def codec_of(label: str) -> str:
    """Python's codec for a label of the web; utf-8 for one that nobody knows."""
    codec = _LABELS.get(label, label)
    return codec if _OF_THE_WEB.fullmatch(codec) else "utf-8"


def _strictly(data: bytes, encoding: str) -> str | None:
    try:
        return data.decode(encoding)
    except (UnicodeDecodeError, LookupError):
        return None


def _is_believable(text: str, encoding: str, data: bytes) -> bool:
    """Some codecs read nearly anything: theirs must be what comes out.

    Old servers call everything latin-1, and a 7-bit Japanese page is good ASCII.
    """
    if data.isascii() and encoding in ("utf-8", "euc_jp", "cp932", "cp1252"):
        return not any(escape in data for escape in _ESCAPES)
    if encoding == "cp1252":
        return False
    if encoding in ("euc_jp", "euc_jis_2004", "cp932"):
        return _KANA.search(text) is not None
    return True


def kana_share(text: str) -> float:
    """Share of kana among the letters."""
    letters = sum(character.isalpha() for character in text)
    return len(_KANA.findall(text)) / letters if letters else 0.0


def _guess(data: bytes) -> str:
    import cchardet

    found = cchardet.detect(data)["encoding"]
    return codec_of(found.lower()) if found else ""


def _with_replacements(data: bytes, candidates: Sequence[tuple[str, str]]) -> Decoded:
    best: Decoded | None = None
    for encoding, how in candidates:
        text = data.decode(encoding, "replace")
        replaced = text.count("\ufffd")
        if best is None or replaced < best.replaced:
            best = Decoded(text, encoding, how, replaced)
    if best is None or best.replaced > max(1, REPLACED_SHARE_MAX * len(best.text)):
        raise Undecodable("no encoding reads it")
    return best
