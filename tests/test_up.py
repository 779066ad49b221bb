"""`so8t up` and a run of its deployment: the same artifacts as `so8t run`, seen in the UI's data."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from tests.conftest import ROOT, TINY

READY_S = 120


@pytest.fixture
def up(tiny, tiny_home):
    """`so8t up` over a home that holds a finished run; its log is read as it grows."""
    log = tiny_home.parent / "up.log"
    with log.open("w", encoding="utf-8") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "deployments.command", "up", "--home", str(tiny_home), *TINY,
             "--set", "machine.server_port=0"],
            stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, cwd=ROOT,
        )  # fmt: skip
    deadline = time.monotonic() + READY_S
    while "worker  started" not in log.read_text(encoding="utf-8"):
        assert process.poll() is None, log.read_text(encoding="utf-8")
        assert time.monotonic() < deadline, log.read_text(encoding="utf-8")
        time.sleep(0.2)
    yield process
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def _prefect(home, *arguments):
    environment = {**os.environ, "PREFECT_HOME": str(home / "prefect")}
    return subprocess.run(
        [sys.executable, "-m", "prefect", *arguments], cwd=home, env=environment, check=False,
        capture_output=True, text=True, encoding="utf-8", timeout=300,
    )  # fmt: skip


QUERY = """
import json
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
client = get_client(sync_client=True)
runs = client.read_flow_runs()
newest = max(runs, key=lambda run: run.expected_start_time)
tasks = [task for run in [newest] for task in client.read_task_runs(
    flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run.id])))]
artifacts = client.request("POST", "/artifacts/filter", json={"limit": 200}).json()
print(json.dumps({
    "flows": [[run.state_name, bool(run.deployment_id)] for run in runs],
    "tasks": sorted({(task.name, task.state_name) for task in tasks}),
    "artifacts": sorted({artifact["type"] + ":" + artifact["key"] for artifact in artifacts}),
}))
"""


def test_a_deployment_run_gives_the_same_artifacts(up, tiny, tiny_home):
    before = sorted(p.name for p in (tiny_home / "artifacts").glob("*/*"))
    started = _prefect(tiny_home, "deployment", "run", "so8t-pipeline/so8t", "--watch")
    assert started.returncode == 0, started.stdout + started.stderr
    assert sorted(p.name for p in (tiny_home / "artifacts").glob("*/*")) == before

    seen = subprocess.run(
        [sys.executable, "-c", QUERY], cwd=tiny_home, env={**os.environ, "PREFECT_HOME": str(tiny_home / "prefect")},
        check=True, capture_output=True, text=True, encoding="utf-8",
    )  # fmt: skip
    told = json.loads(seen.stdout.splitlines()[-1])
    assert told["flows"] == [["Completed", True]] * 2, "`so8t run` and `prefect deployment run` are both in the UI"
    assert {state for _, state in told["tasks"]} == {"Cached"}
    names = {name for name, _ in told["tasks"]}
    assert {"collect", "preprocess", "train", "bake", "benchmark", "upload", "cleanup"} <= names
    assert {"collect.source-digits", "bake.quantize-Q8_0", "benchmark.cell-A:safety"} <= names
    assert {"progress:train-progress", "table:train-facts", "markdown:bake-gates"} <= set(told["artifacts"])

    up.send_signal(signal.SIGTERM)
    assert up.wait(60) == 143
    port = json.loads((tiny_home / "prefect" / "server.json").read_text(encoding="utf-8"))["port"]
    from deployments.server import healthy

    assert not healthy(port), "the server outlived `so8t up`"


def test_the_server_wants_a_password(up, tiny_home):
    import urllib.error
    import urllib.request

    port = json.loads((tiny_home / "prefect" / "server.json").read_text(encoding="utf-8"))["port"]
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
            f"http://127.0.0.1:{port}/api/admin/version", timeout=10
        )
    assert refused.value.code == 401


def test_one_instance_a_home(up, tiny_home):
    second = subprocess.run(
        [sys.executable, "-m", "deployments.command", "up", "--home", str(tiny_home)],
        cwd=ROOT, check=False, capture_output=True, text=True, encoding="utf-8", timeout=60,
    )  # fmt: skip
    assert second.returncode == 2
    assert "already runs" in second.stderr
