"""`so8t up` and a run of its deployment: the same artifacts as `so8t run`, seen in the UI's data."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from deployments import keeper
from deployments.server import auth_string
from tests.conftest import ROOT, TINY

READY_S = 120


@pytest.fixture(scope="module")
def home(tiny, tiny_home, tmp_path_factory):
    """A copy of a home that holds a finished run."""
    place = tmp_path_factory.mktemp("up") / "home"
    return shutil.copytree(tiny_home, place, ignore=shutil.ignore_patterns("server.json", "*.lock"))


@pytest.fixture(scope="module")
def up(home):
    """`so8t up` over it; its log is read as it grows."""
    log = home.parent / "up.log"
    with log.open("w", encoding="utf-8") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "deployments.command", "up", "--home", str(home), *TINY,
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
runs = [run for run in client.read_flow_runs() if "so8t" in run.tags]
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


def test_a_deployment_run_gives_the_same_artifacts(up, home):
    before = sorted(p.name for p in (home / "artifacts").glob("*/*"))
    started = _prefect(home, "deployment", "run", "so8t-pipeline/so8t", "--watch")
    assert started.returncode == 0, started.stdout + started.stderr
    assert sorted(p.name for p in (home / "artifacts").glob("*/*")) == before

    seen = subprocess.run(
        [sys.executable, "-c", QUERY], cwd=home, env={**os.environ, "PREFECT_HOME": str(home / "prefect")},
        check=True, capture_output=True, text=True, encoding="utf-8",
    )  # fmt: skip
    told = json.loads(seen.stdout.splitlines()[-1])
    assert told["flows"] == [["Completed", True]] * 2, "`so8t run` and `prefect deployment run` are both in the UI"
    assert ["preflight", "Completed"] in told["tasks"], "each run looks at its machine anew"
    assert {state for name, state in told["tasks"] if name != "preflight"} == {"Cached"}
    names = {name for name, _ in told["tasks"]}
    assert {"collect", "preprocess", "train", "bake", "benchmark", "upload", "cleanup"} <= names
    assert {"collect.source-digits", "bake.quantize-Q8_0", "benchmark.cell-A:safety"} <= names
    assert {"progress:train-progress", "table:train-facts", "markdown:bake-gates"} <= set(told["artifacts"])


def test_the_server_wants_a_password(up, home):
    import urllib.error
    import urllib.request

    port = json.loads((home / "prefect" / "server.json").read_text(encoding="utf-8"))["port"]
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
            f"http://127.0.0.1:{port}/api/admin/version", timeout=10
        )
    assert refused.value.code == 401


def test_one_instance_a_home(up, home):
    second = subprocess.run(
        [sys.executable, "-m", "deployments.command", "up", "--home", str(home)],
        cwd=ROOT, check=False, capture_output=True, text=True, encoding="utf-8", timeout=60,
    )  # fmt: skip
    assert second.returncode == 2
    assert "already runs" in second.stderr


def test_nothing_of_it_outlives_it(up, home):
    up.send_signal(signal.SIGTERM)
    assert up.wait(60) == 143
    port = json.loads((home / "prefect" / "server.json").read_text(encoding="utf-8"))["port"]
    from deployments.server import healthy

    assert not healthy(port), "the server outlived `so8t up`"


@pytest.fixture
def mount(tmp_path):
    """Mounts a file system at a folder, and unmounts it."""
    if os.name == "nt" or os.geteuid() != 0:
        pytest.skip("root ignores modes and others cannot mount")
    mounted = []

    def do(*arguments):
        done = subprocess.run(["mount", *map(str, arguments)], check=False, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"this machine lets nobody mount: {done.stderr}")
        if arguments[-1] not in mounted:
            mounted.append(arguments[-1])

    yield do
    for place in reversed(mounted):
        subprocess.run(["umount", str(place)], check=True)


def _up(home):
    return subprocess.run(
        [sys.executable, "-m", "deployments.command", "up", "--home", str(home), "--set", "machine.server_port=0"],
        cwd=ROOT, check=False, capture_output=True, text=True, encoding="utf-8", timeout=300,
    )  # fmt: skip


@pytest.mark.parametrize("used", [False, True], ids=["fresh", "used"])
def test_a_read_only_home(mount, tmp_path, used):
    home = tmp_path / "home"
    home.mkdir()
    if used:
        auth_string(home)
    mount("--bind", home, home)
    mount("-o", "remount,bind,ro", home)
    refused = _up(home)
    assert refused.returncode == 2, refused.stderr
    assert "read-only" in refused.stderr.lower()
    assert str(home) in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize("used", [False, True], ids=["fresh", "used"])
def test_a_full_disk(mount, tmp_path, used):
    home = tmp_path / "home"
    home.mkdir()
    mount("-t", "tmpfs", "-o", "size=64k", "none", home)
    if used:
        auth_string(home)
    with contextlib.suppress(OSError), (home / "ballast").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    refused = _up(home)
    assert refused.returncode == 2, refused.stderr
    assert "disk is full" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_what_dies_at_once_is_started_ever_more_rarely(tmp_path, monkeypatch):
    monkeypatch.setattr(keeper, "PAUSE_S", 0.2)
    monkeypatch.setattr(keeper, "PAUSE_MAX_S", 1.0)
    said = []
    kept = keeper.Kept(
        "worker", ["this"], ROOT, dict(os.environ), keeper.Output(tmp_path / "worker.log"),
        lambda line: said.append((time.monotonic(), line)),
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while len(said) < 9 and time.monotonic() < deadline:
        kept.look()
        time.sleep(0.02)
    kept.stop()
    ends, starts = said[1::2], said[2::2]
    assert [line.rpartition(" in ")[2] for _, line in ends] == ["0.4 s", "0.8 s", "1 s", "1 s"]
    pauses = [start - end for (end, _), (start, _) in zip(ends, starts, strict=False)]
    assert all(pause >= wanted for pause, wanted in zip(pauses, (0.4, 0.8, 1.0, 1.0), strict=True))
