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


def test_one_flipped_byte(tiny, copy_of_home):
    """verify names it, the next run makes that step again, and what it makes is the same."""
    relative = Path(tiny.json["artifacts"]["preprocess"]).relative_to(
        Path(tiny.json["artifacts"]["preprocess"]).parents[2]
    )
    victim = copy_of_home / relative / "validation.parquet"
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(bytes(data))
    verified = command("verify", home=copy_of_home)
    assert verified.code == 1
    assert "validation.parquet" in verified.out
    again = run(*TINY, home=copy_of_home)
    assert again.code == 0, again.err[-3000:]
    assert [name for name, step in again.json["steps"].items() if not step["cached"]] == ["preprocess"]
    assert again.json["steps"]["preprocess"]["content"] == tiny.json["steps"]["preprocess"]["content"]
    assert command("verify", home=copy_of_home).code == 0


def test_a_config_change_runs_that_step_and_its_dependants(tiny, copy_of_home):
    changed = run(*TINY, "--set", "benchmark.resamples=300", home=copy_of_home)
    assert changed.code == 0, changed.err[-3000:]
    redone = {name for name, step in changed.json["steps"].items() if not step["cached"]}
    assert redone == {"benchmark", "upload", "cleanup"}


def test_machine_settings_change_no_key(tiny, copy_of_home):
    again = run(*TINY, "--set", "machine.workers=1", "--set", "machine.progress_interval_s=1", home=copy_of_home)
    assert again.code == 0
    assert all(step["cached"] for step in again.json["steps"].values())
