"""The commands on Windows: none needs torch to answer, and none stumbles over a code page."""

import os
import subprocess
import sys

import pytest

from deployments.autostart.windows import installing_user
from tests.conftest import ROOT


def so8t(*arguments, home, **variables):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUTF8"}
    return subprocess.run(
        [sys.executable, "-m", "deployments.command", *arguments, "--home", str(home)],
        cwd=ROOT, env={**environment, **variables}, capture_output=True, check=False, timeout=120,
    )  # fmt: skip


@pytest.mark.parametrize("utf8", [{}, {"PYTHONUTF8": "1"}, {"PYTHONIOENCODING": "cp932:strict"}], ids=str)
def test_japanese_comes_through_whatever_the_code_page(tmp_path, utf8):
    """A redirected stream has the system's code page, in which Python would raise at the first foreign letter."""
    home = tmp_path / "日本 \U00020bb7 home"
    ended = so8t("config", "check", str(home / "無い.yaml"), home=home, **utf8)
    said = ended.stderr.decode("utf-8")
    assert ended.returncode == 2, said
    assert "無い.yaml" in said
    assert "Traceback" not in said


def test_status_of_a_home_that_is_not_there(tmp_path):
    ended = so8t("status", home=tmp_path / "none")
    assert ended.returncode == 0, ended.stderr.decode("utf-8", "replace")
    assert not (tmp_path / "none").exists()


def test_help_needs_no_torch(tmp_path):
    ended = subprocess.run(
        [sys.executable, "-m", "deployments.command", "--help"], cwd=ROOT, capture_output=True, check=False, timeout=60
    )
    assert ended.returncode == 0
    assert b"autostart" in ended.stdout


def test_autostart_shows_what_it_would_register(tmp_path):
    ended = so8t("autostart", "install", "--dry-run", home=tmp_path / "home")
    said = ended.stdout.decode("utf-8")
    assert ended.returncode == 0, ended.stderr.decode("utf-8", "replace")
    assert "<LogonTrigger>" in said
    assert installing_user() in said
