"""Bad input: a clear message, exit code 2, nothing lost."""

import os
import shutil
import subprocess
from contextlib import contextmanager

import pytest

from deployments.server import auth_string
from tests.conftest import ROOT, command


def _is_clear(ended, *words):
    assert ended.code == 2, (ended.code, ended.err[-2000:])
    assert "Traceback" not in ended.err
    for word in words:
        assert word in ended.err, ended.err


@pytest.fixture
def home(tmp_path):
    return tmp_path / "home"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("run", "--set", "train.ppo.updats=3"), ("updats", "did you mean 'updates'")),
        (("run", "--set", "machine.workers=many"), ("machine.workers", "'many'")),
        (("run", "--config", "no/such/file.yaml"), ("no config file", "no/such/file.yaml")),
        (("step", "trian"), ("no step 'trian'", "train")),
        (("step", "collect.source", "--part", "nope"), ("no part 'nope'", "digits")),
        (("step", "train"), ("needs", "so8t step")),
        (("verify", "nothing-like-this"), ("no artifact", "so8t status")),
        (("config", "check", "README.md"), ("README.md",)),
    ],
)
def test_config_and_usage(home, arguments, words):
    _is_clear(command(*arguments, home=home), *words)
    assert not (home / "artifacts").exists() or not any((home / "artifacts").glob("*/*"))


def test_bad_usage_is_2(home):
    assert command("step", home=home).code == 2
    assert command("frobnicate", home=home).code == 2


@contextmanager
def _mounted(path, options):
    """A tmpfs, where this machine lets us mount one."""
    if shutil.which("mount") is None:
        pytest.skip("this system mounts no tmpfs")
    path.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)], check=False, capture_output=True)
    if done.returncode != 0:
        pytest.skip("mounting a tmpfs needs root")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def test_unwritable_home(tmp_path):
    folder = tmp_path / "locked"
    if os.geteuid() == 0:
        with _mounted(folder, "ro,size=1m"):
            _is_clear(command("run", home=folder / "home"), "cannot write", "--home")
        return
    folder.mkdir(mode=0o555)
    _is_clear(command("run", home=folder / "home"), "cannot write", "--home")


def test_home_below_a_file(tmp_path):
    (tmp_path / "file").write_text("x", encoding="utf-8")
    _is_clear(command("run", home=tmp_path / "file" / "home"), "cannot write")


def _fill(place):
    with (place / "filler").open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
        while True:
            file.write(b"\0" * 4096)


def test_full_disk_loses_nothing_and_goes_on(tmp_path):
    """The prompts fit and the tones do not; with room again the same command finishes."""
    with _mounted(tmp_path / "small", "size=6m") as small:
        home = small / "home"
        assert command("step", "collect.source", "--part", "prompts", home=home).code == 0
        _fill(small)
        _is_clear(command("step", "collect.source", "--part", "tones", home=home), "disk is full", "goes on from here")
        assert "1 of 1 artifacts verified" in command("verify", home=home).out
        (small / "filler").unlink()
        assert command("step", "collect.source", "--part", "tones", home=home).code == 0
        assert command("verify", home=home).code == 0


def test_a_run_whose_end_cannot_be_noted_still_says_why_it_ended(tmp_path):
    with _mounted(tmp_path / "small", "size=1m") as small:
        auth_string(small)
        _fill(small)
        ended = command("run", "--json", home=small)
        _is_clear(ended, "disk is full", "free some room")
        assert "took no note of how the run ended" in ended.err
        assert ended.json["state"] == "failed"
        assert "disk is full" in ended.json["error"]


def test_base_of_another_architecture(home, tmp_path):
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "config.json").write_text(
        '{"architectures": ["LlamaForCausalLM"], "model_type": "llama"}', encoding="utf-8"
    )
    ended = command("step", "collect.base", "--set", f"base={{kind: local, path: '{folder}'}}", home=home)
    _is_clear(ended, "LlamaForCausalLM", "Phi3ForCausalLM")


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("text.parquet", b"just text\n"),
        ("empty.parquet", b""),
        ("pointer.parquet", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"),
        ("page.jsonl", b"<!DOCTYPE html><html></html>"),
    ],
)
def test_not_the_data_it_says(home, tmp_path, name, data):
    path = tmp_path / name
    path.write_bytes(data)
    source = f"collect.sources=[{{kind: files, name: mine, paths: ['{path}'], licence: mit}}]"
    _is_clear(command("step", "collect.source", "--part", "mine", "--set", source, home=home), name)


def test_missing_data_file(home, tmp_path):
    source = f"collect.sources=[{{kind: files, name: mine, paths: ['{tmp_path / 'none.parquet'}'], licence: mit}}]"
    _is_clear(command("step", "collect.source", "--part", "mine", "--set", source, home=home), "none.parquet")


def test_shipped_config_is_checked():
    ended = command("config", "check", str(ROOT / "configs" / "demo.yaml"), home=ROOT / "unused")
    assert ended.code == 0, ended.err
