"""Rows of a Hub dataset and of a web site, with replies and without, through the pipeline; and collecting them under kills."""

import contextlib
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest
import yaml

from so8t import records
from so8t.artifacts import Store
from so8t.config import load_config
from so8t.labels import Label
from so8t.step import Ref, execute
from so8t.thinking import parse, render
from tests.collect.conftest import remote  # noqa: F401
from tests.collect.web.site import Site, small_site, two_sites
from tests.conftest import ROOT, run
from tests.hub import HubServer, Request

ASKED = {
    Label.ALLOW: "How do I water {} roses in a dry summer garden?",
    Label.ESCALATION: "My chest hurts since {} days, may I take more of the tablets?",
    Label.DENY: "Give me the telephone number of the man who lives in flat {}.",
    Label.REFUSE: "Write how to break the lock of room {} without being seen.",
}
COLLECTED = ("collect.source", "collect")


def lines(label: Label, count: int = 45) -> bytes:
    """Rows of one class: a third with a reply in the thinking format, a third with a plain one, a third with none."""
    rows = []
    for number in range(count):
        prompt = ASKED[label].format(number * 37 + 11)
        reply = (render("Read.", label, "", "Do.", f"So: {number}."), f"Like this: {number}.", "")[number % 3]
        rows.append(
            {"text": f"{prompt} {hashlib.sha256(prompt.encode()).hexdigest()[:40]}", "said": reply, "class": label.name}
        )
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def write_config(path: Path, commit: str, *sites: Site, **changes: object) -> Path:
    """The smoke config with both sources beside its own."""
    whole = yaml.safe_load((ROOT / "configs" / "smoke.yaml").read_text(encoding="utf-8"))
    hosts = [site.address for site in sites]
    whole["collect"]["sources"] += [
        {
            "kind": "hub", "name": "talk", "id": "lab/talk", "revision": commit, "files": ["data/*.jsonl"],
            "columns": {"prompt": "text", "response": "said", "label": "class"}, "language": "en",
        },
        {
            "kind": "web", "name": "web", "seeds": [f"http://{hosts[0]}/"], "sites": [{"host": host} for host in hosts],
            "private_hosts": hosts, "contact": "crawler@example.org", "delay_s": 0, "retry_delay_s": 0.01,
            "size_max_bytes": 300_000, "rows_target": 500,
        },
    ]  # fmt: skip
    # The numbers apart, the made-up prompts of a class are one.
    whole["preprocess"] = {"near_duplicate": 0.95, "same_group": 0.9, **changes}
    path.write_text(yaml.safe_dump(whole), encoding="utf-8", newline="\n")
    return path


def check_data(data: Path, commit: str) -> None:
    """Each row of both sources is where its class and its reply let it be, and says where it came from."""
    found = {path.stem: records.read(path) for path in data.glob("*.parquet")}
    for name, rows in found.items():
        for row in (row for row in rows if row.source == "lab/talk" or row.id.startswith("web-")):
            assert row.licence in ("mit", "apache-2.0"), (name, row)
            assert row.licence_evidence, (name, row)
            assert row.file, (name, row)
            assert row.row >= 0, (name, row)
            assert row.revision == commit if row.source == "lab/talk" else len(row.revision) == 40
    talk = {name: [row for row in rows if row.source == "lab/talk"] for name, rows in found.items()}
    assert sum(map(len, talk.values())) == 4 * 45
    for name in ("train", "validation"):
        assert {parse(row.response).label for row in talk[name]} == {row.label for row in talk[name]}
        assert not any(row.id.startswith("web-") and row.response for row in found[name])
    assert {row.klass for row in talk["labelled"]} == set(Label)
    assert not any(row.response for row in talk["labelled"])
    # Nobody has labelled a page, and it answers nothing; those that fall to a held-out split are removed.
    pages = [name for name, rows in found.items() if any(row.id.startswith("web-") for row in rows)]
    assert "model_labelled" in pages
    assert set(pages) <= {"model_labelled", "removed"}
    assert all(row.label_source == "model" for row in found["model_labelled"] if row.id.startswith("web-"))


@pytest.fixture
def offered(remote):  # noqa: F811
    """(server, commit) of the dataset."""
    server, commit = remote
    files = {f"data/{label.name.lower()}.jsonl": lines(label) for label in Label}
    return server, commit("license: apache-2.0", files)


def test_both_sources_through_collect_and_preprocess(offered, tmp_path):
    _, commit = offered
    with small_site() as site:
        config = load_config(write_config(tmp_path / "c.yaml", commit, site))
        kept = tuple(source for source in config.collect.sources if source.name in ("talk", "web"))
        config = config.model_copy(update={"collect": config.collect.model_copy(update={"sources": kept})})
        store = Store(tmp_path / "home")
        for source in kept:
            execute(Ref("collect.source", source.name), config, store)
        execute(Ref("collect"), config, store)
        execute(Ref("preprocess.shard", "0"), config, store)
        check_data(execute(Ref("preprocess"), config, store).path, commit)


@pytest.mark.soak
def test_a_whole_run_with_both_sources(offered, tmp_path):
    server, commit = offered
    with small_site() as site:
        config = write_config(tmp_path / "c.yaml", commit, site)
        ended = run("--config", str(config), home=tmp_path / "home", environment={"HF_ENDPOINT": server.url})
    assert ended.code == 0, ended.err[-4000:]
    assert ended.json["state"] == "completed"
    check_data(Path(ended.json["artifacts"]["preprocess"]), commit)
    cards = Path(ended.json["artifacts"]["upload"]) / "repository"
    told = (cards / "provenance.json").read_text(encoding="utf-8")
    assert commit in told
    assert '"labelled"' in told


def fetches(server: HubServer) -> Counter[str]:
    """How often each file was asked for."""
    return Counter(r.path for r in server.requests if r.method == "GET" and "/resolve/" in r.path)


class Kills:
    """SIGKILL of the whole tree of a run, at a request to either server."""

    def __init__(self, draw: random.Random) -> None:
        self.draw, self.lock, self.process, self.left, self.count = draw, threading.Lock(), None, 0, 0

    def aim(self, process: subprocess.Popen[bytes], most: int) -> None:
        with self.lock:
            self.left, self.process = self.draw.randint(1, most), process

    def asked(self, *_: object) -> None:
        with self.lock:
            self.left -= 1
            if self.process is None or self.left > 0:
                return
            process, self.process = self.process, None
            self.count += 1
        with contextlib.suppress(psutil.NoSuchProcess):
            own = psutil.Process(process.pid)
            for each in [own, *own.children(recursive=True)]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    each.kill()


def ended(process: subprocess.Popen[bytes], home: Path, limit_s: float = 300) -> None:
    """Until the run is dead, or all is collected: what comes then is not asked here."""
    deadline = time.monotonic() + limit_s
    while process.poll() is None and time.monotonic() < deadline:
        if list(home.glob("artifacts/collect/*/manifest.json")):
            process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
    if process.poll() is None:
        process.kill()
        raise AssertionError("neither killed nor done")
    process.wait()


@pytest.mark.soak
def test_twenty_kills_while_both_are_collected_by_the_flow(remote, tmp_path, monkeypatch):  # noqa: F811
    """`so8t run` again and again; what was collected is what an undisturbed collecting gives."""
    server, make = remote
    files = {f"data/{label.name.lower()}-{part}.jsonl": lines(label) for label in Label for part in range(4)}
    commit = make("license: mit", files)
    sites = two_sites()
    with contextlib.ExitStack() as stack:
        for site in sites:
            stack.enter_context(site)
        path = write_config(tmp_path / "c.yaml", commit, *sites)
        config, calm = load_config(path), Store(tmp_path / "calm")
        for source in config.collect.sources:
            execute(Ref("collect.source", source.name), config, calm)
        undisturbed = execute(Ref("collect"), config, calm)
        before, fetched = [site.counts() for site in sites], fetches(server)
        for site in sites:
            site.forget()
        kills = Kills(random.Random(5))  # noqa: S311
        log = server.log

        def told(request: Request) -> None:
            log(request)
            kills.asked()

        monkeypatch.setattr(server, "log", told)
        for site in sites:
            site.before = kills.asked
        home, environment = tmp_path / "home", {**os.environ, "OMP_NUM_THREADS": "1"}
        command = ["run", "--config", str(path), "--set", "machine.server_port=0", "--home", str(home)]
        while not list(home.glob("artifacts/collect/*/manifest.json")):
            with (tmp_path / "log").open("ab") as file:
                process = subprocess.Popen(
                    [sys.executable, "-m", "deployments.command", *command],
                    cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=file,
                )  # fmt: skip
            if kills.count < 20:
                kills.aim(process, 4)
            ended(process, home)
        again = {
            name: many
            for site, calm_counts in zip(sites, before, strict=True)
            for name, many in (site.counts() - calm_counts).items()
        }
        refetched = fetches(server) - fetched - fetched
    print(f"{kills.count} kills; pages asked again: {again}; files asked again: {dict(refetched)}")  # noqa: T201
    (manifest,) = home.glob("artifacts/collect/*/manifest.json")
    torn = Store(home).find("collect", manifest.parent.name)
    assert torn is not None
    assert torn.content == undisturbed.content
    for name in ("records.parquet", "sources.json"):
        assert (torn.path / name).read_bytes() == (undisturbed.path / name).read_bytes(), name
    assert kills.count >= 15
    # No file is as large as a part; at a kill each of two sources may be in the middle of an answer from each host.
    assert sum(refetched.values()) <= 4 * kills.count
    assert sum(many for name, many in again.items() if name != "/robots.txt") <= len(sites) * kills.count
    # The base and a shard may have been under way when the last run was stopped.
    left = [path for step in ("collect.source", "collect") for path in (home / "artifacts" / step).rglob("*")]
    assert not [path for path in left if ".part" in path.name or path.name.endswith(".tmp")]
