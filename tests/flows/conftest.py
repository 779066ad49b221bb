"""A real Prefect server without a worker, and runs in any state that a power cut can leave."""

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import FlowRun, State, StateType, TaskRun
from prefect.events.worker import EventsWorker
from prefect.settings import temporary_settings

from deployments.register import POOL, register
from deployments.server import Server
from flows.pipeline import DEMO, so8t_pipeline
from flows.resume import Verdict, reconcile
from so8t import fence
from so8t.session import SessionFile
from tests.conftest import ROOT

HOLD = """
import sys
from pathlib import Path
from so8t import fence
for run_id in sys.argv[2:]:
    fence.hold(Path(sys.argv[1]), run_id)
print("held", flush=True)
sys.stdin.read()
"""
DAY_S = 86400

EVENTS_S = 30


class World:
    """A home of its own beside a server that a process's tests share. Times are moved in the server's database."""

    def __init__(self, home: Path, client: SyncPrefectClient, deployment: UUID, database: Path) -> None:
        self.home, self.client, self.deployment, self.database = home, client, deployment, database
        self._made = 0

    def parameters(self, **resume: Any) -> dict[str, Any]:
        """A config's parameters with this `resume` section; no two are equal."""
        self._made += 1
        machine = {**DEMO.machine.model_dump(mode="json"), "home": str(self.home), "step_timeout_s": 1000 + self._made}
        return {"config": {**DEMO.model_dump(mode="json"), "machine": machine, "resume": resume}}

    def run(self, *states: State[Any], parameters: dict[str, Any] | None = None, idle_s: float = 100) -> FlowRun:
        """A run of the deployment that went through these states and has been in the last for `idle_s`."""
        made = self.client.create_flow_run_from_deployment(
            self.deployment, parameters=parameters or self.parameters(), state=states[0]
        )
        for state in states[1:]:
            self.client.set_flow_run_state(made.id, state, force=True)
        self.shift(made.id, -idle_s)
        return self.read(made.id)

    def read(self, run_id: UUID) -> FlowRun:
        """The run as the server has it."""
        return self.client.read_flow_run(run_id)

    def tasks(self, run_id: UUID) -> list[TaskRun]:
        """Its task runs."""
        return self.client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run_id])))

    def shift(self, run_id: UUID, seconds: float) -> None:
        """Move all that happened to the run in time; forward is what a clock that is set back afterwards leaves."""
        moved = "strftime('%Y-%m-%d %H:%M:%f000', {0}, '{1:+f} seconds')"
        columns = ("created", "expected_start_time", "start_time", "next_scheduled_start_time", "state_timestamp")
        with contextlib.closing(sqlite3.connect(self.database, timeout=60)) as rows, rows:
            sets = ", ".join(f"{name} = {moved.format(name, seconds)}" for name in columns)
            rows.execute(f"UPDATE flow_run SET {sets} WHERE id = ?", (str(run_id),))  # noqa: S608
            when = moved.format("timestamp", seconds)
            rows.execute(f"UPDATE flow_run_state SET timestamp = {when} WHERE flow_run_id = ?", (str(run_id),))  # noqa: S608

    def attempt(self, run_id: UUID, supervisor: str) -> SessionFile:
        """What a process leaves that took the run under this supervisor and is gone."""
        file = SessionFile.open(self.home, fence.session_id(str(run_id)), "run")
        file.update(supervisor=supervisor)
        return file

    def look(self, supervisor: str = "S", *, at_boot: bool = False, asked: Any = ()) -> dict[UUID, Verdict]:
        """One look of `so8t up`."""
        found = reconcile(self.home, supervisor, at_boot=at_boot, asked=[str(run_id) for run_id in asked])
        return {UUID(verdict.run_id): verdict for verdict in found}

    def crash(self, run_id: UUID, supervisor: str, idle_s: float = 100) -> None:
        """The worker takes the run, its process gets as far as its lock and dies."""
        for state in (State(type=StateType.PENDING), State(type=StateType.RUNNING), State(type=StateType.CRASHED)):
            self.client.set_flow_run_state(run_id, state, force=True)
        self.shift(run_id, -idle_s)
        self.attempt(run_id, supervisor)

    def queue(self) -> list[UUID]:
        """What a worker would take now, in its order."""
        now = datetime.now(UTC) + timedelta(seconds=5)
        found = self.client.get_scheduled_flow_runs_for_work_pool(POOL, scheduled_before=now)
        return [entry.flow_run.id for entry in found]

    def notices(self) -> list[dict[str, Any]]:
        """What the user was told."""
        path = self.home / "logs" / "notices.jsonl"
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


@contextlib.contextmanager
def holder(home: Path, *run_ids: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """A process that has the locks of these runs."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(home), *run_ids],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8", cwd=ROOT,
        env={**os.environ, **environment},
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == "held\n"
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


@contextlib.contextmanager
def client_of(home: Path) -> Iterator[SyncPrefectClient]:
    """A home's own server, whose client this process is meanwhile."""
    config = DEMO.model_copy(update={"machine": DEMO.machine.model_copy(update={"home": home, "server_port": 0})})
    (home / "logs").mkdir(parents=True)
    with Server(config, home / "logs" / "server.log") as server:
        told = server.environment()
        settings = {
            "home": home / "prefect",
            "api.url": told["PREFECT_API_URL"],
            "api.auth_string": told["PREFECT_API_AUTH_STRING"],
        }
        with temporary_settings(settings), get_client(sync_client=True) as client:
            yield client


def until(ended: threading.Event, act: Callable[[], Any]) -> list[Any]:
    """What it gave, again and again."""
    found = [act()]
    while not ended.is_set():
        found.append(act())
    return found


@pytest.fixture(scope="package")
def served(tmp_path_factory) -> Iterator[tuple[SyncPrefectClient, UUID, Path]]:
    """Client, the pipeline's deployment, database: one server, whose start costs as much as many tests."""
    home = tmp_path_factory.mktemp("served") / "home"
    with client_of(home) as client:
        ids = register(client, {so8t_pipeline.name: {}})
        yield client, ids[f"{so8t_pipeline.name}/so8t"], home / "prefect" / "prefect.db"
        # One worker of a process sends its events, to the server that it first met.
        EventsWorker.drain_all(timeout=EVENTS_S)


@pytest.fixture
def world(served, tmp_path) -> Iterator[World]:
    """A home of its own, and a server without runs; those of a test are gone after it."""
    client, deployment, database = served
    forget_runs(client)
    yield World(tmp_path / "home", client, deployment, database)
    forget_runs(client)


def forget_runs(client: SyncPrefectClient) -> None:
    """Delete every run, also those of another module."""
    for run in client.read_flow_runs():
        client.delete_flow_run(run.id)
