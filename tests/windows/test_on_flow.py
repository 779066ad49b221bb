"""Prefect flows on Windows, on the project's own server, both in Windows' Python."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from deployments.server import Server
from so8t.cli import DEFAULT_CONFIG
from so8t.config import load_config
from tests.conftest import ROOT
from tests.windows.programs import DATABASE_VARIABLE, FLOWS, runs

TIMEOUT_S = 400


def test_flows_run_on_our_server(tmp_path):
    home = tmp_path / "home"
    if made := os.environ.get(DATABASE_VARIABLE):
        # Prefect's tables, made on another system: a hundred migrations take minutes under Wine.
        (home / "prefect").mkdir(parents=True)
        shutil.copy(Path(made), home / "prefect" / "prefect.db")
    config = load_config(DEFAULT_CONFIG, ["machine.server_port=0"], home)
    with Server(config, tmp_path / "server.log") as server:
        done = subprocess.run(
            [sys.executable, "-c", FLOWS], cwd=ROOT, env={**os.environ, **server.environment()},
            stdin=subprocess.PIPE, capture_output=True, check=False, timeout=TIMEOUT_S,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr.decode("utf-8", "replace")[-3000:]
        assert b"sum 12" in done.stdout
        assert {("numbers", "Completed"), ("so8t-monitor", "Completed")} <= runs(home)
    assert not server.started, "the server outlived the one who started it"
