"""The real command: a process, a socket, signals; and what it refuses before it serves."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import httpx
import pytest

from so8t import cli
from so8t.errors import InputError, ResourceError
from so8t.serve.checked import check
from so8t.serve.config import Serve
from so8t.serve.server import _listen, callers
from tests.conftest import ROOT
from tests.serve.tiny import without_tags

GOOD_KEY = "k" * 16


@pytest.fixture
def handlers():
    kinds = [signal.SIGINT, signal.SIGTERM]
    before = [signal.getsignal(kind) for kind in kinds]
    yield
    for kind, handler in zip(kinds, before, strict=True):
        signal.signal(kind, handler)


@contextmanager
def serving(baked, home, *arguments: str):
    """The command with the tiny model; its process, its URL and what it said."""
    said = home / "stderr"
    home.mkdir(exist_ok=True)
    command = ["serve", "--model", str(baked.model), "--mmproj", str(baked.mmproj), "--home", str(home), "--port", "0"]
    with said.open("w", encoding="utf-8") as err:
        process = subprocess.Popen(
            [sys.executable, "-m", "so8t", *command, "--threads", "1", *arguments], stderr=err, stdin=subprocess.DEVNULL,
            cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 300
        while not (found := re.search(r"http://[\d.]+:\d+", said.read_text(encoding="utf-8"))):
            assert process.poll() is None, said.read_text(encoding="utf-8")
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield process, found[0], said
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def test_it_answers_and_stops_at_a_signal(baked, tmp_path):
    with serving(baked, tmp_path / "home") as (process, url, said):
        with httpx.Client(base_url=url, timeout=120) as client:
            assert client.post("/think", json={"prompt": "How are you?"}).json()["final"] == "I am fine."
            assert client.get("/v1/models").json()["data"][0]["id"] == "so8t-phi-3"
            assert client.get("/health", headers={"Host": "evil.example"}).status_code == 403
            with client.stream("POST", "/think", json={"prompt": "How are you?", "stream": True}) as response:
                process.send_signal(signal.SIGTERM)
                text = response.read().decode()
        # What was being answered was answered, or told that the server stops.
        assert "I am fine." in text or "the server stops" in text
        assert process.wait(120) == 0
        assert said.read_text(encoding="utf-8").endswith("so8t: stopped\n")
    (log,) = (tmp_path / "home" / "serve" / "audit").glob("*.jsonl")
    assert 1 <= len(log.read_bytes().splitlines()) <= 2
    assert check(baked.model).encode() in log.read_bytes()


def test_wrong_files_are_said_with_exit_code_2(baked, tmp_path, capsys, handlers):
    def said(*arguments: object) -> str:
        code = cli.main(["serve", "--home", str(tmp_path), *map(str, arguments)])
        assert code == 2
        return capsys.readouterr().err

    assert "cannot read" in said("--model", tmp_path / "none.gguf")
    (tmp_path / "pointer.gguf").write_text("version https://git-lfs.github.com/spec/v1\n", encoding="utf-8")
    assert "is no GGUF" in said("--model", tmp_path / "pointer.gguf")
    (tmp_path / "short.gguf").write_bytes(baked.model.read_bytes()[:-5000])
    assert "cannot load" in said("--model", tmp_path / "short.gguf")
    assert "has no token for <think-task>" in said("--model", without_tags(baked, tmp_path), "--port", 0)
    assert "--temperature 3" in said("--model", baked.model, "--temperature", 3)
    assert "SO8T_SERVE_KEY" in said("--model", baked.model, "--host", "0.0.0.0")  # noqa: S104


def test_a_damaged_model_of_an_artifact_is_refused(baked, tmp_path):
    shutil.copytree(baked.folder, tmp_path / "fold")
    path = tmp_path / "fold" / "gguf" / baked.model.name
    assert len(check(path)) == 64
    data = bytearray(path.read_bytes())
    data[-1000] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"is damaged: sha256 .*manifest\.json says"):
        check(path)
    (tmp_path / "fold" / "manifest.json").write_text("{}", encoding="utf-8")
    with pytest.raises(InputError, match="cannot be read"):
        check(path)


def test_a_downloaded_repository_is_checked_by_its_sums(baked, tmp_path):
    (tmp_path / "gguf").mkdir()
    path = tmp_path / "gguf" / "x.gguf"
    shutil.copy(baked.model, path)
    (tmp_path / "SHA256SUMS").write_text(f"{check(baked.model)}  gguf/x.gguf\n", encoding="utf-8")
    check(path)
    (tmp_path / "SHA256SUMS").write_text(f"{'0' * 64}  gguf/x.gguf\n", encoding="utf-8")
    with pytest.raises(InputError, match="SHA256SUMS says"):
        check(path)


@pytest.mark.parametrize(
    ("config", "key", "said"),
    [
        (Serve(host="0.0.0.0"), "", "has 0 characters"),  # noqa: S104
        (Serve(host="192.0.2.1"), "short", "has 5 characters"),
        (Serve(host="0.0.0.0"), GOOD_KEY, "without --allowed-host"),  # noqa: S104
        (Serve(host="example.org"), GOOD_KEY, "an IP address"),
    ],
)
def test_other_machines_are_let_in_with_a_key_only(config, key, said):
    with pytest.raises(InputError, match=said):
        callers(config, key)


def test_the_names_by_which_it_may_be_called():
    assert callers(Serve(), "") == ("", {"127.0.0.1", "localhost", "::1"})
    named = Serve(host="0.0.0.0", allowed_host=("box.local",))  # noqa: S104
    assert callers(named, GOOD_KEY) == (GOOD_KEY, {"127.0.0.1", "localhost", "::1", "box.local"})


def test_a_port_in_use_is_said():
    with _listen("127.0.0.1", 0) as taken:
        taken.listen()
        with pytest.raises(ResourceError, match="choose another with --port"), _listen(*taken.getsockname()):
            pass
