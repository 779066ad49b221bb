"""Bytes to text, text to rows: encodings, extraction, claims, directives, language."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from so8t.collect.web import claims, directives, extract
from so8t.collect.web.config import WebSource
from so8t.collect.web.decode import Undecodable, decode
from so8t.collect.web.fetch import Answer
from so8t.collect.web.judge import judge
from so8t.collect.web.language import language_of
from tests.collect.web.site import japanese, page

REAL = Path(os.environ.get("SO8T_REALDATA", "-")) / "jp-encodings"
TEXT = "".join(japanese(5))
# Characters that Shift_JIS lacks and every old Japanese page has.
VENDOR = TEXT + "①②㈱№髙﨑～－∥"


@pytest.mark.parametrize(
    ("data", "header", "encoding", "how"),
    [
        (TEXT.encode("utf-8"), "", "utf-8", "trial"),
        (TEXT.encode("utf-8-sig"), "text/html; charset=shift_jis", "utf-8-sig", "byte order mark"),
        (TEXT.encode("utf-16"), "", "utf-16", "byte order mark"),
        (TEXT.encode("utf-16-le"), "text/html; charset=utf-16le", "utf-16le", "HTTP header"),
        (VENDOR.encode("cp932"), "text/html; charset=Shift_JIS", "cp932", "HTTP header"),
        (VENDOR.encode("cp932"), "", "cp932", "trial"),
        (VENDOR.encode("cp932"), "text/html; charset=UTF-8", "cp932", "trial"),
        (VENDOR.encode("cp932"), "text/html; charset=ISO-8859-1", "cp932", "trial"),
        (TEXT.encode("euc_jp"), "", "euc_jp", "trial"),
        (TEXT.encode("euc_jp"), "text/html; charset=x-euc-jp", "euc_jp", "HTTP header"),
        ((TEXT + "①").encode("euc_jis_2004"), "", "euc_jis_2004", "trial"),
        (TEXT.encode("iso2022_jp"), "", "iso2022_jp", "trial"),
        (TEXT.encode("iso2022_jp"), "text/html; charset=us-ascii", "iso2022_jp", "trial"),
        (b"plain text", "text/html; charset=unheard-of", "utf-8", "HTTP header"),
        ("Größe".encode("cp1252"), "text/html; charset=latin1", "cp1252", "HTTP header"),
    ],
)  # fmt: skip
def test_bytes_become_the_text_that_they_were(data, header, encoding, how):
    decoded = decode(data, header)
    assert (decoded.encoding, decoded.how, decoded.replaced) == (encoding, how, 0)
    assert decoded.text == data.decode(encoding)


@pytest.mark.parametrize(
    ("label", "codec"), [("Shift_JIS", "cp932"), ("euc-jp", "euc_jp"), ("iso-2022-jp", "iso2022_jp")]
)
@pytest.mark.parametrize(
    "form", ['<meta charset="{}">', "<META http-equiv=Content-Type content='text/html; charset={}'>"]
)
def test_a_page_is_read_as_it_declares(label, codec, form):
    decoded = decode((form.format(label) + TEXT).encode(codec))
    assert (decoded.encoding, decoded.how) == (codec, "meta")
    assert decoded.text.endswith(TEXT)


def test_an_xml_declaration_counts_and_one_beyond_4_kb_does_not():
    feed = f'<?xml version="1.0" encoding="EUC-JP"?><a>{TEXT}</a>'.encode("euc_jp")
    assert decode(feed).how == "XML declaration"
    late = (" " * 5000 + '<meta charset="koi8-r">' + TEXT).encode()
    assert decode(late).encoding == "utf-8"


def test_a_page_cannot_choose_a_codec_of_pythons():
    for label in ("unicode_escape", "punycode", "rot13", "utf-7", "idna"):
        assert decode(b'<meta charset="' + label.encode() + b'">\\u0041+ZeU-').encoding == "utf-8"


def test_a_trace_may_stay_unread_and_no_more():
    broken = TEXT.encode() * 5
    decoded = decode(broken[:-1], "text/html; charset=utf-8")
    assert (decoded.encoding, decoded.replaced) == ("utf-8", 1)
    for binary in (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", b"\x00"):
        with pytest.raises(Undecodable, match="binary"):
            decode(binary, "text/html")
    with pytest.raises(Undecodable):
        decode(bytes(range(128, 256)) * 40, "text/html; charset=utf-8")


@pytest.mark.realdata
@pytest.mark.skipif(not REAL.is_dir(), reason="SO8T_REALDATA names no folder with jp-encodings")
def test_real_pages_are_decoded_as_their_folder_says():
    codecs = {
        "CP932": ("cp932",),
        "SHIFT_JIS": ("cp932",),
        "EUC-JP": ("euc_jp", "euc_jis_2004"),
        "iso-2022-jp": ("iso2022_jp",),
    }
    wrong, seen = [], 0
    for folder, names in codecs.items():
        for path in sorted((REAL / folder).iterdir()):
            data, seen = path.read_bytes(), seen + 1
            decoded = decode(data)
            if decoded.encoding not in names or decoded.replaced or decoded.text != data.decode(decoded.encoding):
                wrong.append((folder, path.name, decoded.encoding, decoded.replaced))
    assert seen >= 31
    assert wrong == []


def read(html, url="http://a.example/x/"):
    tree = extract.parse(html)
    assert tree is not None
    return extract.read(tree, url, "utf-8")


def test_text_without_frame_and_links_in_order():
    menu = "<nav><a href='/1'>ニュース一覧</a></nav>"
    listed = "<ul>" + "".join(f"<li><a href='/{n}'>関連する記事その{n}</a></li>" for n in range(5)) + "</ul>"
    more = "<a href='b#x'>B</a><a href='mailto:x@y'>m</a><a rel='nofollow' href='/no'>n</a><a href='b'>B</a>"
    html = page(3, []).replace("<main>", f"{menu}{listed}{more}<main>")
    found = read(html)
    assert "ニュース一覧" not in found.text
    assert "関連する記事" not in found.text
    assert "再配布" not in found.text
    assert found.text.count("番目の出来事でした") == 16
    assert found.links == (
        "http://a.example/", "http://a.example/p/0", "http://a.example/p/1", "http://a.example/1",
        *(f"http://a.example/{n}" for n in (0, 2, 3, 4)), "http://a.example/x/b",
    )  # fmt: skip
    assert (found.title, found.language) == ("記録 3", "ja")


def test_a_short_page_is_not_its_navigation():
    html = (
        "<html lang=ja><body><div class=menu><a href=/1>ホーム</a> <a href=/2>会社案内</a> <a href=/3>採用</a></div>"
        "<p>本日は臨時休業です。明日の朝から通常どおり営業します。</p><footer>連絡先</footer></body></html>"
    )
    text = read(html).text
    assert "臨時休業" in text
    assert not [word for word in ("ホーム", "会社案内", "採用", "連絡先") if word in text]


def test_base_and_declarations_in_a_decoded_page_do_no_harm():
    html = "<?xml version='1.0' encoding='Shift_JIS'?><html><head><base href='/deep/'><meta charset=euc-jp></head>"
    found = read(html + f"<body><p>{TEXT}</p><a href=z>z</a></body></html>")
    assert "番目の出来事" in found.text
    assert found.links == ("http://a.example/deep/z",)


def test_what_is_no_page_has_no_tree_or_no_text():
    assert extract.parse("") is None
    assert extract.parse(" \x00 ") is None
    assert read("<div>" * 5000 + "x").links == ()


def test_a_page_of_too_many_elements_is_not_read():
    with pytest.raises(extract.Unreadable, match="elements"):
        extract.parse("<table>" + "<tr><td>a<td>b" * 10_000)


MARKUP = ["<", ">", "<p>", "</p>", "<table><tr>", "<td>", "<a href='", "'>", "<!--", "-->", "<script>", "<base href=//[>",
          "<meta charset=", "<svg><style>", "<li>", "&#0;", "&#xd800;", "\x00", "\ud800", "日本", "<title>", "<nav>", "]]>"]  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(st.sampled_from(MARKUP), st.text(max_size=8)), max_size=40).map("".join))
def test_whatever_a_page_holds_it_is_judged(html):
    site = WebSource(kind="web", name="w", seeds=("http://a.example/",), sites=[{"host": "a.example"}], contact="a@b")
    for data in (html.encode("utf-8", "surrogatepass"), html.encode("cp932", "replace")):
        outcome = judge(Answer("http://a.example/", 200, {"content-type": "text/html"}, data), 0, site)
        assert outcome.kind == "quarantined"
        assert outcome.reason


@pytest.mark.parametrize(
    ("html", "found"),
    [
        ('<link rel="license" href="https://opensource.org/license/mit/">', {"rel=license": ["mit"]}),
        ('<a rel="nofollow License" href="http://www.apache.org/licenses/LICENSE-2.0">x</a>', {"rel=license": ["apache-2.0"]}),
        ('<a href="https://creativecommons.org/licenses/by-nc-sa/2.1/jp/">CC</a>', {"link": ["cc-by-nc-sa-2.1"]}),
        ('<a href="https://creativecommons.org/publicdomain/zero/1.0/">CC0</a>', {"link": ["cc0-1.0"]}),
        ('<meta name="dcterms.license" content="Apache License, Version 2.0">', {"meta dcterms.license": ["apache-2.0"]}),
        ('<meta property="DC.rights" content="All rights reserved; mit">', {"meta dc.rights": ["other:all rights reserved, mit"]}),
        ('<script type="application/ld+json">{"@graph": [{"license": "MIT"}]}</script>', {"json-ld": ["mit"]}),
        ('<script type="application/ld+json">{broken</script>', {}),
        ('<a rel="license" href="/terms">terms</a>', {"rel=license": ["other:/terms"]}),
        ('<a href="https://mit.edu/">MIT</a><p>MIT License</p>', {}),
        ('<link rel="license" href="https://evil.example/?https://opensource.org/license/mit">',
         {"rel=license": ["other:https://evil.example/?https://opensource.org/license/mit"]}),
    ],
)  # fmt: skip
def test_licence_claims(html, found):
    tree = extract.parse(f"<html><head></head><body>{html}</body></html>")
    assert claims.claims(tree) == found


@pytest.mark.parametrize(
    ("tag", "refused", "follow"),
    [
        ("", "", True), ("all", "", True), ("noindex", "noindex", True), ("none", "none", False), ("NoFollow", "", False),
        ("noai, noimageai", "noai", True), ("noimageai", "noimageai", True), ("otherbot: noindex", "", True),
        ("otherbot: noindex, nofollow", "", True), ("so8t: noindex", "noindex", True), ("GPTBot: noindex", "noindex", True),
        ("otherbot: noindex, so8t: nofollow", "", False), ("max-snippet: 5, noindex", "noindex", True),
        ("unavailable_after: 2030-01-01, noai", "noai", True), ("robots: noindex", "noindex", True),
    ],
)  # fmt: skip
def test_the_header(tag, refused, follow):
    said = directives.of_headers({"x-robots-tag": tag}, ("so8t", "GPTBot"))
    assert (said.refused, said.follow) == (refused, follow)


def test_the_meta_elements_and_the_reservation():
    said = directives.of_metas([("ROBOTS", "index,NOAI"), ("otherbot", "nofollow")], ("so8t",))
    assert (said.refused, said.follow) == ("noai", True)
    assert directives.of_metas([("so8t", "nofollow")], ("so8t",)).follow is False
    assert directives.of_metas([("tdm-reservation", "1")], ()).refused == "tdm-reservation"
    assert directives.of_headers({"tdm-reservation": "1"}, ()).refused == "tdm-reservation"
    assert directives.of_headers({"tdm-reservation": "0"}, ()).refused == ""


@pytest.mark.parametrize(
    ("text", "declared", "language"),
    [
        (TEXT, "", "ja"), (TEXT, "en", "ja"), ("東京都庁舎建設計画概要説明会議事録", "ja-jp", "ja"), ("东京是日本的首都", "", ""),
        ("The station is at the end of the street, and it is open to all of you.", "", "en"),
        ("Der Bahnhof liegt am Ende der Straße und ist für alle geöffnet.", "en", ""), ("12345", "ja", ""), ("", "", ""),
    ],
)  # fmt: skip
def test_language(text, declared, language):
    assert language_of(text, declared) == language
