"""What a page claims about its licence: a claim only, kept as evidence of where it stood.

Places: rel=license on links and anchors, meta elements, schema.org's JSON-LD, and links to Creative Commons.
"""

import json
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lxml.html import HtmlElement

_CC = re.compile(r"^https?://(?:www\.)?creativecommons\.org/(licenses|publicdomain)/([a-z+-]+)/(\d\.\d)", re.IGNORECASE)
_KNOWN = (
    (re.compile(r"^https?://(?:www\.)?opensource\.org/licenses?/mit(?:-license)?(?:\.php|\.html|/)?$", re.IGNORECASE), "mit"),
    (re.compile(r"^https?://(?:www\.)?opensource\.org/licenses?/apache-?2(?:\.0)?(?:\.php|\.html|/)?$", re.IGNORECASE), "apache-2.0"),
    (re.compile(r"^https?://(?:www\.)?apache\.org/licenses/license-2\.0(?:\.txt|\.html)?$", re.IGNORECASE), "apache-2.0"),
    (re.compile(r"^https?://spdx\.org/licenses/mit(?:\.html)?$", re.IGNORECASE), "mit"),
    (re.compile(r"^https?://spdx\.org/licenses/apache-2\.0(?:\.html)?$", re.IGNORECASE), "apache-2.0"),
)  # fmt: skip
_NAMES = {
    "mit": "mit", "mit license": "mit", "the mit license": "mit",
    "apache-2.0": "apache-2.0", "apache 2.0": "apache-2.0", "apache license 2.0": "apache-2.0",
    "apache license, version 2.0": "apache-2.0",
}  # fmt: skip
_METAS = frozenset({"license", "licence", "dcterms.license", "dc.rights.license", "dcterms.rights", "dc.rights"})
_JSON_CHARACTERS_MAX = 200_000


def claims(tree: "HtmlElement") -> dict[str, list[str]]:
    """Place -> licences that are claimed there, in normal form; what is not recognised stays as `other:...`."""
    found: dict[str, list[str]] = {}
    for place, stated in _stated(tree):
        licence = normal_form(stated)
        if licence and licence not in found.setdefault(place, []):
            found[place].append(licence)
    return {place: sorted(licences) for place, licences in sorted(found.items()) if licences}


def normal_form(stated: str) -> str:
    """A licence URL or name in the spelling of the Hub's cards; `other:` before what is neither; "" for nothing."""
    text = " ".join(stated.split())
    creative = _CC.match(text)
    if creative:
        kind, terms, version = creative[1].lower(), creative[2].lower(), creative[3]
        if kind == "licenses":
            return f"cc-{terms}-{version}"
        return "cc0-1.0" if terms == "zero" else f"other:publicdomain-{terms}-{version}"
    for pattern, licence in _KNOWN:
        if pattern.match(text):
            return licence
    if not text:
        return ""
    # The gate splits a statement at its separator, which a claim must not be able to use.
    return _NAMES.get(text.lower(), "other:" + text.lower().replace(";", ",")[:200])


def _stated(tree: "HtmlElement") -> Iterator[tuple[str, str]]:
    for element in tree.iter("link", "a", "area"):
        href = (element.get("href") or "").strip()
        if "license" in (element.get("rel") or "").lower().split():
            yield "rel=license", href
        elif _CC.match(href):
            yield "link", href
    for element in tree.iter("meta"):
        name = (element.get("name") or element.get("property") or element.get("itemprop") or "").strip().lower()
        if name in _METAS:
            yield f"meta {name}", element.get("content") or ""
    for element in tree.iter("script"):
        if (element.get("type") or "").strip().lower() == "application/ld+json":
            for stated in _json_licences(element.text or ""):
                yield "json-ld", stated


def _json_licences(text: str) -> Iterator[str]:
    if len(text) > _JSON_CHARACTERS_MAX:
        return
    try:
        waiting: list[Any] = [json.loads(text)]
    except (ValueError, RecursionError):
        return
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            stated = value.get("license")
            if isinstance(stated, str):
                yield stated
            waiting += [inner for inner in value.values() if isinstance(inner, dict | list)]
        elif isinstance(value, list):
            waiting += [inner for inner in value if isinstance(inner, dict | list)]
