"""A web site on this machine: pages in every encoding, redirects, loops, slow, large, packed and broken answers."""

import gzip
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LICENCE = '<link rel="license" href="https://opensource.org/licenses/MIT">'
PAGES = 24
_WHO = ("管理人", "技術者", "旅人", "先生", "学生", "職人", "庭師", "船長")
_WHAT = ("古い時計", "新しい計算機", "赤い手帳", "木の机", "小さな望遠鏡", "厚い辞書", "青い自転車", "丸い鏡")
_DOES = (
    "をゆっくりと修理しました",
    "について長い文章を書きました",
    "を友人に見せて回りました",
    "の値段を丁寧に調べました",
)
_WHERE = ("駅の近くで", "山のふもとで", "海沿いの町で", "図書館の二階で", "静かな工房で", "市場の奥で")


def japanese(seed: int, sentences: int = 14) -> list[str]:
    """Sentences that read as prose and differ with the seed; cp932 has them all."""
    draw = random.Random(seed)  # noqa: S311
    return [
        f"{draw.choice(_WHERE)}{draw.choice(_WHO)}は{draw.choice(_WHAT)}{draw.choice(_DOES)}。それは{seed * 100 + n}番目の出来事でした。"
        for n in range(sentences)
    ]  # fmt: skip


def page(seed: int, links: list[str], head: str = LICENCE, charset: str = "", extra: str = "") -> str:
    """A page with a frame, an article and links."""
    declared = f'<meta charset="{charset}">' if charset else ""
    paragraphs = "".join(f"<p>{''.join(japanese(seed * 10 + n, 4))}</p>" for n in range(4))
    menu = "".join(f'<li><a href="{link}">{link}へ</a></li>' for link in links)
    return (
        f'<!DOCTYPE html><html lang="ja"><head>{declared}<title>記録 {seed}</title>{head}</head><body>'
        f'<div class="top"><a href="/">表紙</a> <a href="/p/0">最初</a> <a href="/p/1">次</a></div>'
        f"<main><article><h1>記録 {seed}</h1>{paragraphs}{extra}</article></main><ul>{menu}</ul>"
        f"<footer><p>この頁の無断での再配布はご遠慮なく。連絡先は表紙にあります。</p></footer></body></html>"
    )


ROBOTS = "User-agent: *\r\nDisallow: /private/\r\nSitemap: /map.xml\r\nAllow: /private/open\r\n"


def _html(text: str, charset: str = "", codec: str = "utf-8", **headers: str) -> tuple[int, dict[str, str], bytes]:
    kind = "text/html" + (f"; charset={charset}" if charset else "")
    return 200, {"Content-Type": kind, **{k.replace("_", "-"): v for k, v in headers.items()}}, text.encode(codec)


def contents(other: str) -> dict[str, tuple[int, dict[str, str], bytes]]:
    """path -> status, headers, body. `other` is the second site's address."""
    special = [
        "/sjis", "/euc", "/jis", "/sjis-undeclared", "/redirect/1", "/chain/0", "/loop/a", "/far", "/slow", "/private/x",
        "/private/open", "/noindex", "/tagged", "/nolicence", "/cc", "/short", "/german", "/pdf", "/big", "/bomb",
        "/busy-once", "/down", "/missing", "/text", "/plain-link#part", "/p/../p/2", "/brotli",
        f"http://{other}/", "http://127.0.0.1:9/", "https://elsewhere.example/", "mailto:a@b.example", "javascript:void(0)",
    ]  # fmt: skip
    pages = {"/": _html(page(0, [*special, *(f"/p/{n}" for n in range(6))]), "utf-8")}
    for n in range(PAGES):
        pages[f"/p/{n}"] = _html(
            page(100 + n, [f"/p/{(n * 2 + 1) % PAGES}", f"/p/{(n * 2 + 2) % PAGES}", "/p/0?a=1"]), "utf-8"
        )
    pages["/p/0?a=1"] = _html(page(200, ["/p/3"]), "utf-8")
    pages["/sjis"] = _html(page(1, [], charset="Shift_JIS", extra="<p>①㈱髙﨑～</p>"), "", "cp932")
    pages["/sjis-undeclared"] = _html(page(2, []), "", "cp932")
    pages["/euc"] = _html(page(3, [], charset="euc-jp"), "", "euc_jp")
    pages["/jis"] = _html(page(4, [], charset="iso-2022-jp"), "", "iso2022_jp")
    pages["/redirect/1"] = (302, {"Location": "/redirect/2"}, b"")
    pages["/redirect/2"] = (301, {"Location": "/landed"}, b"")
    pages["/landed"] = _html(page(5, []))
    for n in range(8):
        pages[f"/chain/{n}"] = (307, {"Location": f"/chain/{n + 1}"}, b"")
    pages["/loop/a"] = (302, {"Location": "/loop/b"}, b"")
    pages["/loop/b"] = (302, {"Location": "/loop/a"}, b"")
    pages["/far"] = (302, {"Location": "https://elsewhere.example/x"}, b"")
    pages["/slow"] = _html(page(6, []))
    pages["/private/x"] = pages["/private/open"] = _html(page(7, []))
    pages["/noindex"] = _html(page(8, ["/p/20"], head=LICENCE + '<meta name="robots" content="NoIndex">'))
    pages["/tagged"] = _html(page(9, []), X_Robots_Tag="otherbot: noindex, so8t: noai")
    pages["/nolicence"] = _html(page(10, [], head=""))
    pages["/cc"] = _html(
        page(11, [], head=LICENCE + '<a rel="license" href="https://creativecommons.org/licenses/by-nc/4.0/">x</a>')
    )
    pages["/short"] = _html(f"<html><head>{LICENCE}</head><body><p>短い頁です。</p></body></html>", "utf-8")
    pages["/german"] = _html(f"<html lang=de><head>{LICENCE}</head><body><p>{'Das ist ein langer deutscher Satz über Züge. ' * 12}</p></body></html>", "utf-8")  # fmt: skip
    pages["/pdf"] = (200, {"Content-Type": "application/pdf"}, b"%PDF-1.7")
    pages["/big"] = _html("<p>" + "長い" * 100_000 + "</p>", "utf-8")
    pages["/bomb"] = (200, {"Content-Type": "text/html", "Content-Encoding": "gzip"}, gzip.compress(b" " * 50_000_000))
    pages["/brotli"] = (200, {"Content-Type": "text/html", "Content-Encoding": "br"}, b"\x00" * 50)
    pages["/busy-once"] = _html(page(12, []))
    pages["/down"] = (503, {"Retry-After": "0"}, b"")
    pages["/text"] = (200, {"Content-Type": "text/plain; charset=euc-jp"}, "\n".join(japanese(77)).encode("euc_jp"))
    pages["/plain-link"] = _html(page(13, []))
    packed = gzip.compress(page(14, []).encode("utf-8"))
    pages["/p/23"] = (200, {"Content-Type": "text/html; charset=utf-8", "Content-Encoding": "gzip"}, packed)
    pages["/robots.txt"] = (200, {"Content-Type": "text/plain"}, ROBOTS.encode())
    return pages


class Site:
    """A server on a free port of 127.0.0.1; use as a context manager."""

    def __init__(self, slow_s: float = 0.0) -> None:
        self.asked: list[str] = []
        self.agents: set[str] = set()
        self.cookies: list[str | None] = []
        self.pages: dict[str, tuple[int, dict[str, str], bytes]] = {}
        self.slow_s = slow_s
        # Called with the number of the request, before and after its answer.
        self.before: Callable[[int], None] = lambda number: None
        self.after: Callable[[int], None] = lambda number: None
        self._lock = threading.Lock()
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self._server.server_port}"

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        with self._lock:
            self.asked.append(handler.path)
            number = len(self.asked)
            self.agents.add(handler.headers["User-Agent"])
            self.cookies.append(handler.headers["Cookie"])
            often = self.asked.count(handler.path)
        self.before(number)
        if handler.path == "/slow":
            time.sleep(self.slow_s)
        status, headers, body = self.pages.get(handler.path, (404, {}, b""))
        if handler.path == "/busy-once" and often == 1:
            status, headers, body = 429, {"Retry-After": "0"}, b""
        try:
            handler.send_response(status)
            for name, value in headers.items():
                handler.send_header(name, value)
            handler.send_header("Content-Length", str(len(body)))
            handler.end_headers()
            handler.wfile.write(body)
        except (BrokenPipeError, ConnectionResetError):
            pass
        self.after(number)

    def counts(self) -> Counter[str]:
        return Counter(self.asked)

    def forget(self) -> None:
        with self._lock:
            self.asked.clear()

    def __enter__(self) -> "Site":
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def two_sites(slow_s: float = 0.0) -> tuple[Site, Site]:
    """A site with everything, and a second one that it links to."""
    first, second = Site(slow_s), Site()
    first.pages = contents(second.address)
    second.pages = {
        "/": _html(page(300, [f"/q/{n}" for n in range(8)]), "utf-8"),
        **{f"/q/{n}": _html(page(310 + n, [f"http://{first.address}/p/{n}"]), "utf-8") for n in range(8)},
    }
    return first, second


def small_site() -> Site:
    """Ten pages, each found from the first."""
    site = Site()
    site.pages = {f"/p/{n}": _html(page(n, []), "utf-8") for n in range(9)}
    site.pages["/"] = _html(page(99, list(site.pages)), "utf-8")
    return site
