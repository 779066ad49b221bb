"""A crawl that is killed again and again ends as one that was left alone, and no site notices more than the kills."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml

from so8t.artifacts import Store
from so8t.config import load_config
from so8t.session import sessions
from so8t.step import Ref, execute
from tests.collect.web.site import Site, small_site, two_sites

ROOT = Path(__file__).resolve().parent.parent.parent.parent
FILES = ("records.parquet", "quarantine.parquet", "sources.json", "provenance.jsonl")


def config(tmp_path: Path, *sites: Site) -> Path:
    hosts = [site.address for site in sites]
    source = {
        "kind": "web", "name": "web", "seeds": [f"http://{hosts[0]}/"], "sites": [{"host": host} for host in hosts],
        "private_hosts": hosts, "contact": "crawler@example.org", "delay_s": 0, "retry_delay_s": 0.01,
        "size_max_bytes": 300_000, "rows_target": 500,
    }  # fmt: skip
    path = tmp_path / "crawl.yaml"
    text = yaml.safe_dump({"base": {"kind": "demo"}, "collect": {"sources": [source]}})
    path.write_text(text, encoding="utf-8", newline="\n")
    return path


class Killer:
    """Kills the crawl at a request of its choosing: while it is answered, or a moment later."""

    def __init__(self, sites: tuple[Site, ...], draw: random.Random) -> None:
        self.sites, self.draw, self.kills = sites, draw, 0
        self.process: subprocess.Popen[bytes] | None = None
        for site in sites:
            site.before, site.after = self._before, self._after

    def aim(self, process: subprocess.Popen[bytes], least: int, most: int) -> None:
        self.left, self.early = self.draw.randint(least, most), self.draw.random() < 0.5
        self.process = process

    def _before(self, number: int) -> None:
        self.left -= 1
        if self.process is not None and self.left <= 0 and self.early:
            self._kill(self.process)

    def _after(self, number: int) -> None:
        if self.process is not None and self.left <= 0 and not self.early:
            threading.Timer(self.draw.uniform(0, 0.05), self._kill, (self.process,)).start()

    def _kill(self, process: subprocess.Popen[bytes]) -> None:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)


def start(tmp_path: Path, home: Path, path: Path) -> subprocess.Popen[bytes]:
    log = (tmp_path / "log").open("ab")
    command = [sys.executable, "-m", "so8t", "step", "collect.source", "--part", "web", "--config", str(path)]
    return subprocess.Popen(
        [*command, "--home", str(home)], cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=log, stderr=log
    )


def artifact(home: Path):
    (manifest,) = (home / "artifacts" / "collect.source").glob("*/manifest.json")
    found = Store(home).find("collect.source", manifest.parent.name)
    assert found is not None
    return found


def crawl_and_kill(tmp_path: Path, sites: tuple[Site, ...], kills: int, most: int, seed: int) -> None:
    with contextlib.ExitStack() as stack:
        for site in sites:
            stack.enter_context(site)
        path = config(tmp_path, *sites)
        execute(Ref("collect.source", "web"), load_config(path), Store(tmp_path / "calm"))
        calm = [site.counts() for site in sites]
        for site in sites:
            site.forget()
        # /busy-once counts its own requests, so it is busy again.
        killer, killed = Killer(sites, random.Random(seed)), 0  # noqa: S311
        while True:
            process = start(tmp_path, tmp_path / "torn", path)
            if killed < kills:
                killer.aim(process, 1, most)
            code = process.wait(120)
            if code == 0:
                break
            assert code == -signal.SIGKILL, (tmp_path / "log").read_text(encoding="utf-8")
            killer.process, killed = None, killed + 1
        assert killed >= kills * 0.75, "the crawl was over before it could be killed often"
        torn = [site.counts() for site in sites]
        whole, undisturbed = artifact(tmp_path / "torn"), artifact(tmp_path / "calm")
        assert whole.content == undisturbed.content
        for name in FILES:
            assert (whole.path / name).read_bytes() == (undisturbed.path / name).read_bytes(), name
        again = {
            path: many for after, before in zip(torn, calm, strict=True) for path, many in (after - before).items()
        }
        lost = [path for after, before in zip(torn, calm, strict=True) for path in before - after]
        facts = whole.manifest.facts
        print(f"{killed} kills, asked again: {again}, facts: {facts}")  # noqa: T201
        assert lost == []
        # At a kill each host may be answering one request.
        assert sum(again.values()) <= len(sites) * killed
        pages = {path: many for path, many in again.items() if path != "/robots.txt"}
        assert sum(pages.values()) <= facts["asked_again_after_a_cut"] <= len(sites) * killed
        (session,) = [s for s in sessions(tmp_path / "torn") if s.kind == "collect.source"]
        assert (session.status, session.completed, session.attempts) == ("completed", True, killed + 1)
        assert (session.total_steps, session.current_step) == (500, facts["rows"])


def test_a_killed_crawl_ends_in_the_same_bytes(tmp_path):
    crawl_and_kill(tmp_path, (small_site(),), kills=2, most=4, seed=1)


def test_a_signal_ends_a_crawl_that_waits_at_once(tmp_path):
    with small_site() as site:
        path = config(tmp_path, site)
        site.pages["/robots.txt"] = (200, {}, b"User-agent: *\nCrawl-delay: 600\n")
        answered = threading.Event()
        site.after = lambda number: answered.set() if number == 2 else None
        process = start(tmp_path, tmp_path / "home", path)
        assert answered.wait(60)
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        # 130 where the event loop swallowed the handler's exception and the flag was seen.
        assert process.wait(60) in (128 + signal.SIGTERM, 130), (tmp_path / "log").read_text(encoding="utf-8")
        (session,) = sessions(tmp_path / "home")
        assert (session.status, session.completed) == ("interrupted", False)
        assert len(site.asked) == 2


@pytest.mark.soak
@pytest.mark.parametrize("seed", [1, 2])
def test_twenty_kills(seed, tmp_path):
    crawl_and_kill(tmp_path, two_sites(), kills=20, most=6, seed=seed)
