import json
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from so8t import durable
from so8t.errors import InputError, ResourceError
from so8t.serve.audit import AuditLog, Key


def make(folder, size_bytes=1 << 20, files=2) -> AuditLog:
    return AuditLog(folder / "audit" / "1.jsonl", Key(folder / "audit.key"), size_bytes, files)


def test_the_key_is_made_once_and_is_the_owners_alone(tmp_path):
    key = Key(tmp_path / "serve" / "audit.key")
    assert Key(tmp_path / "serve" / "audit.key").id == key.id
    assert Key(tmp_path / "other" / "audit.key").id != key.id
    assert stat.S_IMODE((tmp_path / "serve" / "audit.key").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "serve").stat().st_mode) == 0o700
    assert key.sign("a") != key.sign("b")
    assert key.sign("a") == Key(tmp_path / "serve" / "audit.key").sign("a")


def test_servers_that_start_at_once_share_the_key_that_stays(tmp_path, monkeypatch):
    path, write, ready = tmp_path / "serve" / "audit.key", durable.write_text, threading.Barrier(2, timeout=1)

    def slow(*given):
        with suppress(threading.BrokenBarrierError):
            ready.wait()
        write(*given)

    monkeypatch.setattr(durable, "write_text", slow)
    with ThreadPoolExecutor(2) as threads:
        keys = [made.result().id for made in [threads.submit(Key, path) for _ in range(2)]]
    assert keys == [Key(path).id] * 2


@pytest.mark.parametrize("text", ["", "no hex", "00" * 16])
def test_what_is_no_key_is_refused(tmp_path, text):
    durable.write_text(tmp_path / "audit.key", text)
    with pytest.raises(InputError, match=r"audit\.key"):
        Key(tmp_path / "audit.key")


def test_lines_are_appended_and_rotated_by_size_and_count(tmp_path):
    log = make(tmp_path, size_bytes=2000, files=2)
    for number in range(100):
        log.write(number=number)
    log.close()
    names = sorted(path.name for path in log.path.parent.glob("1.jsonl*"))
    assert names == ["1.jsonl", "1.jsonl.1", "1.jsonl.2"]
    lines = [
        json.loads(line) for name in reversed(names) for line in (log.path.parent / name).read_bytes().splitlines()
    ]
    assert [line["number"] for line in lines] == list(range(100 - len(lines), 100))
    assert all((log.path.parent / name).stat().st_size <= 2000 for name in names)
    assert all(stat.S_IMODE((log.path.parent / name).stat().st_mode) == 0o600 for name in names)
    assert {line["key_id"] for line in lines} == {log.key.id}


def test_a_torn_line_does_not_swallow_the_next_one(tmp_path):
    log = make(tmp_path)
    log.write(number=1)
    log.close()
    whole = log.path.read_bytes()
    log.path.write_bytes(whole + whole[:40])
    again = make(tmp_path)
    again.write(number=2)
    again.close()
    lines = again.path.read_bytes().splitlines()
    assert [json.loads(lines[0])["number"], json.loads(lines[2])["number"]] == [1, 2]


def test_two_servers_do_not_share_a_log(tmp_path):
    log = make(tmp_path)
    with pytest.raises(ResourceError, match="another server"):
        make(tmp_path)
    log.close()
    make(tmp_path).close()


def test_what_cannot_be_written_is_an_error(tmp_path, monkeypatch):
    log = make(tmp_path)

    def full(text: str) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(log._lines.stream, "write", full, raising=False)
    with pytest.raises(OSError, match="No space"):
        log.write(number=1)
    monkeypatch.undo()
    log.close()
