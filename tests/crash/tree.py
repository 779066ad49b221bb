"""`so8t up` as a tree of processes that loses power as one, and a look at its runs through the server's API."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import psutil

from deployments.server import running_port
from tests.conftest import ROOT

START_S = 120


class Tree:
    """Starts `so8t up`; `cut` kills everything below it in one instant."""

    def __init__(self, home: Path, *arguments: str, environment: dict[str, str] | None = None) -> None:
        self.home, self.log = home, home.parent / f"{home.name}.up.log"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self._offset = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("a", encoding="utf-8") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "deployments.command", "up", "--home", str(home), *arguments],
                stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, cwd=ROOT,
                env={**os.environ, **(environment or {})}, start_new_session=True,
            )  # fmt: skip

    def said(self) -> str:
        """What this start has printed."""
        with self.log.open(encoding="utf-8") as file:
            file.seek(self._offset)
            return file.read()

    def wait_for(self, text: str, timeout_s: float = START_S) -> str:
        """Until this start has printed `text`."""
        deadline = time.monotonic() + timeout_s
        while text not in (said := self.said()):
            assert self.process.poll() is None, f"`so8t up` ended with {self.process.returncode}: {said}"
            assert time.monotonic() < deadline, f"{text!r} never came: {said}"
            time.sleep(0.1)
        return said

    def family(self) -> list[psutil.Process]:
        """All processes below, this one first."""
        own = psutil.Process(self.process.pid)
        return [own, *own.children(recursive=True)]

    def cut(self) -> None:
        """SIGKILL of all; each is halted first, so that none sees another die."""
        halted: dict[int, psutil.Process] = {}
        while fresh := [process for process in self.family() if process.pid not in halted]:
            for process in fresh:
                halted[process.pid] = process
                try:
                    process.suspend()
                except psutil.NoSuchProcess:
                    continue
        for process in halted.values():
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(list(halted.values()), timeout=30)
        self.process.wait(30)

    def stop(self, timeout_s: float = 90) -> int:
        """SIGTERM, and its exit code."""
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(timeout_s)


class Api:
    """The home's Prefect server, as a stranger with the password sees it."""

    def __init__(self, home: Path) -> None:
        port = running_port(home / "prefect" / "server.json")
        assert port, "no server runs"
        user, _, password = (home / "prefect" / "auth").read_text(encoding="utf-8").partition(":")
        self.client = httpx.Client(
            base_url=f"http://127.0.0.1:{port}/api", auth=(user, password), trust_env=False, timeout=60
        )
        name = uuid4().hex  # the server keeps one token for each
        token = self.client.get("/csrf-token", params={"client": name}).json()["token"]
        self.client.headers.update({"Prefect-Csrf-Token": token, "Prefect-Csrf-Client": name})

    def post(self, path: str, **body: Any) -> Any:
        """POST JSON, get JSON."""
        answer = self.client.post(path, json=body)
        assert answer.is_success, (path, answer.status_code, answer.text)
        return answer.json()

    def start(self, deployment: str = "so8t-pipeline/so8t", **parameters: Any) -> str:
        """A run of the deployment, now; its id."""
        found = self.client.get(f"/deployments/name/{deployment}").json()
        return str(self.post(f"/deployments/{found['id']}/create_flow_run", parameters=parameters)["id"])

    def run(self, run_id: str) -> dict[str, Any]:
        """The flow run."""
        found: dict[str, Any] = self.client.get(f"/flow_runs/{run_id}").json()
        return found

    def tasks(self, run_id: str) -> list[dict[str, Any]]:
        """Its task runs."""
        found: list[dict[str, Any]] = self.post("/task_runs/filter", flow_runs={"id": {"any_": [run_id]}}, limit=200)
        return found

    def wait(self, run_id: str, *states: str, timeout_s: float = 300) -> dict[str, Any]:
        """Until the run is in one of the states."""
        deadline = time.monotonic() + timeout_s
        while (run := self.run(run_id))["state_name"] not in states:
            assert time.monotonic() < deadline, (states, run["state_name"], run["state"]["message"])
            time.sleep(0.2)
        return run


def contents(home: Path) -> dict[str, str]:
    """Content hash of every finished artifact by step and key."""
    return {
        f"{path.parent.parent.name}/{path.parent.name}": json.loads(path.read_text(encoding="utf-8"))["content"]
        for path in (home / "artifacts").glob("*/*/manifest.json")
        if "." not in path.parent.name
    }
