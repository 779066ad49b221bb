"""Collecting from the Hub, killed anywhere: the same bytes, nothing left over, less than a part fetched again."""

import io
import json
import os
import random
import signal
import subprocess
import sys
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from so8t import durable, records
from so8t.artifacts import Store
from so8t.collect import shards, source
from so8t.collect.config import HubSource
from so8t.config import Machine, load_config
from so8t.progress import Progress
from so8t.session import SessionFile
from so8t.step import Ref, plan

PART_BYTES = 1 << 16
STEP = f"""
import sys
from so8t import cli
from so8t.collect import download, shards
download.PART_BYTES, shards.ROWS = {PART_BYTES}, 100
sys.exit(cli.main(sys.argv[1:]))
"""
CONFIG = """
base: {{kind: demo}}
collect:
  sources:
    - kind: hub
      name: talk
      id: lab/talk
      revision: {revision}
      files: ["data/*"]
      columns: {{prompt: text, label: class}}
      language: en
"""


def rows(count, seed):
    draw = random.Random(seed)  # noqa: S311
    return [
        {"text": "" if number % 50 == 7 else draw.randbytes(150).hex(), "class": draw.choice(["ALLOW", "DENY", None])}
        for number in range(count)
    ]


def parquet(count, seed) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows(count, seed)), file, row_group_size=300, compression="none")
    return file.getvalue()


def jsonl(count, seed) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows(count, seed)).encode()


def tree(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "manifest.json"
    }


@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.soak)])
def test_killed_anywhere_it_ends_in_the_same_bytes(kills, remote, tmp_path):
    server, commit = remote
    count = 100 * kills
    contents = {
        "data/a.parquet": parquet(4 * count, 1),
        "data/b.jsonl": jsonl(2 * count, 2),
        "data/c.csv": b"text,class\nlast,\n",
    }
    revision = commit("license: mit", contents)
    file = tmp_path / "c.yaml"
    file.write_text(CONFIG.format(revision=revision), encoding="utf-8", newline="\n")
    config, ref = load_config(file), Ref("collect.source", "talk")

    def start(home):
        command = ["step", ref.step, "--part", ref.part, "--config", str(file), "--home", str(home)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.Popen([sys.executable, "-c", STEP, *command], env=environment)

    def made(home):
        store = Store(home)
        found = store.find(ref.step, plan(ref, config, store).key)
        assert found is not None
        return found

    assert start(tmp_path / "calm").wait() == 0
    calm = made(tmp_path / "calm")
    once, server.resolved_bytes, server.piece_pause_s = server.resolved_bytes, 0, 0.05
    draw, home, killed, places = random.Random(kills), tmp_path / "cut", 0, set()  # noqa: S311
    for number in range(kills):
        child, seen = start(home), server.resolved_bytes
        wanted_bytes = (number + 1) * once / (kills + 1)
        while child.poll() is None and server.resolved_bytes < max(wanted_bytes, seen + 1):
            time.sleep(0.005)
        time.sleep(draw.random() * 0.1)
        killed += child.poll() is None
        child.send_signal(signal.SIGKILL)
        child.wait()
        places.update(path.name for path in home.rglob("*.part"))
    assert killed >= kills - 1
    assert places
    assert start(home).wait() == 0
    assert made(home).content == calm.content
    assert tree(made(home).path) == tree(calm.path)
    assert not [path for path in home.rglob("*") if ".part" in path.name or path.name.endswith(".tmp")]
    # A piece for each connection may have been under way to a process that was dead.
    assert server.resolved_bytes - once <= killed * (PART_BYTES + 2 * PART_BYTES)
    kept = records.read(made(home).path / "records.parquet")
    assert (
        len({row.id for row in kept})
        == len(kept)
        == 6 * count + 1 - sum(n % 50 == 7 for n in range(4 * count)) - sum(n % 50 == 7 for n in range(2 * count))
    )
    assert {(row.source, row.revision, row.licence_evidence) for row in kept} == {
        ("lab/talk", revision, f"hub:lab/talk@{revision}")
    }


class Stop:
    """A progress sink that ends the run when a file is begun."""

    def __init__(self, name):
        self.name = name

    def report(self, step, done, total, message, metrics):
        if message == self.name:
            raise KeyboardInterrupt


def stopped(remote, tmp_path, monkeypatch):
    """A source of three files that was stopped at the last; (config, commit's revision, out)."""
    _, commit = remote
    monkeypatch.setattr(shards, "ROWS", 10)
    revision = commit("license: mit", {f"data/{name}.jsonl": jsonl(25, number) for number, name in enumerate("abc")})
    config = HubSource(
        kind="hub",
        name="talk",
        id="lab/talk",
        revision=revision,
        files=("data/*",),
        columns={"prompt": "text"},
        language="en",
    )
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(KeyboardInterrupt):
        source.run(config, {}, out, Progress("collect.source", Machine(), tmp_path / "home", (Stop("data/c.jsonl"),)))
    return config, out


def test_a_file_that_appeared_at_the_same_commit_begins_the_source_anew_and_is_said(remote, tmp_path, monkeypatch):
    """As after a force-push: state bound to a row would go on at another one."""
    server, _ = remote
    config, out = stopped(remote, tmp_path, monkeypatch)
    files = server.repo("lab/talk", "datasets").commits[config.revision].tree
    files["data/0.jsonl"] = server.store.put_blob(jsonl(5, 9))
    session = SessionFile.open(tmp_path / "home", "s", "collect.source")
    facts = source.run(config, {}, out, Progress("collect.source", Machine(), tmp_path / "home", session=session))
    assert facts["rows"] + facts["quarantined"] == 80
    assert "gathering anew" in session.session.problems[0]
    assert "files" in session.session.problems[0]
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    source.run(config, {}, fresh, Progress("collect.source", Machine(), tmp_path / "home"))
    assert tree(out) == tree(fresh)


def test_an_unchanged_source_goes_on_and_says_nothing(remote, tmp_path, monkeypatch):
    server, _ = remote
    config, out = stopped(remote, tmp_path, monkeypatch)
    before = server.count("resolve")
    session = SessionFile.open(tmp_path / "home", "s", "collect.source")
    facts = source.run(config, {}, out, Progress("collect.source", Machine(), tmp_path / "home", session=session))
    assert facts["rows"] + facts["quarantined"] == 75
    assert session.session.problems == []
    assert server.count("resolve") == before + 1
    listed = durable.read_json(out / "sources.json")["evidence"]["data"]
    assert [entry["file"] for entry in listed] == ["data/a.jsonl", "data/b.jsonl", "data/c.jsonl"]
    assert all(len(entry["git_blob"]) == 40 and entry["size_bytes"] for entry in listed)
