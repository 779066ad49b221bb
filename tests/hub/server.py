"""The HTTP side of the test Hub: routes, tokens, faults on request and a log of what was asked."""

import contextlib
import re
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

from tests.hub.community import ROUTES as COMMUNITY
from tests.hub.routes import ROUTES, Answer, Context, as_json
from tests.hub.store import READ_TOKEN, WRITE_TOKEN, HubError, HubStore, Repo

PIECE_BYTES = 1 << 16


@dataclass(frozen=True)
class Request:
    """One line of the log."""

    method: str
    path: str
    route: str
    status: int
    body_bytes: int
    range: str = ""
    repeated: bool = False  # sends a large object that was here already, whole


@dataclass
class Fault:
    """What the next requests of a route meet."""

    route: str
    status: int = 0  # 0: the connection is dropped
    times: int = 1
    applied: bool = False  # the request is carried out first, only its answer is lost
    skip: int = 0  # this many requests pass before
    headers: tuple[tuple[str, str], ...] = ()
    cut: int = -1  # the request is carried out, and its body ends after so many bytes
    stall_s: float = 0.0  # the answer comes so late


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        # A client that was killed is no error of the server's.
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class HubServer:
    """A Hub on 127.0.0.1: `with HubServer(folder) as hub: ...hub.url...`."""

    def __init__(self, root: Path, port: int = 0, *, part_bytes: int = 1 << 20, page_entries: int = 1000) -> None:
        self.store = HubStore(root)
        self.part_bytes, self.page_entries = part_bytes, page_entries
        self.tokens = {WRITE_TOKEN: "write", READ_TOKEN: "read"}
        # Of a token whose role is fineGrained.
        self.scopes: dict[str, Any] = {"global": [], "scoped": [], "canReadGatedRepos": False}
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.delays: dict[str, float] = {}
        # Seconds between two pieces of a file's body, which makes a kill in the middle of it likely.
        self.piece_pause_s = 0.0
        # Cleared, no file's last piece is sent: whoever waits for it cannot end.
        self.may_end = threading.Event()
        self.may_end.set()
        self.resolved_bytes = 0
        # Where hf_xet keeps what it is given; a token for this folder is what the Hub's storage servers would hand out.
        self.xet: Path | None = None
        # Told of each request and its moment, before or after it is carried out; it may end the client.
        self.witness: Callable[[Request, str], None] = lambda request, moment: None
        self._lock = self.counting = threading.Lock()
        # Set, connections that stand are answered no more.
        self.gone = threading.Event()
        self._server = self._listening(port)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def _listening(self, port: int) -> _Server:
        server = _Server(("127.0.0.1", port), type("Bound", (Handler,), {"hub": self}))
        server.daemon_threads = True
        return server

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()

    def away(self, seconds: float) -> None:
        """The network is cut for so long: the port is closed, and no connection gets an answer."""
        self.gone.set()
        self.__exit__(None, None, None)
        time.sleep(seconds)
        self.gone.clear()
        self._server = self._listening(int(self.url.rpartition(":")[2]))
        self.__enter__()

    def fail(self, route: str, status: int, times: int = 1, *, skip: int = 0, **headers: str) -> None:
        """The next `times` requests of a route are answered with a status instead."""
        fields = tuple((name.replace("_", "-"), value) for name, value in headers.items())
        self.add_fault(route=route, status=status, times=times, skip=skip, headers=fields)

    def drop(self, route: str, times: int = 1, *, applied: bool = False, skip: int = 0) -> None:
        """The next requests of a route get no answer; with `applied` they are carried out all the same."""
        self.add_fault(route=route, times=times, applied=applied, skip=skip)

    def stall(self, route: str, stall_s: float, times: int = 1, *, applied: bool = False, skip: int = 0) -> None:
        """The answers to the next requests of a route come so late."""
        self.add_fault(route=route, times=times, applied=applied, skip=skip, stall_s=stall_s)

    def cut(self, route: str, size_bytes: int, times: int = 1, *, skip: int = 0) -> None:
        """The bodies of the next requests of a route end early."""
        self.add_fault(route=route, times=times, skip=skip, cut=size_bytes)

    def add_fault(self, **fields: Any) -> None:
        """Arm a `Fault` by its fields."""
        with self._lock:
            self.faults.append(Fault(**fields))

    def take_fault(self, route: str) -> Fault | None:
        """The fault that the request at hand meets."""
        with self._lock:
            for fault in self.faults:
                if fault.route == route and fault.times > 0:
                    if fault.skip > 0:
                        fault.skip -= 1
                        return None
                    fault.times -= 1
                    return fault
        return None

    def log(self, request: Request) -> None:
        """Remember a request."""
        with self._lock:
            self.requests.append(request)

    def count(self, route: str, status: int | None = None) -> int:
        """How often a route was asked."""
        return sum(r.route == route and status in (None, r.status) for r in self.requests)

    def sent_bytes(self) -> int:
        """Bytes of large objects and commits that clients have sent."""
        return sum(r.body_bytes for r in self.requests if r.route in ("lfs-put", "commit"))

    def repo(self, repo_id: str, kind: str = "models") -> Repo:
        """A repository, for tests."""
        return self.store.repos[kind, repo_id]


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    hub: HubServer
    protocol_version = "HTTP/1.1"
    # One packet an answer: headers and body apart would wait for each other's acknowledgement.
    wbufsize = 1 << 16
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing: the log is kept by the server."""

    def _serve(self) -> None:
        if self.hub.gone.is_set():
            self.close_connection = True
            return
        # A client that is killed leaves its connection in the middle of a request.
        with contextlib.suppress(ConnectionError):
            self._respond()

    def _respond(self) -> None:
        url = urlsplit(self.path)
        body = self._body()
        route, call, match = "unknown", None, None
        for name, method, pattern, function in (*COMMUNITY, *ROUTES):
            match = re.fullmatch(pattern, url.path) if self.command in method.split() else None
            if match:
                route, call = name, function
                break
        query = parse_qs(url.query, keep_blank_values=True)
        time.sleep(self.hub.delays.get(route, 0.0))
        named = match.groupdict() if match else {}
        whole = route == "lfs-put" and self.hub.store.has_object(named["oid"])
        request = Request(self.command, self.path, route, 0, len(body), self.headers.get("Range", ""), whole)
        self.hub.witness(request, "before")
        fault = self.hub.take_fault(route)
        cut = fault.cut if fault else -1
        if fault and not fault.applied and cut < 0:
            answer = as_json({"error": "as asked by the test"}, fault.status or 500, dict(fault.headers))
        else:
            answer = self._answer(call, match, query, body)
            self.hub.witness(request, "after")
        dropped = fault is not None and fault.status == 0 and cut < 0
        self.hub.log(replace(request, status=0 if dropped else answer.status))
        time.sleep(fault.stall_s if fault else 0.0)
        if dropped:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        self._send(answer, route, cut)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _serve  # noqa: N815

    def _answer(self, call: Any, match: re.Match[str] | None, query: dict[str, list[str]], body: bytes) -> Answer:
        if call is None or match is None:
            return as_json({"error": f"no route {self.command} {self.path}"}, 404)
        named = {name: unquote(value) for name, value in match.groupdict().items() if value is not None}
        try:
            with self.hub.store.lock:
                headers = {name.lower(): value for name, value in self.headers.items()}
                context = Context(self.hub, self.command, self._role(), named, query, headers)
                return call(context, body)  # type: ignore[no-any-return]
        except HubError as error:
            code = {"X-Error-Code": error.code} if error.code else {}
            return as_json({"error": error.message}, error.status, {"X-Error-Message": error.message, **code})

    def _role(self) -> str:
        header = self.headers.get("Authorization")
        if not header:
            return ""
        role = self.hub.tokens.get(header.removeprefix("Bearer "))
        if role is None:
            raise HubError(401, "Invalid credentials in Authorization header")
        return role

    def _body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            pieces = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                pieces.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(pieces)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _send(self, answer: Answer, route: str, cut: int) -> None:
        headers = answer.headers or {}
        self.send_response(answer.status)
        for name, value in headers.items():
            self.send_header(name, value)
        if "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        body = answer.body if cut < 0 else answer.body[:cut]
        if route == "resolve":
            self._send_slowly(body)
        else:
            self.wfile.write(body)
        if cut >= 0:
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

    def _send_slowly(self, body: bytes) -> None:
        if self.hub.piece_pause_s:
            # What waits in the kernel's buffers counts as sent although a killed client has not read it.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, PIECE_BYTES)
        for start in range(0, len(body), PIECE_BYTES):
            piece = body[start : start + PIECE_BYTES]
            if start + PIECE_BYTES >= len(body):
                self.hub.may_end.wait()
            self.wfile.write(piece)
            with self.hub.counting:
                self.hub.resolved_bytes += len(piece)
            if self.hub.piece_pause_s:
                self.wfile.flush()
                time.sleep(self.hub.piece_pause_s)
