"""The local Prefect server: hardened, on 127.0.0.1, with its database under the home.

Whoever starts a server holds its standard input; the server stops when that closes, so no server
outlives a killed `so8t run`. Others attach to a running one.
"""

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Protocol

from filelock import FileLock

from deployments.probe import VERSION, status
from so8t import durable
from so8t.births import birth
from so8t.config import Config
from so8t.errors import ResourceError, So8tError
from so8t.server_state import HOST, healthy, lives, read

START_TIMEOUT_S = 180.0
STOP_GRACE_S = 15.0
# Its database and log; without room Prefect only says that its start-up failed.
ROOM_BYTES = 16 << 20
# Of another's server; silence is a busy machine's.
REFUSALS = (401, 403, 404)


class SupportsFileno(Protocol):
    """What `subprocess` takes for a stream."""

    def fileno(self) -> int:
        """The descriptor."""


class ServerFailed(So8tError):
    """The local Prefect server did not come up."""


def auth_string(home: Path) -> str:
    """`user:password` of this home's server, made once, readable by its owner alone."""
    path = home / "prefect" / "auth"
    if not path.exists():
        with durable.explain_full_disk(path):
            durable.make_folder(path.parent)
            path.parent.chmod(0o700)
        durable.write_text(path, f"so8t:{secrets.token_urlsafe(24)}")
        path.chmod(0o600)
    return path.read_text(encoding="utf-8")


def environment(home: Path, port: int, workers: int) -> dict[str, str]:
    """Prefect's settings for the server and for every client of it."""
    auth = auth_string(home)
    settings = {
        "HOME": str(home / "prefect"),
        "API_URL": f"http://{HOST}:{port}/api",
        "API_AUTH_STRING": auth,
        "SERVER_API_AUTH_STRING": auth,
        "SERVER_API_HOST": HOST,
        "SERVER_API_PORT": str(port),
        "SERVER_API_CSRF_PROTECTION_ENABLED": "true",
        "SERVER_API_CORS_ALLOWED_ORIGINS": f"http://{HOST}:{port}",
        "SERVER_ANALYTICS_ENABLED": "false",
        "SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        "SERVER_EPHEMERAL_ENABLED": "false",
        "SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        "LOCAL_STORAGE_PATH": str(home / "prefect" / "storage"),
        "TASK_RUNNER_THREAD_POOL_MAX_WORKERS": str(workers),
        "WORKER_QUERY_SECONDS": "2",
        "CLI_PROMPT": "false",
    }
    return {f"PREFECT_{name}": value for name, value in settings.items()} | {
        "DO_NOT_TRACK": "1",
        "PYTHONUTF8": "1",
        "SO8T_HOME": str(home),
        # Steps that run inside this process share it with others: one thread each, whatever the machine.
        "OMP_NUM_THREADS": "1",
    }


class Server:
    """Start or attach to the home's server; a context manager that stops only what it started."""

    def __init__(self, config: Config, log: Path, output: SupportsFileno | None = None) -> None:
        """`output` takes what the server prints; without it, the file `log` does."""
        self.home, self._wanted_port = config.home(), config.machine.server_port
        self._workers, self._log, self._output = config.machine.workers, log, output
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    @property
    def state_file(self) -> Path:
        """Who serves this home, on which port."""
        return self.home / "prefect" / "server.json"

    @property
    def url(self) -> str:
        """Address of the UI."""
        return f"http://{HOST}:{self.port}"

    @property
    def started(self) -> bool:
        """Whether this object started the server, and so stops it."""
        return self._process is not None

    def environment(self) -> dict[str, str]:
        """Settings for clients of this server."""
        return environment(self.home, self.port, self._workers)

    def __enter__(self) -> "Server":
        """Attach to a healthy server, else start one and wait for its health."""
        self.ensure()
        return self

    def ensure(self) -> None:
        """Attach to the home's healthy server, or start one on the port that the home's clients know."""
        auth_string(self.home)
        with FileLock(self.home / "prefect" / "server.lock", timeout=START_TIMEOUT_S):
            self.port = running_port(self.state_file)
            if not self.port:
                self._start()
            else:
                self._demand_ours()

    def _start(self) -> None:
        if (free := shutil.disk_usage(self.home).free) < ROOM_BYTES:
            raise ResourceError(
                f"the disk is full: {free} bytes are free at {self.home}",
                f"{ROOM_BYTES >> 20} MiB for the server's database and log",
                "free some room, or choose another folder with --home DIR or SO8T_HOME; finished work is kept",
            )
        _wait_for_end(self.state_file)
        self.port = _free_port(self._wanted_port or _last_port(self.state_file))
        durable.make_folder(self._log.parent)
        with contextlib.ExitStack() as files:
            log = self._output or files.enter_context(self._log.open("ab"))
            self._process = subprocess.Popen(
                [sys.executable, "-m", "deployments.served"],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=Path(__file__).parent.parent,
                env={**os.environ, **self.environment()},
                start_new_session=os.name != "nt",
                creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not healthy(self.port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                code = self._process.poll()
                self.stop()
                raise ServerFailed(
                    f"the Prefect server did not come up on {self.url} (exit code {code}); see {self._log}"
                )
            time.sleep(0.1)
        self._demand_ours()
        born = birth(self._process.pid)
        durable.write_json(self.state_file, {"pid": self._process.pid, "born": born, "port": self.port})
        # What the `prefect` command needs: PREFECT_HOME=<home>/prefect prefect deployment run ...
        profile = f'active = "so8t"\n\n[profiles.so8t]\nPREFECT_API_URL = "{self.url}/api"\n'
        profile += f'PREFECT_API_AUTH_STRING = "{auth_string(self.home)}"\n'
        durable.write_text(self.home / "prefect" / "profiles.toml", profile)
        (self.home / "prefect" / "profiles.toml").chmod(0o600)

    def _demand_ours(self) -> None:
        """ResourceError where who answers on the port does not know this home's password: it is another's server.

        Ours may have found the port taken in the same moment; a client of that other one would only be told 401.
        """
        if status(self.port, "GET", VERSION, auth_string(self.home)) in REFUSALS:
            self.stop()
            raise ResourceError(
                f"another server answers on {self.url}: it refuses the password of {self.home}",
                "a free port, or this home's own server",
                "stop that server, or choose another port: --set machine.server_port=0 takes any free one",
            )

    def serves(self) -> bool:
        """Whether the server still serves: its process where this object started it, its answer where not."""
        return self._process.poll() is None if self._process is not None else bool(running_port(self.state_file))

    def stop(self) -> None:
        """Stop the server, if this object started it."""
        if self._process is None:
            return
        with contextlib.suppress(OSError):
            self._process.stdin.close()  # type: ignore[union-attr]
        try:
            self._process.wait(STOP_GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop what was started."""
        self.stop()


def running_port(state_file: Path) -> int:
    """Port of the healthy server that the state file names, or 0."""
    state = read(state_file)
    return int(state["port"]) if lives(state) and healthy(state["port"]) else 0


def _wait_for_end(state_file: Path) -> None:
    """A server whose starter was killed takes some seconds to leave the port."""
    deadline = time.monotonic() + STOP_GRACE_S
    while lives(read(state_file)) and time.monotonic() < deadline:
        time.sleep(0.1)


def _last_port(state_file: Path) -> int:
    """Where the home's server was before: runs that outlived it look for it there."""
    return int(read(state_file).get("port", 0))


def _free_port(wanted: int) -> int:
    """The wanted port, or a free one where another program has it."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            if os.name != "nt":
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise ServerFailed(f"no free port on {HOST}")
