"""From checked files to a listening server, and back to nothing at a signal."""

import ipaddress
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import uvicorn
from starlette.types import ASGIApp

from so8t.errors import InputError, Interrupted, ResourceError
from so8t.serve.answer import Answering
from so8t.serve.api import Served, application
from so8t.serve.audit import AuditLog, Key
from so8t.serve.checked import check
from so8t.serve.config import Files, Serve
from so8t.serve.desk import Desk
from so8t.serve.guards import Bodies, Callers
from so8t.serve.model import Model

if TYPE_CHECKING:
    from so8t.classifier import Classifier

KEY_VARIABLE = "SO8T_SERVE_KEY"
KEY_LENGTH_MIN = 16
LOCAL_NAMES = ("127.0.0.1", "localhost", "::1")
# Connections, idle ones included; far more than the line holds.
CONNECTIONS_MAX = 1024
KEEP_ALIVE_S = 5
MB = 1_000_000


def serve(files: Files, config: Serve, home: Path, gpu: bool) -> None:
    """Serve until a signal. UserError for anything that is wrong before; Interrupted where a second signal came."""
    key, hosts = callers(config, os.environ.get(KEY_VARIABLE, ""))
    hashes = {"model_sha256": check(files.model)}
    if files.mmproj:
        hashes["mmproj_sha256"] = check(files.mmproj)
    with ExitStack() as stack:
        listening = stack.enter_context(_listen(config.host, config.port))
        port = listening.getsockname()[1]
        model = Model(files.model, files.mmproj, config.context, config.threads, config.confidence, gpu)
        stack.callback(model.close)
        folder = home / "serve"
        audit = AuditLog(
            folder / "audit" / f"{port}.jsonl", Key(folder / "audit.key"), int(config.audit_mb * MB), config.audit_files
        )
        stack.callback(audit.close)
        classifier = _classifier(files)
        if classifier:
            hashes["classifier_content"] = classifier.content
        answering = Answering(model, audit, {"model": model.name, **hashes}, classifier)
        desk = Desk(answering, config.queue, config.queue_s, config.reply_s)
        stack.callback(desk.close)
        served = Served(model.name, int(files.model.stat().st_mtime), model.context, model.image_size)
        server = _Server(guarded(desk, served, config, hosts, key), desk, config.stop_s)
        sys.stderr.write(
            f"so8t: {served.name} (sha256 {hashes['model_sha256'][:12]}) at http://{_shown(config.host)}:{port}"
            f"/think and /v1\nso8t: audit log {audit.path}; Ctrl+C stops\n"
        )
        sys.stderr.flush()
        server.run(sockets=[listening])
        if server.force_exit:
            raise Interrupted("stopped at once by a second signal")
    sys.stderr.write("so8t: stopped\n")


def guarded(desk: Desk, served: Served, config: Serve, hosts: set[str], key: str) -> ASGIApp:
    """The application behind everything that a request must pass."""
    inner = Bodies(application(desk, served, config), desk, int(config.body_mb * MB), config.body_s)
    return Callers(inner, hosts, key)


def callers(config: Serve, key: str) -> tuple[str, set[str]]:
    """The key that callers need, empty for none, and the names that they may use for this server."""
    names = {*LOCAL_NAMES, *config.allowed_host, config.host}
    try:
        address = ipaddress.ip_address("127.0.0.1" if config.host == "localhost" else config.host)
    except ValueError:
        raise InputError(f"--host {config.host!r}", "an IP address of this machine, or localhost") from None
    if address.is_loopback:
        return key, names
    if len(key) < KEY_LENGTH_MIN:
        raise InputError(
            f"--host {config.host} lets other machines in, and {KEY_VARIABLE} has {len(key)} characters",
            f"a key of at least {KEY_LENGTH_MIN}",
            f"set {KEY_VARIABLE}, for example to what `openssl rand -hex 24` prints",
        )
    if address.is_unspecified:
        if not config.allowed_host:
            raise InputError(
                f"--host {config.host} without --allowed-host", "the names under which clients call this machine"
            )
        names.discard(config.host)
    return key, names


@contextmanager
def _listen(host: str, port: int) -> Iterator[socket.socket]:
    """A bound socket; it takes nobody in before the server runs."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as bound:
        if os.name != "nt":  # there it would let two servers share a port
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind((host, port))
        except OSError as error:
            raise ResourceError(
                f"cannot listen at {host}:{port} ({error.strerror})", "a free port", "choose another with --port"
            ) from None
        yield bound


def _classifier(files: Files) -> "Classifier | None":
    if files.classifier is None:
        return None
    if files.base is None:
        raise InputError("--classifier without --base", "the folder of the base that it was trained on")
    from so8t.classifier import Classifier

    return Classifier.load(files.classifier, files.base)


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host


class _Server(uvicorn.Server):
    """Stops at the first signal when what is being answered has ended, at the second one at once."""

    def __init__(self, app: ASGIApp, desk: Desk, stop_s: float) -> None:
        self._desk, self._stop_s = desk, stop_s
        super().__init__(
            uvicorn.Config(
                app, loop="asyncio", http="h11", ws="none", lifespan="off", log_config=None, access_log=False,
                server_header=False, proxy_headers=False, timeout_keep_alive=KEEP_ALIVE_S,
                limit_concurrency=CONNECTIONS_MAX, timeout_graceful_shutdown=int(stop_s) + KEEP_ALIVE_S,
            )
        )  # fmt: skip

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """uvicorn's own raises the signal again at the end; a server that was told to stop has not failed."""
        self.force_exit = self.should_exit
        self.should_exit = True
        self._desk.stop(0 if self.force_exit else self._stop_s)
