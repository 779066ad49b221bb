"""RFC 9309 by vectors of our own; by Google's and against Protego on real files where those are present."""

import json
import os
import time
from pathlib import Path

import pytest

from so8t.collect.web import robots
from so8t.collect.web.addresses import target_of

REAL = Path(os.environ.get("SO8T_REALDATA", "-")) / "robotstxt-vectors"
needs_vectors = pytest.mark.skipif(not REAL.is_dir(), reason="SO8T_REALDATA names no folder with robotstxt-vectors")

DENY = "User-agent: so8t\nDisallow: /\n"
# (robots.txt, path, allowed), for the crawler so8t.
VECTORS = [
    # Whose group it is.
    ("", "/a", True),
    (DENY, "/a", False),
    ("User-agent: *\nDisallow: /a\n", "/a", False),
    ("User-agent: SO8T\nDisallow: /\n", "/a", False),
    ("User-agent: so8tbot\nDisallow: /\n", "/a", True),
    ("User-agent: so\nDisallow: /\n", "/a", True),
    ("User-agent: so8t/2.0 (x)\nDisallow: /\n", "/a", False),
    ("User-agent: *\nDisallow: /\nUser-agent: so8t\nDisallow: /b\n", "/a", True),
    ("User-agent: so8t\nDisallow: /b\nUser-agent: *\nDisallow: /\n", "/a", True),
    ("User-agent: other\nDisallow: /\n", "/a", True),
    ("User-agent: * x\nDisallow: /\n", "/a", False),
    ("User-agent: *x\nAllow: /\nUser-agent: *\nDisallow: /\n", "/a", False),
    # Groups: several names, several groups of one name, lines that close nothing.
    ("User-agent: x\nUser-agent: so8t\nDisallow: /\n", "/a", False),
    ("User-agent: x\nDisallow: /\nUser-agent: so8t\nAllow: /\n", "/a", True),
    ("User-agent: so8t\nAllow: /a\nUser-agent: x\nAllow: /\nUser-agent: so8t\nDisallow: /\n", "/b", False),
    ("User-agent: so8t\nAllow: /a\nUser-agent: x\nAllow: /\nUser-agent: so8t\nDisallow: /\n", "/a", True),
    ("User-agent: so8t\nSitemap: https://x.example/s.xml\nDisallow: /\n", "/a", False),
    ("User-agent: so8t\nSitemap: /s.xml\nUser-agent: x\nDisallow: /\n", "/a", False),
    ("User-agent: so8t\n\n\nDisallow: /\n", "/a", False),
    ("User-agent: so8t\nHost: x\nnonsense\nDisallow: /\n", "/a", False),
    ("User-agent: so8t\nCrawl-delay: 3\nUser-agent: x\nDisallow: /\n", "/a", False),
    ("Disallow: /\nUser-agent: so8t\nAllow: /\n", "/a", True),
    # Which rule wins.
    ("User-agent: *\nDisallow: /a\nAllow: /a/b\n", "/a/b/c", True),
    ("User-agent: *\nAllow: /a/b\nDisallow: /a\n", "/a/c", False),
    ("User-agent: *\nDisallow: /a\nAllow: /a\n", "/a", True),
    ("User-agent: *\nAllow: /a\nDisallow: /a*\n", "/ab", False),
    ("User-agent: *\nAllow: /page.\nDisallow: /*.html\n", "/page.html", False),
    ("User-agent: *\nDisallow:\n", "/a", True),
    ("User-agent: *\nDisallow: \nDisallow: /a\n", "/a", False),
    ("User-agent: *\nDisallow: /A\n", "/a", True),
    ("User-agent: *\nDisallow: /\n", "/robots.txt", True),
    ("User-agent: *\nDisallow: a\n", "/a", False),
    ("User-agent: *\nDisallow: /\nAllow: a\n", "/a", False),
    # Wildcards.
    ("User-agent: *\nDisallow: /*/x\n", "/a/x", False),
    ("User-agent: *\nDisallow: /*/x\n", "/x", True),
    ("User-agent: *\nDisallow: /*.php$\n", "/a.php", False),
    ("User-agent: *\nDisallow: /*.php$\n", "/a.php?b", True),
    ("User-agent: *\nDisallow: /*.php\n", "/a.php?b", False),
    ("User-agent: *\nDisallow: /a$\n", "/a", False),
    ("User-agent: *\nDisallow: /a$\n", "/ab", True),
    ("User-agent: *\nDisallow: /a$b\n", "/a$b", False),
    ("User-agent: *\nDisallow: /a*$\n", "/abc", False),
    ("User-agent: *\nDisallow: /a*b*b$\n", "/ab", True),
    ("User-agent: *\nDisallow: /a*b*b$\n", "/abb", False),
    ("User-agent: *\nDisallow: *\n", "/a", False),
    ("User-agent: *\nDisallow: /a**b\n", "/ab", False),
    ("User-agent: *\nDisallow: *?x=\n", "/a?x=1", False),
    ("User-agent: *\nDisallow: /a%2Ab\n", "/a*b", False),
    ("User-agent: *\nDisallow: /a%2Ab\n", "/axb", True),
    # Percent-encoding.
    ("User-agent: *\nDisallow: /日本\n", "/%E6%97%A5%e6%9c%ac/x", False),
    ("User-agent: *\nDisallow: /%E6%97%A5%e6%9c%ac\n", "/日本", False),
    ("User-agent: *\nDisallow: /%7Ea\n", "/~a", False),
    ("User-agent: *\nDisallow: /~a\n", "/%7ea", False),
    ("User-agent: *\nDisallow: /a%2Fb\n", "/a/b", True),
    ("User-agent: *\nDisallow: /a%2fb\n", "/a%2Fb", False),
    ("User-agent: *\nDisallow: /a%\n", "/a%", False),
    ("User-agent: *\nDisallow: /a b\n", "/a%20b", False),
    # How lines are written.
    ("\ufeffUser-agent: *\nDisallow: /\n", "/a", False),
    ("User-agent: *\r\nDisallow: /a\r\n", "/a", False),
    ("User-agent: *\rDisallow: /a\r", "/a", False),
    ("user-AGENT:*\ndisALLOW:/a", "/a", False),
    ("  User-agent :  *  \n\tDisallow\t:\t/a\t\n", "/a", False),
    ("User-agent: * # all\nDisallow: /a # here\n", "/a", False),
    ("User-agent: *\n#Disallow: /\n", "/a", True),
    ("User-agent: *\nDisallow: /a#b\n", "/a", False),
    ("User-agent *\nDisallow /a\n", "/a", False),
    ("User-agent: *\nDisalow: /a\n", "/a", False),
    ("User-agent: *\nDisallow: /a\u2028Allow: /a\n", "/a", True),
    ("<html><body>Not found</body></html>", "/a", True),
]  # fmt: skip


@pytest.mark.parametrize(("text", "path", "allowed"), VECTORS)
def test_vectors(text, path, allowed):
    assert robots.parse(text.encode("utf-8")).verdict("so8t", path).allowed is allowed


def test_octets_that_are_no_utf8_are_compared_as_octets():
    told = robots.parse("User-agent: *\nDisallow: /日本\n".encode("cp932"))
    assert not told.verdict("so8t", "/%93%FA%96%7B/a").allowed
    assert told.verdict("so8t", "/%E6%97%A5").allowed


def test_the_first_500_kib_count():
    filler = b"# " + b"x" * 997 + b"\n"
    inside = b"User-agent: *\nDisallow: /a\n" + filler * 600 + b"Disallow: /b\n"
    told = robots.parse(inside)
    assert (told.verdict("so8t", "/a").allowed, told.verdict("so8t", "/b").allowed) == (False, True)


def test_the_verdict_names_its_line_and_the_delay_is_the_longest():
    told = robots.parse(
        b"User-agent: so8t\nCrawl-delay: 2\nDisallow: /a\nUser-agent: SO8T\nCrawl-delay: 7.5\nCrawl-delay: nan\n"
    )
    verdict = told.verdict("so8t", "/abc")
    assert (verdict.allowed, verdict.rule, verdict.line) == (False, "disallow: /a", 3)
    assert told.delay_s("so8t") == 7.5
    assert told.delay_s("other") == 0.0
    assert told.names("so8t")
    assert not told.names("other")


def test_no_pattern_makes_matching_slow():
    told = robots.parse(b"User-agent: *\nDisallow: /" + b"*a" * 5000 + b"*b$\n")
    started = time.process_time()
    assert told.verdict("so8t", "/" + "a" * 2000).allowed
    assert time.process_time() - started < 1.0


@pytest.mark.realdata
@needs_vectors
def test_googles_vectors_no_wrong_allow_and_one_wrong_deny():
    wrong = []
    vectors = json.loads((REAL / "google_robots_vectors.json").read_text(encoding="utf-8"))
    for vector in vectors:
        if not vector["debatable"]:
            told = robots.parse(vector["robots_txt"].encode("utf-8", "surrogateescape"))
            target = target_of(vector["url"]) if vector["url"] else "/"
            if told.verdict(vector["user_agent"], target).allowed != vector["allowed"]:
                wrong.append((vector["id"], vector["google_only"], vector["allowed"]))
    assert len(vectors) >= 69
    # An addition of Google's: Allow of .../index.html allows its folder, too.
    assert wrong == [("GoogleOnly_IndexHTMLisDirectory-078", True, True)]


@pytest.mark.realdata
@needs_vectors
def test_real_files_are_read_as_protego_reads_them():
    from protego import Protego

    asked, looser = 0, []
    for path in sorted((REAL / "real").iterdir()):
        data = path.read_bytes()
        own, other = robots.parse(data), Protego.parse(data.decode("utf-8-sig", "replace"))
        targets = {"/", "/a/b.html", "/search?q=x", "/wp-admin/", "/ja/", "/api/v1", "/cgi-bin/x"}
        for group in own._groups:
            for rule in group.rules[:40]:
                text = "/" + rule.pattern.decode().lstrip("/")
                targets |= {text.replace("*", "x").rstrip("$"), text.replace("*", "").rstrip("$") + "y"}
        for agent in ("so8t", "Googlebot", "GPTBot"):
            for target in sorted(targets):
                asked += 1
                allowed = own.verdict(agent, target).allowed
                if allowed and not other.can_fetch("https://site.example" + target, agent):
                    looser.append((path.name, agent, target))
    assert asked > 5000
    assert looser == []
