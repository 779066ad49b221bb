"""A page's text, links and what it says about itself, from text that is decoded already.

trafilatura keeps a short page's navigation, since that is most of the page; so what is navigation by its element,
its role or its share of links goes first.
"""

import copy
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from so8t.collect.web.addresses import join

if TYPE_CHECKING:
    from lxml.html import HtmlElement

LINKS_MAX = 1000
# Of hostile pages of 2 MB the slowest took minutes (a table of 400,000 cells); with as many elements, under a second.
ELEMENTS_MAX = 20_000
_APART = ("nav", "footer", "aside", "form", "dialog", "template", "noscript", "script", "style", "iframe", "svg")
_APART_ROLES = frozenset(
    {"navigation", "banner", "contentinfo", "search", "complementary", "menu", "menubar", "dialog"}
)
_BLOCKS = ("ul", "ol", "dl", "table", "div", "p", "section", "td")
_SPACE = re.compile(r"[ \t\u3000]+")
# A block of at least this many links whose text is mostly theirs leads elsewhere and says nothing.
_LINKS_MIN = 3
_LINK_SHARE_MIN = 0.7
_BLOCK_CHARACTERS_MAX = 1500


@dataclass(frozen=True)
class Page:
    """What was read from one page; `links` are canonical, in order, each once."""

    text: str
    title: str
    language: str
    links: tuple[str, ...]
    metas: tuple[tuple[str, str], ...]


class Unreadable(ValueError):
    """A page that no text can be had from."""


def parse(text: str) -> "HtmlElement | None":
    """The tree of a page; None where there is nothing in it, Unreadable where there is too much."""
    from lxml import etree, html

    # Given bytes and their encoding, lxml asks nothing of what the page declares (and was right or wrong before).
    parser = html.HTMLParser(encoding="utf-8", remove_comments=True, remove_pis=True)
    data = text.replace("\x00", "").encode("utf-8", "replace")
    try:
        tree = html.document_fromstring(data, parser=parser) if data.strip() else None
    except etree.ParserError:
        return None
    if tree is not None and sum(1 for _ in tree.iter()) > ELEMENTS_MAX:
        raise Unreadable(f"more than {ELEMENTS_MAX} elements")
    return tree


def read(tree: "HtmlElement", url: str, encoding: str) -> Page:
    """Everything but the licence claims; Unreadable where a library fails at the page: one page must not end a crawl."""
    try:
        return _read(tree, url, encoding)
    except (
        ArithmeticError,
        AssertionError,
        AttributeError,
        LookupError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        raise Unreadable(f"cannot be read ({type(error).__name__})") from error


def _read(tree: "HtmlElement", url: str, encoding: str) -> Page:
    from trafilatura import extract

    metas = tuple((element.get("name") or "", element.get("content") or "") for element in tree.iter("meta"))
    title = " ".join(("".join(tree.xpath("//head/title[1]//text()"))).split())[:300]
    language = tree.get("lang") or tree.get("xml:lang") or ""
    links = tuple(_links(tree, url, encoding))
    body = copy.deepcopy(tree)
    _drop_navigation(body)
    text = extract(body, fast=True, include_comments=False, include_tables=True, deduplicate=False) or ""
    return Page(tidy(text), title, language.strip().lower()[:35], links, metas)


def tidy(text: str) -> str:
    """One space where there were several, no empty lines; the characters themselves stay as they are."""
    lines = (_SPACE.sub(" ", line).strip() for line in text.splitlines())
    return "\n".join(line for line in lines if line)


def _links(tree: "HtmlElement", url: str, encoding: str) -> Iterator[str]:
    bases = tree.xpath("//base/@href")
    base = (join(url, bases[0]) if bases else "") or url
    seen: set[str] = set()
    for element in tree.iter("a", "area"):
        if "nofollow" in (element.get("rel") or "").lower().split():
            continue
        link = join(base, element.get("href") or "", encoding) if element.get("href") else ""
        if link and link not in seen:
            seen.add(link)
            yield link
        if len(seen) >= LINKS_MAX:
            return


def _drop_navigation(tree: "HtmlElement") -> None:
    doomed = [
        element
        for element in tree.iter()
        if isinstance(element.tag, str)
        and (element.tag in _APART or (element.get("role") or "").strip().lower() in _APART_ROLES)
    ]
    _drop(doomed)
    _drop([element for element in tree.iter(*_BLOCKS) if _is_all_links(element)])


def _drop(elements: Iterable["HtmlElement"]) -> None:
    for element in elements:
        if element.getparent() is not None:
            element.drop_tree()


def _is_all_links(element: "HtmlElement") -> bool:
    links = element.findall(".//a")
    if len(links) < _LINKS_MIN:
        return False
    whole = _characters(element)
    # A block of any length is walked no further than this, however deeply blocks lie in each other.
    return 0 < whole <= _BLOCK_CHARACTERS_MAX and sum(map(_characters, links)) / whole >= _LINK_SHARE_MIN


def _characters(element: "HtmlElement") -> int:
    """Characters of its text that are no space, counted to a little over the longest block of interest."""
    count = 0
    for text in element.itertext():
        count += sum(not character.isspace() for character in text)
        if count > _BLOCK_CHARACTERS_MAX:
            break
    return count
