"""Whole crawls of real local sites."""

import json
import sys
import time

import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from so8t import durable, records
from so8t.artifacts import Store
from so8t.collect import source
from so8t.collect.web import frontier as frontiers
from so8t.collect.web import gather
from so8t.collect.web.config import WebSource
from so8t.collect.web.gather import FRONTIER, pieces
from so8t.config import Config, Machine
from so8t.errors import InputError, StepFailed
from so8t.progress import Progress
from so8t.session import SessionFile
from so8t.step import Ref, execute
from tests.collect.web.site import Site, page, small_site, two_sites


def web(*sites: Site, **changes) -> WebSource:
    hosts = [site.address for site in sites]
    named = [{"host": host} for host in hosts]
    return WebSource(**{
        "kind": "web", "name": "web", "seeds": (f"http://{hosts[0]}/",), "sites": named, "private_hosts": hosts,
        "contact": "https://crawler.example/about", "delay_s": 0, "retry_delay_s": 0.01, "size_max_bytes": 300_000,
        "rows_target": 500, **changes,
    })  # fmt: skip


def run(config, out, session=None):
    out.mkdir(exist_ok=True)
    return source.run(config, {}, out, Progress("collect.source", Machine(), out.parent, (), session))


def provenance(out):
    lines = (out / "provenance.jsonl").read_text(encoding="utf-8").splitlines()
    return {line["final_url"]: line for line in map(json.loads, lines)}


@pytest.fixture(scope="module")
def crawled(tmp_path_factory):
    """(first site, second site, its artifact's folder, facts) of one crawl of everything."""
    out = tmp_path_factory.mktemp("crawl") / "out"
    first, second = two_sites()
    with first, second:
        facts = run(web(first, second), out)
        yield first, second, out, facts


def test_every_page_is_asked_for_once_and_ends_for_its_reason(crawled):
    first, second, out, facts = crawled
    counts = first.counts()
    expected = dict.fromkeys(counts, 1) | {"/busy-once": 2, "/down": 3}
    assert counts == expected
    assert second.counts() == dict.fromkeys(["/robots.txt", "/", "/p/0", "/p/1", *(f"/q/{n}" for n in range(8))], 1)
    seen = {url.removeprefix(f"http://{first.address}"): line for url, line in provenance(out).items()}
    reasons = {
        "/private/x": "robots.txt denies so8t: disallow: /private/", "/private/open": "",
        "/noindex": "the page says noindex", "/tagged": "the page says noai",
        "/nolicence": "no licence stated", "/cc": "licence not allowed: cc-by-nc-4.0",
        "/short": "too little text", "/german": "neither Japanese nor English",
        "/pdf": "a page of type application/pdf", "/big": "larger than 300000 bytes", "/bomb": "larger than 300000 bytes",
        "/brotli": "packed as 'br', which was not asked for", "/down": "status 503", "/missing": "status 404",
        "/far": "a redirect to a site that is not named", "/chain/5": "more than 5 redirects",
        "/loop/a": "", "/loop/b": "", "/busy-once": "", "/sjis": "", "/landed": "", "/text": "no licence stated",
    }  # fmt: skip
    assert {path: seen[path]["reason"] for path in reasons} == reasons
    assert "/private/x" not in counts
    assert "/chain/6" not in counts
    assert "http://127.0.0.1:9/" not in seen
    assert facts["requests"] == sum(first.counts().values()) + sum(second.counts().values()) - 2
    assert facts["asked_again_after_a_cut"] == 0


def test_rows_carry_their_provenance(crawled):
    first, _, out, facts = crawled
    lines = provenance(out)
    rows = records.read(out / "records.parquet")
    assert facts["rows"] == len(rows) == sum(line["kind"] == "kept" for line in lines.values())
    landed = lines[f"http://{first.address}/landed"]
    assert landed["url"] == f"http://{first.address}/redirect/1"
    assert landed["via"] == [landed["url"], f"http://{first.address}/redirect/2"]
    assert landed["claims"] == {"rel=license": ["mit"]}
    assert landed["robots"]["rule"] == "no rule matches"
    assert len(landed["robots"]["sha256"]) == len(landed["sha256"]) == len(landed["text_sha256"]) == 64
    row = next(row for row in rows if row.file == landed["final_url"])
    assert (row.licence, row.licence_evidence) == ("mit", "claimed by the page: rel=license")
    assert (row.source, row.language, row.label) == (f"http://{first.address}", "ja", -1)
    assert first.agents == {f"so8t/{gather.__version__} (+https://crawler.example/about)"}
    times = [json.loads(line) for line in (out / "times.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(times) == len(lines)
    assert sorted(path.name for path in out.iterdir()) == [
        "crawl", "provenance.jsonl", "quarantine.parquet", "records.parquet", "sources.json", "times.jsonl",
    ]  # fmt: skip


def test_encodings_end_as_the_same_text_and_frames_are_gone(crawled):
    first, _, out, _ = crawled
    rows = {row.file.removeprefix(f"http://{first.address}"): row for row in records.read(out / "records.parquet")}
    lines = provenance(out)
    for path, encoding in (
        ("/sjis", "cp932"),
        ("/sjis-undeclared", "cp932"),
        ("/euc", "euc_jp"),
        ("/jis", "iso2022_jp"),
    ):
        assert lines[f"http://{first.address}{path}"]["encoding"] == encoding
        assert "番目の出来事でした" in rows[path].prompt
        assert "\ufffd" not in rows[path].prompt
    assert "①㈱髙﨑～" in rows["/sjis"].prompt
    assert not [
        path for path, row in rows.items() if "表紙" in row.prompt or "無断" in row.prompt or "へ" in row.prompt
    ]


def test_of_a_page_that_is_set_aside_no_text_is_kept(crawled):
    _, _, out, _ = crawled
    assert set(pq.read_table(out / "quarantine.parquet")["prompt"].to_pylist()) == {""}
    assert "出来事" not in (out / "provenance.jsonl").read_text(encoding="utf-8")


def test_the_rows_pass_the_gate_of_collect(tmp_path):
    with small_site() as site:
        joined = Config(base={"kind": "demo"}, collect={"sources": [web(site).model_dump()]})
        execute(Ref("collect.source", "web"), joined, Store(tmp_path))
        whole = execute(Ref("collect"), joined, Store(tmp_path))
        assert (whole.manifest.facts["rows"], whole.manifest.facts["refused"]) == (10, 0)
        again = site.counts()
        assert execute(Ref("collect.source", "web"), joined, Store(tmp_path)).content
        assert site.counts() == again


def test_two_crawls_give_the_same_bytes_whatever_is_slow(crawled, tmp_path):
    first, second, out, _ = crawled
    first.forget(), second.forget()
    first.slow_s = 0.3
    run(web(first, second), tmp_path / "again")
    for name in ("records.parquet", "quarantine.parquet", "sources.json", "provenance.jsonl"):
        assert (tmp_path / "again" / name).read_bytes() == (out / name).read_bytes(), name


def test_target_and_depth(tmp_path):
    with small_site() as site:
        # One page in the first round, four in the second, which reaches the target.
        assert run(web(site, rows_target=3), tmp_path / "target")["rows"] == 5
        run(web(site, depth_max=0), tmp_path / "depth")
        assert list(provenance(tmp_path / "depth")) == [f"http://{site.address}/"]


def test_budgets_and_named_sites(tmp_path):
    first, second = two_sites()
    with first, second:
        run(web(first, second, pages_max=11, pages_per_host=7, retries=0), tmp_path / "pages")
        asked = [sum(site.counts().values()) - 1 for site in (first, second)]
        assert max(asked) <= 7
        assert sum(asked) == 11
        run(web(first, pages_max=6), tmp_path / "one")
        assert not [url for url in provenance(tmp_path / "one") if second.address in url]


def test_a_named_site_with_evidence_needs_no_claim(tmp_path):
    with Site() as site:
        site.pages = {"/": (200, {"Content-Type": "text/html"}, page(1, ["/cc"], head="").encode())}
        cc = '<a rel=license href="https://creativecommons.org/licenses/by/4.0/">CC</a>'
        site.pages["/cc"] = (200, {"Content-Type": "text/html"}, page(2, [], head=cc).encode())
        named = [{"host": site.address, "licence": "MIT", "evidence": "letter of 1 May"}]
        run(web(site, sites=named), tmp_path / "out")
        (row,) = records.read(tmp_path / "out" / "records.parquet")
        assert (row.licence, row.licence_evidence) == ("mit", "the config: letter of 1 May")
        reasons = pq.read_table(tmp_path / "out" / "quarantine.parquet")["reason"].to_pylist()
        assert reasons == ["places disagree: config says mit, page says cc-by-4.0"]
        run(web(site, accept=("cc-by-4.0",)), tmp_path / "accepted")
        assert [row.licence for row in records.read(tmp_path / "accepted" / "records.parquet")] == ["cc-by-4.0"]


def test_a_host_rests_between_two_requests(tmp_path):
    begun, ended = [], []
    with Site() as site:
        site.pages = {"/": (200, {"Content-Type": "text/html"}, page(1, ["/a", "/b"]).encode())}
        site.pages["/robots.txt"] = (200, {}, b"User-agent: *\nCrawl-delay: 0.3\n")
        site.before = lambda number: begun.append(time.monotonic())
        site.after = lambda number: ended.append(time.monotonic())
        run(web(site, pages_max=3), tmp_path / "out")
    # robots.txt itself is asked for before anybody knows the delay.
    pauses = [later - earlier for earlier, later in zip(ended[1:-1], begun[2:], strict=True)]
    assert len(pauses) == 2
    assert min(pauses) > 0.28, pauses


@pytest.mark.parametrize(
    ("status", "allowed"),
    [(404, True), (403, True), (429, False), (500, False), (503, False), (0, False), (302, False)],
)
def test_what_the_status_of_robots_txt_means(status, allowed, tmp_path):
    with Site() as site:
        site.pages = {"/": (200, {"Content-Type": "text/html"}, page(1, []).encode())}
        site.pages["/robots.txt"] = (status, {"Location": "/robots.txt"}, b"")
        if status == 0:
            site.pages["/robots.txt"] = (200, {"Content-Encoding": "gzip"}, b"no gzip")
        assert run(web(site), tmp_path / "out")["rows"] == int(allowed)
        assert ("/" in site.counts()) is allowed
        asked = site.counts()["/robots.txt"]
        assert asked == {404: 1, 403: 1, 0: 1, 302: 6}.get(status, 3)


def test_robots_txt_is_followed_to_another_site(tmp_path):
    with Site() as site, Site() as other:
        site.pages = {"/": (200, {"Content-Type": "text/html"}, page(1, []).encode())}
        site.pages["/robots.txt"] = (301, {"Location": f"http://{other.address}/robots.txt"}, b"")
        other.pages = {"/robots.txt": (200, {}, b"User-agent: GPTBot\nDisallow: /\n")}
        config = web(site, private_hosts=[site.address, other.address])
        assert run(config, tmp_path / "out")["rows"] == 0
        (line,) = provenance(tmp_path / "out").values()
        assert line["reason"] == "robots.txt denies GPTBot: disallow: /"
        assert run(web(site, private_hosts=[site.address, other.address], also_heed=()), tmp_path / "x")["rows"] == 1
        # A redirect into a network that nobody named is not followed.
        assert run(web(site), tmp_path / "strict")["rows"] == 0


def test_without_a_network_nothing_is_written_off(tmp_path):
    with Site() as site:
        site.pages = {"/": (200, {"Content-Type": "text/html"}, page(1, []).encode())}
    config = web(site, retries=0)
    for _ in range(2):
        with pytest.raises(StepFailed, match="no site answered"):
            run(config, tmp_path / "out")
    with frontiers.Frontier(tmp_path / "out" / FRONTIER) as frontier:
        assert frontier.done() == []
    with pytest.raises(StepFailed):
        run(config, tmp_path / "out")
    assert run(config, tmp_path / "out")["rows"] == 0
    (line,) = provenance(tmp_path / "out").values()
    assert line["kind"] == "unreachable"


class Stop(Exception):
    pass


def stopped(config, out, session):
    """Run until the end of the second round."""

    class Sink:
        def report(self, step, done, total, message, metrics):
            if message == "round 3":
                raise Stop

    out.mkdir(exist_ok=True)
    with pytest.raises(Stop):
        source.run(config, {}, out, Progress("collect.source", Machine(), out.parent, (Sink(),), session))


def test_the_session_says_how_far_the_crawl_is(tmp_path):
    with small_site() as site:
        config, out = web(site), tmp_path / "out"
        session = SessionFile.open(tmp_path, "crawl", "collect.source")
        stopped(config, out, session)
        told = session.session
        assert (told.current_epoch, told.current_step, told.total_steps) == (2, 5, 500)
        assert told.checkpoints == [str(out / FRONTIER)]
        assert told.last_checkpoint_time
        run(config, out, session)
        assert session.session.current_step == 10
        assert site.counts() == dict.fromkeys(site.counts(), 1)


def age(out, days):
    with frontiers.Frontier(out / FRONTIER) as frontier:
        frontier._do(("UPDATE meta SET value = value - ? WHERE key = 'progress_at'", (days * 86400,)))


@pytest.mark.parametrize("harm", ["old", "damaged", "young"])
def test_an_old_or_damaged_frontier_begins_anew_and_says_so(harm, tmp_path):
    with small_site() as site:
        config, out = web(site), tmp_path / "out"
        session = SessionFile.open(tmp_path, "crawl", "collect.source")
        stopped(config, out, session)
        if harm == "damaged":
            path = out / FRONTIER
            data = path.read_bytes()
            path.write_bytes(data[:4096] + b"\xff" * (len(data) - 4096))
        else:
            age(out, 8 if harm == "old" else 6)
        run(config, out, session)
        assert site.counts()["/"] == (1 if harm == "young" else 2)
        assert len(session.session.problems) == (0 if harm == "young" else 1)


def test_a_page_that_takes_the_process_down_is_left_in_the_end(tmp_path):
    with small_site() as site:
        config, out = web(site), tmp_path / "out"
        out.mkdir()
        for death in range(frontiers.DEATHS_MAX + 1):
            with frontiers.Frontier(out / FRONTIER) as frontier:
                frontier.begin(config.seeds)
                waiting = frontier.choose(100, 100)
                if death < frontiers.DEATHS_MAX:
                    frontier.ask(waiting[0], 0)
        assert waiting == []
        run(config, out)
        (line,) = provenance(out).values()
        assert (line["kind"], line["reason"]) == ("failed", "the process died 8 times while it was asked for")
        assert site.asked == []


def test_robots_txt_is_asked_for_again_after_a_day(tmp_path):
    with small_site() as site:
        config, out = web(site), tmp_path / "out"
        stopped(config, out, None)
        assert site.counts()["/robots.txt"] == 1
        with frontiers.Frontier(out / FRONTIER) as frontier:
            frontier._do(("UPDATE robots SET fetched_at = fetched_at - 24 * 3600", ()))
        site.pages["/robots.txt"] = (200, {}, b"User-agent: *\nDisallow: /p/\n")
        seen = len(provenance_of(site, "/p/"))
        run(config, out)
        assert site.counts()["/robots.txt"] == 2
        assert len(provenance_of(site, "/p/")) == seen


def provenance_of(site, prefix):
    return [path for path in site.asked if path.startswith(prefix)]


def test_a_host_that_is_busy_is_left_alone_for_as_long_as_it_says(tmp_path):
    begun = []
    with Site() as site:
        site.pages = {"/": (503, {"Retry-After": "1"}, b""), "/robots.txt": (404, {}, b"")}
        site.before = lambda number: begun.append(time.monotonic())
        run(web(site, seeds=(f"http://{site.address}/", f"http://{site.address}/a"), retries=0), tmp_path / "out")
        assert site.asked == ["/robots.txt", "/", "/a"]
        assert begun[2] - begun[1] > 0.95


@pytest.mark.parametrize("how", ["retry-after", "crawl-delay"])
def test_a_site_that_wants_to_be_left_alone_for_long_is_left_out(how, tmp_path):
    with Site() as slow, small_site() as other:
        slow.pages = {"/": (503, {"Retry-After": "3000"}, b"")}
        if how == "crawl-delay":
            slow.pages["/robots.txt"] = (200, {}, b"User-agent: *\nCrawl-delay: 3000\n")
        seeds = (f"http://{slow.address}/", f"http://{slow.address}/a", f"http://{other.address}/")
        assert run(web(slow, other, seeds=seeds), tmp_path / "out")["rows"] == 10
        assert slow.asked == (["/robots.txt", "/"] if how == "retry-after" else ["/robots.txt"])
        reasons = [provenance(tmp_path / "out")[seed]["reason"] for seed in seeds]
        assert (
            reasons
            == {
                "retry-after": ["status 503", "its site asked to be left alone for long", ""],
                "crawl-delay": ["robots.txt asks for a pause of 3000 s"] * 2 + [""],
            }[how]
        )


def test_cuts_after_the_last_page_ask_for_nothing_again(tmp_path, monkeypatch):
    """An exception in place of each durable write of the rows and of the commit, and the same command again."""
    whole = durable.open_for_write
    with small_site() as site:
        joined = Config(base={"kind": "demo"}, collect={"sources": [web(site).model_dump()]})
        ref = Ref("collect.source", "web")
        calm = execute(ref, joined, Store(tmp_path / "calm"))
        site.forget()
        cuts, asked = 0, None
        while True:
            written = []

            def cut(path, written=written, cuts=cuts):
                if path.name != "session.json":
                    written.append(path.name)
                    if len(written) > cuts:
                        raise Stop
                return whole(path)

            monkeypatch.setattr(durable, "open_for_write", cut)
            try:
                torn = execute(ref, joined, Store(tmp_path / "torn"))
                break
            except Stop:
                cuts += 1
                asked = asked or site.counts()
                assert site.counts() == asked
        assert cuts == len(written) == 6
        assert site.counts() == asked
        assert torn.content == calm.content


def test_what_crawling_needs_and_is_not_there_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "protego", None)
    for name in [name for name in sys.modules if name.startswith("so8t.collect.web.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr("so8t.collect.web.gather")
    with Site() as site, pytest.raises(InputError, match="protego is not installed"):
        run(web(site), tmp_path / "out")


def test_texts_are_cut_between_lines():
    assert pieces(["aa", "bb", "cc"], 5) == ["aa\nbb", "cc"]
    assert pieces(["abcdefg", "h"], 3) == ["abc", "def", "g\nh"]
    assert pieces([], 3) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"private_hosts": ()},
        {"seeds": ("ftp://a.example/",)}, {"seeds": ("http://me@a.example/",)}, {"contact": "me"}, {"agent": "so8t/2"},
        {"sites": [{"host": "a.example", "licence": "mit"}], "delay_s": 1}, {"sites": [{"host": "A.example"}], "delay_s": 1},
    ],
)  # fmt: skip
def test_a_config_that_is_not_polite_is_refused(changes):
    with Site() as site, pytest.raises(ValidationError):
        web(site, **changes)


def test_a_seed_must_lie_on_a_named_site(tmp_path):
    with Site() as site, pytest.raises(InputError, match="no named site"):
        run(web(site, seeds=("http://127.0.0.1:9/",)), tmp_path / "out")
