"""URLs in one form, so that one page has one name."""

import re
from collections.abc import Sequence
from urllib.parse import quote, urljoin, urlsplit, urlunsplit

from so8t.collect.web.config import Site

URL_CHARACTERS_MAX = 2000
PORTS = {"http": 80, "https": 443}
# RFC 3986: what may stand in a path or query as it is.
_SAFE = "!$&'()*+,;=:@/?%-._~"
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
_STRAY = re.compile(r"%(?![0-9A-Fa-f]{2})")
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_CONTROL = re.compile(r"[\x00-\x20\x7f]")


def canonical(url: str, encoding: str = "utf-8") -> str:
    """The URL without fragment and default port, host in lower case and punycode, escapes in one form; "" for none.

    `encoding` is the page's: browsers write the query (not the path) of a link in it.
    """
    try:
        parts = urlsplit(url.strip())
        host, port = parts.hostname or "", parts.port
        host = host.encode("idna").decode("ascii") if not host.isascii() else host
    except ValueError:  # a port that is no number, brackets that do not close, a label that is too long
        return ""
    scheme = parts.scheme.lower()
    if scheme not in PORTS or not host or "@" in parts.netloc or _CONTROL.search(host):
        return ""
    netloc = f"[{host}]" if ":" in host else host.rstrip(".")
    if port is not None and port != PORTS[scheme]:
        netloc += f":{port}"
    path = _escaped(_without_dots(parts.path or "/"), "utf-8")
    whole = urlunsplit((scheme, netloc, path, _escaped(parts.query, encoding), ""))
    return whole if len(whole) <= URL_CHARACTERS_MAX else ""


def join(base: str, link: str, encoding: str = "utf-8") -> str:
    """A link of a page as a canonical URL; "" where it leads to none."""
    try:
        return canonical(urljoin(base, re.sub(r"[\t\r\n]", "", link.strip())), encoding)
    except ValueError:
        return ""


def host_of(url: str) -> str:
    """Host with the port where that is not the scheme's own: what politeness and sites count by."""
    return urlsplit(url).netloc


def origin_of(url: str) -> str:
    """Scheme, host and port: what a robots.txt rules."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def target_of(url: str) -> str:
    """Path and query: what a rule of a robots.txt is compared with."""
    parts = urlsplit(url)
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def site_of(url: str, sites: Sequence[Site]) -> Site | None:
    """The named site that a canonical URL belongs to; the one with the longest name where several do."""
    host = host_of(url)
    found = [site for site in sites if host == site.host or (site.subdomains and host.endswith("." + site.host))]
    return max(found, key=lambda site: len(site.host), default=None)


def _escaped(text: str, encoding: str) -> str:
    quoted = quote(_STRAY.sub("%25", text), safe=_SAFE, encoding=encoding, errors="replace")
    return _ESCAPE.sub(_plain, quoted)


def _plain(match: re.Match[str]) -> str:
    character = chr(int(match[1], 16))
    return character if character in _UNRESERVED else match[0].upper()


def _without_dots(path: str) -> str:
    """RFC 3986, section 5.2.4, for an absolute path."""
    kept: list[str] = []
    parts = path.split("/")[1:]
    for part in parts:
        if part == "..":
            kept = kept[:-1]
        elif part != ".":
            kept.append(part)
    if parts and parts[-1] in (".", ".."):
        kept.append("")
    return "/" + "/".join(kept)
