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


class Collecting:
    """The step in processes of its own, of one config."""

    def __init__(self, file):
        self.file, self.config, self.ref = file, load_config(file), Ref("collect.source", "talk")

    def start(self, home):
        command = ["step", self.ref.step, "--part", self.ref.part, "--config", str(self.file), "--home", str(home)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.Popen([sys.executable, "-c", STEP, *command], env=environment)

    def made(self, home):
        store = Store(home)
        found = store.find(self.ref.step, plan(self.ref, self.config, store).key)
        assert found is not None
        return found

    def killed(self, home, reached, kills) -> int:
        """Kill so many processes, each once `reached(number)` and a moment are over; how many were alive then."""
        draw, alive = random.Random(kills), 0  # noqa: S311
        for number in range(kills):
            child = self.start(home)
            while child.poll() is None and not reached(number):
                time.sleep(0.005)
            time.sleep(draw.random() * 0.1)
            alive += child.poll() is None
            child.send_signal(signal.SIGKILL)
            child.wait()
        return alive

    def ends_like(self, home, calm):
        assert self.start(home).wait() == 0
        assert self.made(home).content == self.made(calm).content
        assert tree(self.made(home).path) == tree(self.made(calm).path)
        assert not [path for path in home.rglob("*") if ".part" in path.name or path.name.endswith(".tmp")]


@pytest.fixture
def collecting(tmp_path):
    def make(text):
        file = tmp_path / "c.yaml"
        file.write_text(text, encoding="utf-8", newline="\n")
        return Collecting(file)

    return make


@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.soak)])
def test_killed_anywhere_it_ends_in_the_same_bytes(kills, remote, collecting, tmp_path):
    server, commit = remote
    count = 100 * kills
    contents = {
        "data/a.parquet": parquet(4 * count, 1), "data/b.jsonl": jsonl(2 * count, 2), "data/c.csv": b"text,class\nlast,\n",
    }  # fmt: skip
    revision = commit("license: mit", contents)
    step = collecting(CONFIG.format(revision=revision))
    calm, home = tmp_path / "calm", tmp_path / "cut"
    assert step.start(calm).wait() == 0
    once, server.resolved_bytes, server.piece_pause_s = server.resolved_bytes, 0, 0.05
    seen = [0]

    def reached(number) -> bool:
        if server.resolved_bytes >= max((number + 1) * once / (kills + 1), seen[0] + 1):
            seen[0] = server.resolved_bytes
            return True
        return False

    alive = step.killed(home, reached, kills)
    assert alive >= kills - 1
    step.ends_like(home, calm)
    # Besides a part, two pieces of each connection may have been under way to a process that was dead.
    assert server.resolved_bytes - once <= alive * (PART_BYTES + 2 * PART_BYTES)
    kept = records.read(step.made(home).path / "records.parquet")
    empty = sum(n % 50 == 7 for n in range(4 * count)) + sum(n % 50 == 7 for n in range(2 * count))
    assert len({row.id for row in kept}) == len(kept) == 6 * count + 1 - empty
    assert {(row.source, row.revision, row.licence_evidence) for row in kept} == {
        ("lab/talk", revision, f"hub:lab/talk@{revision}")
    }


FILES = """
base: {{kind: demo}}
collect:
  sources:
    - {{kind: files, name: talk, paths: [{folder}/a.jsonl, {folder}/b.csv], licence: mit}}
"""


@pytest.mark.parametrize("kills", [1, pytest.param(20, marks=pytest.mark.soak)])
def test_files_killed_anywhere_end_in_the_same_bytes(kills, collecting, tmp_path):
    count = 1000 * kills
    rows_ = [json.dumps({"prompt": row["text"], "language": "en"}) for row in rows(count, 1)]
    (tmp_path / "a.jsonl").write_text("\n".join(rows_) + "\n", encoding="utf-8", newline="\n")
    text = "prompt,language\n" + "".join(f"line {n},en\n" for n in range(count))
    (tmp_path / "b.csv").write_text(text, encoding="utf-8", newline="\n")
    step = collecting(FILES.format(folder=tmp_path))
    calm, home = tmp_path / "calm", tmp_path / "cut"
    assert step.start(calm).wait() == 0

    def reached(number) -> bool:
        done = len(list(home.rglob("shards.partial/0*.parquet")))
        return done > (number + 0.5) * 2 * count / 100 / (kills + 1)

    assert step.killed(home, reached, kills) >= kills - 1
    step.ends_like(home, calm)
    kept = records.read(step.made(home).path / "records.parquet")
    assert len({row.id for row in kept}) == len(kept) == 2 * count - sum(n % 50 == 7 for n in range(count))


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
