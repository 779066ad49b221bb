"""Windows' files: open ones, long ones, names of devices, line ends."""

import json
import os
import threading
import time

import pytest

from so8t import attempt, durable, session, tags
from so8t.artifacts import Store, check_hashes
from so8t.config import Notify
from so8t.errors import InputError, ResourceError
from so8t.notify import notify
from tests.test_artifacts import make

SHARING = {5, 32}


def _release(file, after_s):
    threading.Timer(after_s, file.close).start()


def test_a_reader_of_the_old_file_is_waited_for(tmp_path):
    """Windows refuses to rename over a file that somebody has open."""
    path = tmp_path / "state.json"
    durable.write_json(path, 1)
    reader = path.open("rb")
    with pytest.raises(PermissionError) as refused:
        os.replace(path.with_name("other"), path) if path.with_name("other").write_text("x") else None  # noqa: PTH105
    assert refused.value.winerror in SHARING
    path.with_name("other").unlink()
    began = time.monotonic()
    _release(reader, 0.4)
    durable.write_json(path, 2)
    assert time.monotonic() - began >= 0.3
    assert durable.read_json(path) == 2
    assert [entry.name for entry in tmp_path.iterdir()] == ["state.json"]


def test_a_reader_that_stays_is_an_error_that_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(durable, "SHARING_RETRY_S", 0.3)
    path = tmp_path / "state.json"
    durable.write_json(path, 1)
    with path.open("rb"), pytest.raises(ResourceError, match="cannot write"):
        durable.write_json(path, 2)
    assert durable.read_json(path) == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["state.json"]


def test_a_file_that_is_replaced_all_the_time_is_always_read_whole(tmp_path):
    """A reader may meet the instant of the rename, in which Windows denies access."""
    path, ended = tmp_path / "state.json", threading.Event()
    values, problems = list[int](), list[Exception]()
    durable.write_json(path, {"n": 0, "fill": "x" * 4000})

    def read():
        try:
            while not ended.is_set():
                values.append(durable.read_json(path)["n"])
                time.sleep(0.02)
        except (OSError, ValueError) as problem:
            problems.append(problem)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        for n in range(1, 40):
            durable.write_json(path, {"n": n, "fill": "x" * 4000})
    finally:
        ended.set()
        for reader in readers:
            reader.join()
    assert not problems
    assert len(values) >= 2
    assert durable.read_json(path)["n"] == 39


def test_a_manifest_that_a_scanner_holds_is_no_damage(tmp_path):
    """Held without sharing, as some scanners do: the artifact must not be set aside."""
    import ctypes

    store = Store(tmp_path)
    made = make(store)
    create = ctypes.WinDLL("kernel32", use_last_error=True).CreateFileW
    create.restype = ctypes.c_void_p
    generic_read, not_shared, open_existing = 0x80000000, 0, 3
    handle = create(str(made.path / "manifest.json"), generic_read, not_shared, None, open_existing, 0, None)
    assert handle != ctypes.c_void_p(-1).value
    with pytest.raises(PermissionError):
        (made.path / "manifest.json").read_bytes()
    close = ctypes.WinDLL("kernel32").CloseHandle
    threading.Timer(0.4, close, (ctypes.c_void_p(handle),)).start()
    assert store.find("demo", "k1") is not None
    assert not list(store.root.glob("demo/*.damaged-*"))


def test_a_folder_renamed_over_a_folder_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(durable, "SHARING_RETRY_S", 0.2)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "f").write_text(name, encoding="utf-8")
    with pytest.raises(OSError, match=r"b"):
        durable.replace(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b" / "f").read_text(encoding="utf-8") == "b"
    durable.replace(tmp_path / "a", tmp_path / "c")
    assert not (tmp_path / "a").exists()


def test_a_home_below_a_file_is_refused_at_once(tmp_path):
    """Windows says 'no such path', not 'no folder': the search for a free number once went on for ever."""
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(ResourceError, match="cannot write"):
        attempt.begin(tmp_path / "file" / "home")
    assert attempt.begin(tmp_path / "home").name == "attempt_1"
    assert attempt.begin(tmp_path / "home").name == "attempt_2"


def test_paths_of_more_than_260_characters(tmp_path):
    """Where the system has long paths switched on; Wine has."""
    home = tmp_path.joinpath(*[f"{n}-{'x' * 60}" for n in range(5)])
    assert len(str(home)) > 300
    made = make(Store(home))
    assert check_hashes(made.path) == []
    assert Store(home).find("demo", "k1") is not None


@pytest.mark.parametrize("name", ["CON", "nul", "aux.old", "LPT1"])
def test_tags_are_no_devices(tmp_path, name):
    make(Store(tmp_path))
    with pytest.raises(InputError, match="device"):
        tags.add(tmp_path, name, ["demo/k"])


def test_one_file_is_not_two_tags(tmp_path):
    make(Store(tmp_path))
    tags.add(tmp_path, "Keep", ["demo/k"])
    with pytest.raises(InputError, match="Keep"):
        tags.add(tmp_path, "keep", ["demo/k"])
    assert list(tags.read(tmp_path)) == ["Keep"]


def test_no_carriage_return_is_written(tmp_path):
    """Equal values are equal bytes on every system."""
    made = make(Store(tmp_path))
    durable.write_text(tmp_path / "text", "a\nb\n")
    session.SessionFile.open(tmp_path, "s", "run").end("failed")
    attempt.log_error(attempt.begin(tmp_path), ValueError("two\nlines"))
    notify(tmp_path, "failed", "title", "two\nlines", Notify(sound=False))
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) >= 6
    assert [path for path in files if b"\r" in path.read_bytes()] == []
    assert json.loads((made.path / "manifest.json").read_bytes())["step"] == "demo"
