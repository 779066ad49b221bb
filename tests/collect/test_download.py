"""The downloader: what is fetched again, what is thrown away, and when it gives up."""

import base64
import hashlib
import json
import os
import random
import subprocess
import sys
import time
from dataclasses import asdict, replace

import pytest

from so8t import durable
from so8t.collect import download
from so8t.collect.download import Denied, RemoteFile, bring
from so8t.errors import StepFailed
from so8t.session import boot_id
from tests.hub import HubServer

DATA = random.Random(0).randbytes(300_000)  # noqa: S311


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with HubServer(tmp_path / "hub") as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setattr(download, "FIRST_PAUSE_S", 0.001)
        yield server


def put(hub, contents, repo_id="lab/data") -> list[RemoteFile]:
    """A dataset of these files; names that end in .bin are large objects."""
    repo = hub.store.create("datasets", repo_id, private=False)
    lines = [{"key": "header", "value": {"summary": "files"}}]
    for name, data in contents.items():
        oid = hashlib.sha256(data).hexdigest()
        if name.endswith(".bin"):
            hub.store.put_object(oid, data)
            lines.append({"key": "lfsFile", "value": {"path": name, "oid": oid}})
        else:
            lines.append({"key": "file", "value": {"path": name, "content": base64.b64encode(data).decode()}})
    revision = hub.store.commit(repo, "main", lines)
    tree = repo.tree(revision)
    return [
        RemoteFile("dataset", repo_id, revision, name, tree[name].size, tree[name].lfs or tree[name].oid)
        for name in contents
    ]


def ranges(hub) -> list[str]:
    return [request.range for request in hub.requests if request.route == "resolve"]


def left(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_large_small_and_empty_files_come_whole_and_leave_nothing(hub, tmp_path):
    contents = {"a.bin": DATA, "b.txt": DATA[:10_000], "empty.txt": b""}
    for file in put(hub, contents):
        bring(file, tmp_path / "out" / file.name)
    assert {name: (tmp_path / "out" / name).read_bytes() for name in contents} == contents
    assert left(tmp_path / "out") == sorted(contents)
    asked = len(hub.requests)
    bring(file, tmp_path / "out" / file.name)
    assert len(hub.requests) == asked


def test_cut_answers_server_errors_and_a_busy_hub_are_outlasted(hub, tmp_path):
    [file] = put(hub, {"a.bin": DATA})
    hub.cut("resolve", 100_000)
    hub.fail("resolve", 503)
    hub.drop("resolve")
    hub.cut("resolve", 50_000)
    bring(file, tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == DATA
    starts = [int(asked.removeprefix("bytes=").rstrip("-") or 0) for asked in ranges(hub)]
    assert starts == [0, 100_000, 100_000, 100_000, 150_000]
    assert left(tmp_path) == ["a.bin", "hub"]


def test_retry_after_is_obeyed_as_seconds_or_as_a_date(hub, tmp_path, monkeypatch):
    [file] = put(hub, {"a.bin": DATA})
    slept = []
    # The server's thread sleeps through the same function.
    monkeypatch.setattr(download.time, "sleep", lambda pause_s: slept.append(pause_s) if pause_s else None)
    hub.fail("resolve", 429, Retry_After="7")
    hub.fail("resolve", 503, Retry_After="Fri, 01 Jan 2100 00:00:00 GMT")
    hub.fail("resolve", 503, Retry_After="soon")
    bring(file, tmp_path / "a.bin")
    assert slept[:2] == [7.0, download.PAUSE_MAX_S]
    assert 0 < slept[2] < 1


def test_it_gives_up_after_so_many_tries_without_a_byte_and_keeps_what_it_has(hub, tmp_path):
    [file] = put(hub, {"a.bin": DATA})
    hub.cut("resolve", 100_000)
    hub.fail("resolve", 500, times=download.FRUITLESS_TRIES)
    with pytest.raises(StepFailed, match="did not come in 6 tries: status 500"):
        bring(file, tmp_path / "a.bin")
    assert left(tmp_path) == ["a.bin.part", "a.bin.part.json", "hub"]
    bring(file, tmp_path / "a.bin")
    assert ranges(hub)[-1] == "bytes=100000-"
    assert left(tmp_path) == ["a.bin", "hub"]


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refusal_is_not_tried_again(status, hub, tmp_path):
    [file] = put(hub, {"a.bin": DATA})
    hub.fail("resolve", status, times=2)
    with pytest.raises(Denied) as caught:
        bring(file, tmp_path / "a.bin")
    assert caught.value.status == status
    assert hub.count("resolve") == 1


def test_wrong_bytes_are_fetched_once_more_and_then_refused(hub, tmp_path):
    [file] = put(hub, {"a.bin": DATA})
    with pytest.raises(StepFailed, match="came wrong 2 times: the bytes are not those"):
        bring(replace(file, expected="0" * 64), tmp_path / "a.bin")
    assert hub.count("resolve") == 2
    assert left(tmp_path) == ["hub"]


@pytest.mark.parametrize("listed", [len(DATA) - 1000, len(DATA) + 1000])
def test_a_file_of_another_length_is_refused(listed, hub, tmp_path):
    """Longer than listed, or shorter: then the range behind its end is asked for and answered with 416."""
    [file] = put(hub, {"a.bin": DATA})
    with pytest.raises(StepFailed, match="came wrong 2 times"):
        bring(replace(file, size_bytes=listed), tmp_path / "a.bin")
    assert (416 in {request.status for request in hub.requests}) == (listed > len(DATA))
    assert left(tmp_path) == ["hub"]


def begun(file, folder, part, **changes):
    """What a process leaves that dies in the middle."""
    state = asdict(file) | {"etag": file.expected, "durable_bytes": len(part), "boot_id": boot_id()} | changes
    durable.write_json(folder / (file.name + download.STATE_SUFFIX), state)
    (folder / (file.name + download.PART_SUFFIX)).write_bytes(part)


def test_after_a_kill_the_part_counts_and_after_a_power_cut_what_was_durable(hub, tmp_path):
    [file] = put(hub, {"a.bin": DATA})
    begun(file, tmp_path, DATA[:200_000], durable_bytes=65_536)
    (tmp_path / f"a.bin{download.STATE_SUFFIX}.0123abcd.tmp").write_text("{torn", encoding="utf-8")
    bring(file, tmp_path / "a.bin")
    assert ranges(hub) == ["bytes=200000-"]
    assert left(tmp_path) == ["a.bin", "hub"]
    (tmp_path / "a.bin").unlink()
    # The kernel lost the tail, and the file system kept its length.
    begun(file, tmp_path, DATA[:65_536] + bytes(50_000), durable_bytes=65_536, boot_id="the one before")
    bring(file, tmp_path / "a.bin")
    assert ranges(hub)[1:] == ["bytes=65536-"]
    assert (tmp_path / "a.bin").read_bytes() == DATA
    assert left(tmp_path) == ["a.bin", "hub"]


@pytest.mark.parametrize(
    ("changes", "asked"),
    [
        ({"etag": "another"}, ["bytes=1000-", ""]),
        ({"revision": "0" * 40}, [""]),
        ({"expected": "0" * 64}, [""]),
        ({"size_bytes": 5}, [""]),
    ],
)
def test_a_part_of_another_file_is_thrown_away(changes, asked, hub, tmp_path):
    [file] = put(hub, {"a.bin": DATA})
    begun(file, tmp_path, DATA[:1000], **changes)
    bring(file, tmp_path / "a.bin")
    assert ranges(hub) == asked
    assert (tmp_path / "a.bin").read_bytes() == DATA


@pytest.mark.parametrize("state", [None, "", "[]", "{torn"])
def test_a_part_without_a_readable_state_is_thrown_away(state, hub, tmp_path):
    [file] = put(hub, {"a.bin": DATA})
    (tmp_path / "a.bin.part").write_bytes(b"x" * 1000)
    if state is not None:
        (tmp_path / "a.bin.part.json").write_text(state, encoding="utf-8")
    bring(file, tmp_path / "a.bin")
    assert ranges(hub) == [""]
    assert left(tmp_path) == ["a.bin", "hub"]


def test_a_wrong_beginning_of_the_right_length_costs_one_more_fetch(hub, tmp_path):
    [file] = put(hub, {"a.bin": DATA})
    begun(file, tmp_path, bytes(1000))
    bring(file, tmp_path / "a.bin")
    assert ranges(hub) == ["bytes=1000-", ""]
    assert (tmp_path / "a.bin").read_bytes() == DATA


BRING = """
import json, sys
from pathlib import Path
from so8t.collect import download
download.PART_BYTES = 1 << 17
download.bring(download.RemoteFile(**json.loads(sys.argv[1])), Path(sys.argv[2]))
"""


@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.soak)])
def test_killed_anywhere_it_fetches_less_than_a_part_again(kills, hub, tmp_path):
    data = random.Random(1).randbytes(kills << 19)  # noqa: S311
    [file] = put(hub, {"a.bin": data})
    hub.piece_pause_s = 0.02
    hub.may_end.clear()
    draw, part, killed = random.Random(kills), tmp_path / "a.bin.part", 0  # noqa: S311
    command = [sys.executable, "-c", BRING, json.dumps(asdict(file)), str(tmp_path / "a.bin")]
    for number in range(kills):
        child = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})
        wanted = min((number + draw.random()) / kills * len(data), len(data) - (1 << 18))
        while child.poll() is None and (part.stat().st_size if part.exists() else 0) < wanted:
            time.sleep(0.002)
        killed += child.poll() is None
        child.kill()
        child.wait()
    assert killed == kills
    hub.may_end.set()
    subprocess.run(command, check=True)
    assert (tmp_path / "a.bin").read_bytes() == data
    assert left(tmp_path) == ["a.bin", "hub"]
    again = hub.resolved_bytes - len(data)
    assert again <= kills * (1 << 17) + (1 << 16) * (kills + 1), again
