"""What a second run of a finished home makes again: what was damaged, what a changed config asks, else nothing."""

import shutil
from pathlib import Path

import pytest

from tests.conftest import TINY, command, run


@pytest.fixture
def copy_of_home(tiny, tiny_home, tmp_path) -> Path:
    """A copy that a test may damage."""
    home = tmp_path / "home"
    shutil.copytree(tiny_home, home, ignore=shutil.ignore_patterns("server.json", "*.lock"))
    return home


def test_one_flipped_byte_and_a_config_change(tiny, copy_of_home):
    """verify names the byte; the next run makes that step again, the same, and what a changed config asks, nothing else."""
    folder = copy_of_home / "artifacts" / "preprocess" / tiny.json["steps"]["preprocess"]["key"]
    victim = folder / "validation.parquet"
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(bytes(data))
    verified = command("verify", home=copy_of_home)
    assert verified.code == 1
    assert "validation.parquet" in verified.out
    mended = run(*TINY, "--set", "benchmark.resamples=300", home=copy_of_home)
    assert mended.code == 0, mended.err[-3000:]
    redone = {name for name, step in mended.json["steps"].items() if not step["cached"]}
    assert redone == {"preprocess", "benchmark", "upload", "cleanup"}
    assert mended.json["steps"]["preprocess"]["content"] == tiny.json["steps"]["preprocess"]["content"]
    assert command("verify", home=copy_of_home).code == 0


def test_a_second_run_is_cached_and_changes_nothing_on_a_machine_set_otherwise(tiny, copy_of_home):
    again = run(*TINY, "--set", "machine.workers=1", "--set", "machine.progress_interval_s=1", home=copy_of_home)
    assert again.code == 0, again.err[-3000:]
    assert all(step["cached"] for step in again.json["steps"].values())
    assert {name: step["content"] for name, step in again.json["steps"].items()} == {
        name: step["content"] for name, step in tiny.json["steps"].items()
    }
