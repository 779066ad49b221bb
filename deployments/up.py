"""`so8t up`: server, work pool, deployments and one worker, in the foreground."""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from so8t.cli import add_config_arguments, raise_on_signals

if TYPE_CHECKING:
    from deployments.server import Server

PROJECT = Path(__file__).resolve().parent.parent
POOL = "so8t"
RESTART_PAUSE_S, RESTART_PAUSE_MAX_S = 1.0, 60.0
# A worker that ran this long was healthy: the next pause starts small again.
HEALTHY_S = 300.0
STOP_GRACE_S = 20.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_config_arguments(parser)


def main(options: argparse.Namespace) -> int:
    """Serve until a signal; what was started is stopped."""
    from filelock import FileLock, Timeout

    from deployments.server import Server, auth_string
    from so8t.config import load_config
    from so8t.errors import ResourceError

    raise_on_signals()
    config = load_config(options.config, options.overrides, options.home)
    home = config.home()
    auth_string(home)
    lock = FileLock(home / "prefect" / "up.lock", timeout=0)
    try:
        with lock, Server(config, home / "logs" / "server.log") as server:
            _say(f"server  {server.url}   home {home}")
            environment = {**os.environ, **server.environment(), "SO8T_PROJECT": str(PROJECT)}
            _prefect(environment, "work-pool", "create", POOL, "--type", "process", "--overwrite")
            parameters = f'{{"config": {config.model_dump_json(exclude={"machine": {"home"}})}}}'
            _prefect(environment, "deploy", "--name", "so8t", "--params", parameters)
            _say("ready   start a run in the UI (user and password: see <home>/prefect/auth), or with")
            _say(f"        prefect deployment run so8t-pipeline/so8t   (PREFECT_HOME={home / 'prefect'})")
            _keep_worker(environment, home / "logs" / "worker.log", server)
    except Timeout:
        raise ResourceError(
            f"`so8t up` already runs for {home}", "one instance a home", "stop the other one first"
        ) from None
    return 0


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def _prefect(environment: dict[str, str], *arguments: str) -> None:
    """Run the `prefect` command; its own words are shown where it fails."""
    from so8t.errors import So8tError

    done = subprocess.run(  # noqa: S603
        [sys.executable, "-m", "prefect", "--no-prompt", *arguments],
        cwd=PROJECT, env=environment, check=False, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, encoding="utf-8", errors="replace",
    )  # fmt: skip
    if done.returncode != 0:
        raise So8tError(f"prefect {' '.join(arguments[:2])} failed:\n{done.stdout}{done.stderr}")


def _keep_worker(environment: dict[str, str], log: Path, server: "Server") -> None:
    """One worker, started again with a growing pause when it dies; it ends when this process does."""
    from deployments.server import ServerFailed

    pause_s = RESTART_PAUSE_S
    command = [sys.executable, "-m", "deployments.guard", "prefect", "worker", "start", "--pool", POOL, "--limit", "1"]
    while True:
        began = time.monotonic()
        with log.open("ab") as output:
            worker = subprocess.Popen(  # noqa: S603
                command, stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT, cwd=PROJECT, env=environment,
                start_new_session=os.name != "nt",
                creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
            )  # fmt: skip
        _say(f"worker  started (pid {worker.pid})")
        try:
            while worker.poll() is None:
                if server.started and not server.alive():
                    raise ServerFailed(f"the Prefect server stopped; see {log.with_name('server.log')}")
                time.sleep(0.5)
        finally:
            _stop(worker)
        _say(f"worker  ended with exit code {worker.returncode}; again in {pause_s:g} s")
        time.sleep(pause_s)
        healthy = time.monotonic() - began > HEALTHY_S
        pause_s = RESTART_PAUSE_S if healthy else min(pause_s * 2, RESTART_PAUSE_MAX_S)


def _stop(worker: "subprocess.Popen[bytes]") -> None:
    """Stop the worker and the flow runs that it started."""
    import psutil

    if worker.poll() is not None:
        return
    family = psutil.Process(worker.pid).children(recursive=True)
    for process in [*reversed(family), psutil.Process(worker.pid)]:
        try:
            process.terminate()
        except psutil.NoSuchProcess:
            continue
    _, alive = psutil.wait_procs([*family, psutil.Process(worker.pid)], timeout=STOP_GRACE_S)
    for process in alive:
        process.kill()
    worker.wait()
