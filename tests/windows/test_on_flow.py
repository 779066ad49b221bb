"""A Prefect flow on Windows, on the project's own server."""

import subprocess
import sys

from deployments.server import Server
from so8t.cli import DEFAULT_CONFIG
from so8t.config import load_config
from tests.conftest import ROOT

FLOW = """
from prefect import flow, task

@task
def double(n):
    return 2 * n

@flow
def numbers():
    return sum(double.map([1, 2, 3]).result())

print("sum", numbers())
"""


def test_a_flow_runs_on_our_server(tmp_path):
    config = load_config(DEFAULT_CONFIG, ["machine.server_port=0"], tmp_path / "home")
    with Server(config, tmp_path / "server.log") as server:
        server.ensure()
        import os

        done = subprocess.run(
            [sys.executable, "-c", FLOW], cwd=ROOT, env={**os.environ, **server.environment()},
            stdin=subprocess.PIPE, capture_output=True, check=False, timeout=400,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode("utf-8", "replace")[-3000:]
    assert b"sum 12" in done.stdout
