"""Masks personal data: not one recoverable digit or letter of it stays, and none of it is logged.

Matching runs on a folded copy of equal length (full width, dashes, kanji digits), so a span found there is
the span to mask in the text. A bare 12-digit number is no My Number: 9.9 % of all pass the check digit, so it
needs a word before it, or the usual 4-4-4 writing and a right check digit.

Most texts hold nothing of a kind, so each finder first asks for something cheap that all its finds share. A pattern
begins with a class of characters and looks behind it afterwards: only so does `re` skip to where one stands.
"""

import ipaddress
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache

import phonenumbers

from so8t.preprocess.normalise import DASHES
from so8t.preprocess.surnames import SURNAMES

Span = tuple[int, int]
CONTEXT = 20  # characters before a number in which a word may say what it is
PHONE_AROUND = 40  # characters on both sides of nine digits that may belong to the number or say that it is none
PREFECTURES = (
    "北海道|東京都|京都府|大阪府|(?:青森|岩手|宮城|秋田|山形|福島|茨城|栃木|群馬|埼玉|千葉|神奈川|新潟|富山|石川|福井|山梨|長野|"
    "岐阜|静岡|愛知|三重|滋賀|兵庫|奈良|和歌山|鳥取|島根|岡山|広島|山口|徳島|香川|愛媛|高知|福岡|佐賀|長崎|熊本|大分|宮崎|鹿児島|沖縄)県"
)
KANJI_DIGITS = str.maketrans("〇零一二三四五六七八九", "00123456789")
_KANJI_DIGIT = "[〇零一二三四五六七八九]"
_KANJI_NUMBER = re.compile(rf"{_KANJI_DIGIT}(?<!{_KANJI_DIGIT}{_KANJI_DIGIT})[〇零一二三四五六七八九\-ー ]{{8,}}")
_DASHED_VOWEL = re.compile(r"ー(?<=[0-9]ー)(?=[0-9])")
_AT = r"(?:@| ?[\[(](?i:at|アット|@)[\])] ?| ?アット ?)"
_DOT = r"(?:\.| ?[\[(](?i:dot|ドット|\.)[\])] ?| ?ドット ?)"
_LABEL = r"[A-Za-z0-9_%+-]+"
# Spelt out in plain words it is an address only before a well-known top-level domain.
_EMAIL = re.compile(
    rf"{_LABEL}(?:{_DOT}{_LABEL})*{_AT}[A-Za-z0-9-]+(?:{_DOT}[A-Za-z0-9-]+)+"
    rf"|{_LABEL}(?:(?:\.| dot ){_LABEL})* at [A-Za-z0-9-]+(?:(?:\.| dot )[A-Za-z0-9-]+)*"
    r"(?:\.| dot )(?:com|net|org|edu|io|jp)\b(?! dot |\.[a-z])"
)
_AT_PLACE = re.compile(r"@|アット| at |[\[(][Aa][Tt][\])]")
_CARD = re.compile(
    r"[3-6](?<![\d-][3-6])(?:\d{3}([ -]?)\d{4}\1\d{4}\1\d{4}|(?<=3)[47]\d{2}[ -]?\d{6}[ -]?\d{5}|(?<=3)[068]\d{2}[ -]?\d{6}[ -]?\d{4})(?![\d-])"
)
_TWELVE = re.compile(r"\d(?<![\d-]\d)(?<!\d \d)\d{3}([ -]?)\d{4}\1\d{4}(?![ -]?\d)")
_MY_NUMBER_WORD = re.compile(r"(?:マイナンバー|個人番号|my ?number)[^0-9]{0,8}$", re.IGNORECASE)
_ACCOUNT = re.compile(
    r"(?:口座番号|口座|免許証の?番号|免許証|旅券番号|年金番号)[はの:： ]{0,3}([A-Z]{0,2}\d[\d-]{5,13}\d)"
    r"|(?:普通|当座)(?:預金)?(?:口座)?[:： ]{0,2}(\d{7})(?![\d円])"
    r"|記号[はの:： ]{0,3}(\d{5})(?=[ 、,-]{0,3}番号)"
    r"|番号(?<=\d番号)[はの:： ]{0,3}(\d{6,8})(?!\d)|番号(?<=\d[ 、,-]番号)[はの:： ]{0,3}(\d{6,8})(?!\d)"
)
_POSTCODE = re.compile(rf"〒 ?\d{{3}}-?\d{{4}}|\d(?<![\d-]\d)\d{{2}}-\d{{4}}(?= ?(?:{PREFECTURES}))")
_POSTCODE_PLACE = re.compile("[都道府県〒]")
_NUMBER = r"[0-9一二三四五六七八九十]+"
_BLOCK = rf"{_NUMBER}(?:(?:丁目|番地|番|号|-|の)(?:{_NUMBER})?)"
# With a prefecture one joined number is enough; without, a ward's name alone would match too much.
_ADDRESS = re.compile(
    rf"(?:{PREFECTURES})[^\s、。,0-9]{{0,10}}?[市区町村郡][^\s、。,0-9]{{0,14}}?{_BLOCK}{{1,4}}(?:{_NUMBER})?(?:号室|号)?"
    rf"|[一-龥ァ-ヶ]{{1,6}}[市区町村][^\s、。,0-9]{{0,14}}?(?:{_NUMBER}丁目{_BLOCK}{{0,3}}|\d+-\d+-)\d*(?:号室|号)?"
)
_ADDRESS_PLACES = (re.compile("[市区町村郡]"), re.compile(r"[\d一二三四五六七八九十](?:丁目|番|号|-|の)"))
_NINE_DIGITS = re.compile(r"[0-9](?:[^0-9A-Za-z]{0,4}[0-9]){8}")
# A number of Japan begins with its trunk prefix 0 or the country code, every other one with a plus.
_PHONE_START = re.compile(r"\+|0(?<![0-9]0)|8(?<![0-9]8)[^0-9A-Za-z]{0,4}1")
_STREET = re.compile(r"\d(?<!\w\d)\d{0,4} (?:[A-Z][a-z]+ ){1,3}(?:Street|St|Road|Rd|Avenue|Ave|Lane|Drive)\b\.?")
_IP = re.compile(r"(?<![\d.])(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)(?![\d.])")
_IP_PLACE = re.compile(r"\d\.\d{1,3}\.\d")
_VERSION_WORD = re.compile(r"(?:バージョン|版|\bv|\bver\.?|version) ?$", re.IGNORECASE)
_IPV6 = re.compile(r"(?<![A-Za-z0-9:.])[0-9A-Fa-f]{1,4}(?::{1,2}[0-9A-Fa-f]{1,4}){2,7}(?![A-Za-z0-9:])")
_IPV6_PLACE = re.compile(r":[0-9A-Fa-f]{1,4}:")
_SURNAME = "|".join(sorted(SURNAMES, key=len, reverse=True))
_NAME = re.compile(
    rf"(?<![一-龥])(?:{_SURNAME})[一-龥ぁ-んァ-ヶ]{{0,4}}?(?=さん|さま|(?:様|氏|君)(?![一-龥])|くん|ちゃん|先生)"
    rf"|(?:(?<=氏名[:はが])|(?<=氏名[:はが] ))(?:{_SURNAME})[一-龥ぁ-ん]{{0,3}}"
    rf"|(?:(?<=名前[:はが])|(?<=名前[:はが] ))(?:{_SURNAME})[一-龥]{{0,3}}"
    r"|(?:(?<=Mr\. )|(?<=Mrs\. )|(?<=Ms\. )|(?<=Mr )|(?<=Mrs )|(?<=Ms )|(?<=[Mm]y name is ))[A-Z][a-z]+(?: [A-Z][a-z]+)?"
)
_NAME_PLACE = re.compile("さん|さま|様|氏|君|くん|ちゃん|先生|名前|M(?:r|rs|s)[. ]|y name is ")


def mask(text: str) -> tuple[str, Counter[str]]:
    """(text with `[KIND]` in place of each find, how many of each kind)."""
    found: Counter[str] = Counter()
    folded = fold(text)
    for kind, find in FINDERS.items():
        spans = list(find(folded))
        found[kind] += len(spans)
        for start, end in sorted(spans, reverse=True):
            text, folded = (f"{form[:start]}[{kind}]{form[end:]}" for form in (text, folded))
    return text, +found


def fold(text: str) -> str:
    """A copy of equal length in which digits, letters, dashes and spaces have one form."""
    folded = text if text.isascii() else _unfolded().sub(lambda match: _plain(match[0]), text)
    folded = _KANJI_NUMBER.sub(lambda match: match[0].translate(KANJI_DIGITS).replace("ー", "-"), folded)
    return _DASHED_VOWEL.sub("-", folded) if "ー" in folded else folded


@cache
def _plain(character: str) -> str:
    plain = "-" if character in DASHES else unicodedata.normalize("NFKC", character)
    return plain if len(plain) == 1 else character


@cache
def _unfolded() -> re.Pattern[str]:
    """Every character that `_plain` changes, and all beyond U+FFFF, few of which stand in a text."""
    changed = "".join(c for c in map(chr, range(0x10000)) if _plain(c) != c)
    _plain.cache_clear()
    return re.compile(f"[{re.escape(changed)}\U00010000-\U0010ffff]")


def _matches(pattern: re.Pattern[str], *places: re.Pattern[str]) -> Callable[[str], Iterator[Span]]:
    """Spans of the group that matched, or of the whole where the pattern has no group; none where a place is absent."""

    def find(text: str) -> Iterator[Span]:
        if all(place.search(text) for place in places):
            yield from (match.span(match.lastindex or 0) for match in pattern.finditer(text))

    return find


def _before(word: re.Pattern[str], text: str, match: re.Match[str]) -> bool:
    return bool(word.search(text[max(0, match.start() - CONTEXT) : match.start()]))


def _ips(text: str) -> Iterator[Span]:
    if _IP_PLACE.search(text):
        yield from (match.span() for match in _IP.finditer(text) if not _before(_VERSION_WORD, text, match))
    if _IPV6_PLACE.search(text):
        yield from (match.span() for match in _IPV6.finditer(text) if _is_ipv6(match[0]))


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def _cards(text: str) -> Iterator[Span]:
    return (match.span() for match in _CARD.finditer(text) if luhn(_digits(match[0])))


def _my_numbers(text: str) -> Iterator[Span]:
    for match in _TWELVE.finditer(text):
        if _before(_MY_NUMBER_WORD, text, match) or (match[1] and my_number_check(_digits(match[0]))):
            yield match.span()


def _phones(text: str) -> Iterator[Span]:
    """The matcher is slow: it sees only what stands around nine digits, and only where a number could begin."""
    for start, end in _around(_NINE_DIGITS, text, PHONE_AROUND):
        if not _PHONE_START.search(text, start, end):
            continue
        for match in phonenumbers.PhoneNumberMatcher(text[start:end], "JP", leniency=phonenumbers.Leniency.VALID):
            yield start + match.start, start + match.end


def _around(pattern: re.Pattern[str], text: str, characters: int) -> list[Span]:
    """The matches with so many characters on both sides; those that meet are one."""
    joined: list[Span] = []
    for match in pattern.finditer(text):
        start, end = max(0, match.start() - characters), match.end() + characters
        if joined and start <= joined[-1][1]:
            start = joined.pop()[0]
        joined.append((start, end))
    return joined


def luhn(digits: str) -> bool:
    """The check of card numbers: ISO/IEC 7812-1, annex B."""
    doubled = [int(d) * (2 if place % 2 else 1) for place, d in enumerate(reversed(digits))]
    return sum(d - 9 if d > 9 else d for d in doubled) % 10 == 0


def my_number_check(digits: str) -> bool:
    """Check digit of a 12-digit My Number (Ministry of Internal Affairs, ordinance 85 of 2014, article 5)."""
    total = sum(int(d) * (n + 1 if n <= 6 else n - 5) for n, d in enumerate(reversed(digits[:11]), 1))
    remainder = total % 11
    return int(digits[11]) == (0 if remainder <= 1 else 11 - remainder)


def _digits(text: str) -> str:
    return "".join(c for c in text if c.isdigit())


# In this order: a card or a My Number must not be half eaten as a telephone number.
FINDERS: dict[str, Callable[[str], Iterator[Span]]] = {
    "EMAIL": _matches(_EMAIL, _AT_PLACE),
    "CARD": _cards,
    "MY_NUMBER": _my_numbers,
    "ACCOUNT": _matches(_ACCOUNT),
    "POSTCODE": _matches(_POSTCODE, _POSTCODE_PLACE),
    "ADDRESS": _matches(_ADDRESS, *_ADDRESS_PLACES),
    "STREET": _matches(_STREET),
    "IP": _ips,
    "PHONE": _phones,
    "NAME": _matches(_NAME, _NAME_PLACE),
}
