"""What a page itself says about being used: X-Robots-Tag, `<meta name="robots">`, TDM reservation."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

# `none` is noindex and nofollow (Google's and Bing's documentation of the header).
_FORBIDS = frozenset({"noindex", "none", "noai", "noimageai"})
_NO_LINKS = frozenset({"nofollow", "none"})
_AGENT = re.compile(r"\s*([A-Za-z0-9_-]+)\s*:(.*)", re.DOTALL)
# Directives that take a value after a colon, so that their name is no crawler's.
_WITH_VALUE = frozenset({"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"})


@dataclass(frozen=True)
class Directives:
    """`refused` names the word that forbids our use, "" for none; `follow` is whether links may be followed."""

    refused: str = ""
    follow: bool = True


def of_headers(headers: dict[str, str], agents: Iterable[str]) -> Directives:
    """Read the headers of an answer. A field that names a crawler counts for that crawler until another is named."""
    if headers.get("tdm-reservation", "").strip() == "1":
        return Directives("tdm-reservation", follow=True)
    names, heard, words = {agent.lower() for agent in agents}, True, []
    for part in headers.get("x-robots-tag", "").split(","):
        named = _AGENT.match(part)
        rest = part
        if named and named[1].lower() not in _WITH_VALUE:
            heard, rest = named[1].lower() in names or named[1].lower() == "robots", named[2]
        if heard:
            words.append(rest)
    return of_words(words)


def of_metas(metas: Iterable[tuple[str, str]], agents: Iterable[str]) -> Directives:
    """Read (name, content) of a page's meta elements."""
    names = {"robots", *(agent.lower() for agent in agents)}
    words = []
    for name, content in metas:
        if name.strip().lower() in names:
            words += content.split(",")
        elif name.strip().lower() == "tdm-reservation" and content.strip() == "1":
            return Directives("tdm-reservation", follow=True)
    return of_words(words)


def of_words(words: Iterable[str]) -> Directives:
    """What a list of directives comes to."""
    said = {word for text in words for word in text.lower().split()}
    return Directives(min(said & _FORBIDS, default=""), follow=not said & _NO_LINKS)
