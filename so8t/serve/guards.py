"""What a request must pass before the application sees it: host and origin, key, a place in the line, size and time.

Without the host check any web page could have its own name point at 127.0.0.1 and read the answers (DNS rebinding).
"""

import asyncio
import hmac
from collections.abc import Collection, Mapping
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from so8t.serve.desk import Busy, Desk, Stopping

OPEN_PATHS = frozenset({"/health"})
UNKNOWN_HOST = "this server is not called so; see --allowed-host"


def refusal(status: int, message: str, kind: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """An error in the shape of OpenAI's."""
    return JSONResponse(error_body(message, kind), status, headers=headers)


def error_body(message: str, kind: str) -> dict[str, Any]:
    """The body of an error; it repeats nothing of what was sent."""
    return {"error": {"message": message, "type": kind, "param": None, "code": None}}


def busy(error: Busy | Stopping) -> JSONResponse:
    """503 with the seconds after which it is worth another try."""
    if isinstance(error, Busy):
        return refusal(503, str(error), "overloaded_error", {"Retry-After": str(error.retry_s)})
    return refusal(503, "the server stops", "overloaded_error", {"Retry-After": "5"})


class Callers:
    """Refuses foreign hosts and origins (403) and wrong keys (401)."""

    def __init__(self, app: ASGIApp, hosts: Collection[str], key: str) -> None:
        self._app, self._hosts, self._key = app, frozenset(host.lower() for host in hosts), key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        refused = self._refuse(scope) if scope["type"] == "http" else None
        await (refused or self._app)(scope, receive, send)

    def _refuse(self, scope: Scope) -> JSONResponse | None:
        headers = Headers(scope=scope)
        hosts, origins = headers.getlist("host"), headers.getlist("origin")
        if len(hosts) != 1 or _name(f"//{hosts[0]}") not in self._hosts:
            return refusal(403, UNKNOWN_HOST, "permission_error")
        if any(_name(origin) not in self._hosts for origin in origins):
            return refusal(403, "web pages of other hosts may not call this server", "permission_error")
        if self._key and scope["path"] not in OPEN_PATHS and not self._knows_key(headers):
            return refusal(401, "a wrong key, or none", "authentication_error", {"WWW-Authenticate": "Bearer"})
        return None

    def _knows_key(self, headers: Headers) -> bool:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        return scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), self._key.encode())


def _name(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


class Bodies:
    """Gives a POST its place in the line, then reads its body whole, within a size and a time (413, 408)."""

    def __init__(self, app: ASGIApp, desk: Desk, size_bytes: int, time_s: float) -> None:
        self._app, self._desk, self._size_bytes, self._time_s = app, desk, size_bytes, time_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        try:
            self._desk.enter()
        except (Busy, Stopping) as error:
            await busy(error)(scope, receive, send)
            return
        try:
            body = await self._read(Headers(scope=scope), receive)
            if isinstance(body, bytes):
                await self._app(scope, _replay(body, receive), send)
            elif body is not None:
                await body(scope, receive, send)
        finally:
            self._desk.leave()

    async def _read(self, headers: Headers, receive: Receive) -> bytes | JSONResponse | None:
        """The body, or a refusal; None where the client has gone."""
        too_large = refusal(
            413, f"a body over {self._size_bytes} bytes", "invalid_request_error", {"Connection": "close"}
        )
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length) > self._size_bytes:
            return too_large
        body = bytearray()
        try:
            async with asyncio.timeout(self._time_s):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    body += message.get("body", b"")
                    if len(body) > self._size_bytes:
                        return too_large
                    if not message.get("more_body", False):
                        return bytes(body)
        except TimeoutError:
            return refusal(
                408, f"no whole body within {self._time_s:g} s", "invalid_request_error", {"Connection": "close"}
            )


def _replay(body: bytes, receive: Receive) -> Receive:
    """The body as one message, then whatever comes: the client's leaving."""
    left: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return left.pop() if left else await receive()

    return again
