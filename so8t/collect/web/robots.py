"""robots.txt by RFC 9309: which group speaks to us, which of its rules wins.

The longest rule wins, an allowing one among equals (section 2.2.2); groups that name the same crawler are one
(2.2.1); a line that is no rule ends no group. Compared are octets in one form: unreserved ones plain, the rest
percent-encoded. Matching takes time linear in the path for each star, whatever the pattern.
"""

import math
import re
from dataclasses import dataclass, field

SIZE_MAX_BYTES = 500 * 1024
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_HEX = frozenset(b"0123456789abcdefABCDEF")
# What stands for itself, the wildcards included; the rest is percent-encoded, as addresses.canonical does it.
_LITERAL = _UNRESERVED | frozenset(b"!$&'()*+,;=:@/?")
# A product token has letters, "_" and "-" only (section 2.2.1); a name with digits, such as ours, is heard as well.
_TOKENS = (re.compile(r"[A-Za-z_-]+"), re.compile(r"[A-Za-z0-9_-]+"))
_LINE = re.compile(rb"\r\n|\r|\n")
# Misspellings that are common enough for a site to rely on; none of them can turn a denial into a permission.
_KEYS = {
    "user-agent": "agent", "useragent": "agent", "user agent": "agent", "allow": "allow",
    "disallow": "disallow", "dissallow": "disallow", "dissalow": "disallow", "disalow": "disallow",
    "diasllow": "disallow", "disallaw": "disallow", "crawl-delay": "delay", "crawldelay": "delay",
}  # fmt: skip


@dataclass(frozen=True)
class Rule:
    """One line that allows or disallows; `pattern` is in the normal form that targets are compared in."""

    allows: bool
    pattern: bytes
    line: int
    text: str


@dataclass(frozen=True)
class Verdict:
    """Whether a target may be fetched, and by which line (0 where no rule matches)."""

    allowed: bool
    rule: str = "no rule matches"
    line: int = 0


@dataclass
class _Group:
    agents: set[str] = field(default_factory=set)
    rules: list[Rule] = field(default_factory=list)
    delays: list[float] = field(default_factory=list)


class Robots:
    """A parsed file; build with `parse`."""

    def __init__(self, groups: list[_Group]) -> None:
        self._groups = groups

    def names(self, agent: str) -> bool:
        """Whether a group names this crawler itself, not only `*`."""
        return any(agent.lower() in group.agents for group in self._groups)

    def verdict(self, agent: str, target: str) -> Verdict:
        """Judge a path with query for a product token. `/robots.txt` itself is always allowed (section 2.2.2)."""
        octets = normal_target(target)
        if octets == b"/robots.txt":
            return Verdict(True, "robots.txt itself")
        matching = [rule for group in self._speaking_to(agent) for rule in group.rules if matches(rule.pattern, octets)]
        if not matching:
            return Verdict(True)
        best = max(matching, key=lambda rule: (len(rule.pattern), rule.allows, -rule.line))
        return Verdict(best.allows, best.text, best.line)

    def delay_s(self, agent: str) -> float:
        """The longest Crawl-delay that the site asks this crawler for; 0 for none."""
        return max((delay for group in self._speaking_to(agent) for delay in group.delays), default=0.0)

    def _speaking_to(self, agent: str) -> list[_Group]:
        name = agent.lower() if self.names(agent) else "*"
        return [group for group in self._groups if name in group.agents]


def parse(data: bytes) -> Robots:
    """Read a robots.txt; never fails. Of a long file the first 500 KiB count (section 2.5)."""
    # A file may begin with a byte order mark, or with what a broken proxy left of one.
    head = data[:SIZE_MAX_BYTES]
    for mark in (b"\xef\xbb\xbf", b"\xef\xbb", b"\xef"):
        if head.startswith(mark):
            head = head[len(mark) :]
            break
    groups: list[_Group] = []
    closed = True
    for number, line in enumerate(_LINE.split(head), 1):
        key, value = _key_and_value(line)
        if key == "agent":
            if closed:
                groups.append(_Group())
                closed = False
            groups[-1].agents |= _agents(value)
        elif not groups:
            continue
        elif key == "delay":
            groups[-1].delays += _seconds(value)
        elif key:
            closed = True
            groups[-1].rules += _rules(key == "allow", value, number)
    return Robots(groups)


def _key_and_value(line: bytes) -> tuple[str, str]:
    text = line.split(b"#", 1)[0].strip().decode("utf-8", "surrogateescape")
    key, colon, value = text.partition(":")
    if not colon:
        # `disallow /`: the colon is often forgotten.
        key, _, value = text.partition(" ")
    return _KEYS.get(key.strip().lower(), ""), value.strip()


def _agents(value: str) -> set[str]:
    """The product tokens, in lower case, that a value can be read as, or `*`."""
    if value.split()[:1] == ["*"]:
        return {"*"}
    return {found[0].lower() for token in _TOKENS if (found := token.match(value))}


def _seconds(value: str) -> list[float]:
    try:
        seconds = float(value)
    except ValueError:
        return []
    return [seconds] if math.isfinite(seconds) and seconds > 0 else []


def _rules(allows: bool, value: str, line: int) -> list[Rule]:
    """No rule for an empty value; a path that forgot its slash denies as if it had one, and allows nothing."""
    if value and value[0] not in "/*":
        value = "" if allows else "/" + value
    if not value:
        return []
    kind = "allow" if allows else "disallow"
    shown = value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return [Rule(allows, _normal_pattern(value), line, f"{kind}: {shown[:200]}")]


def matches(pattern: bytes, target: bytes) -> bool:
    """Whether a normal pattern (`*` any octets, `$` at its end the end) matches the begin of a normal target."""
    anchored = pattern.endswith(b"$")
    first, *rest = (pattern[:-1] if anchored else pattern).split(b"*")
    if not target.startswith(first):
        return False
    if not rest:
        return len(target) == len(first) or not anchored
    at = len(first)
    for part in rest[:-1]:
        found = target.find(part, at)
        if found < 0:
            return False
        at = found + len(part)
    if anchored:
        return len(target) - len(rest[-1]) >= at and target.endswith(rest[-1])
    return target.find(rest[-1], at) >= 0


def normal_target(target: str) -> bytes:
    """Path and query in the form that patterns have; a star or a dollar in a URL is an octet, not a wildcard."""
    text = target if target.startswith("/") else "/" + target
    return _normal(text.split("#", 1)[0]).replace(b"*", b"%2A").replace(b"$", b"%24")


def _normal_pattern(value: str) -> bytes:
    octets = _normal(value)
    return octets[:-1].replace(b"$", b"%24") + octets[-1:]


def _normal(text: str) -> bytes:
    octets, out, at = text.encode("utf-8", "surrogateescape"), bytearray(), 0
    while at < len(octets):
        octet = octets[at]
        pair = octets[at + 1 : at + 3]
        if octet == 0x25 and len(pair) == 2 and set(pair) <= _HEX:
            value = int(pair, 16)
            out += bytes((value,)) if value in _UNRESERVED else b"%%%02X" % value
            at += 3
            continue
        out += bytes((octet,)) if octet in _LITERAL else b"%%%02X" % octet
        at += 1
    return bytes(out)
