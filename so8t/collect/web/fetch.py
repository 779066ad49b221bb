"""One request over HTTP: to a judged address, within limits of time and size, no redirect followed.

The address goes into the URL and the name into Host and SNI, so what was judged is what is connected to, and a
certificate is checked against the name. No connection is kept: with the pool sorted by address, one that was
opened for one name would serve another. Environment proxies are not used; they would look names up themselves.
"""

import asyncio
import ssl
import zlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import httpx

from so8t.collect.web.addresses import PORTS
from so8t.collect.web.guard import Address, Guard
from so8t.collect.web.refusal import Refused, Unreachable

REDIRECTS = frozenset({301, 302, 303, 307, 308})
# How much a packed body may grow at once while it is unpacked.
_PIECE_BYTES = 64 * 1024


@dataclass(frozen=True)
class Answer:
    """What a server said; `body` is unpacked. Header names are in lower case, repeated ones joined by commas."""

    url: str
    status: int
    headers: dict[str, str]
    body: bytes = b""

    @property
    def media_type(self) -> str:
        """Content-Type without parameters, in lower case."""
        return self.headers.get("content-type", "").split(";")[0].strip().lower()


@dataclass(frozen=True)
class Limits:
    """`timeout_s` for the whole request, `size_max_bytes` of the unpacked body; `cut` keeps its begin instead."""

    timeout_s: float
    size_max_bytes: int
    cut: bool = False


class Fetcher:
    """Use as an async context manager."""

    def __init__(self, user_agent: str, guard: Guard, verify: ssl.SSLContext | bool = True) -> None:
        self._guard = guard
        self._client = httpx.AsyncClient(
            headers={"User-Agent": user_agent, "Accept-Encoding": "gzip"},
            verify=verify, trust_env=False, follow_redirects=False,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
            # Cookies would be kept by address, too, and what a page says would depend on those before it.
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        )  # fmt: skip

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def get(self, url: str, accept: str, limits: Limits, wanted: Callable[[Answer], bool]) -> Answer:
        """Ask for a URL; its body is read only where `wanted` says so of status and headers.

        Refused: the address, the size or the packing. Unreachable: no whole answer in time.
        """
        try:
            async with asyncio.timeout(limits.timeout_s):
                return await self._at_any_address(url, accept, limits, wanted)
        except TimeoutError as error:
            raise Unreachable(f"no whole answer in {limits.timeout_s:g} s") from error
        except httpx.HTTPError as error:
            raise Unreachable(f"{type(error).__name__}: {error}"[:200]) from error
        except httpx.InvalidURL as error:
            raise Refused(f"no URL to ask for: {error}"[:200]) from error

    async def _at_any_address(self, url: str, accept: str, limits: Limits, wanted: Callable[[Answer], bool]) -> Answer:
        parts = urlsplit(url)
        host = parts.hostname or ""
        addresses = await self._guard.addresses(host, parts.port or PORTS[parts.scheme], parts.netloc)
        for address in addresses[:-1]:
            try:
                return await self._at(url, address, accept, limits, wanted)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                continue
        return await self._at(url, addresses[-1], accept, limits, wanted)

    async def _at(
        self, url: str, address: Address, accept: str, limits: Limits, wanted: Callable[[Answer], bool]
    ) -> Answer:
        parts = urlsplit(url)
        place = f"[{address}]" if address.version == 6 else str(address)
        port = f":{parts.port}" if parts.port else ""
        request = self._client.build_request(
            "GET", parts._replace(netloc=place + port).geturl(),
            headers={"Host": parts.netloc, "Accept": accept},
            timeout=httpx.Timeout(limits.timeout_s / 3),
            extensions={"sni_hostname": parts.hostname},
        )  # fmt: skip
        response = await self._client.send(request, stream=True)
        try:
            answer = Answer(
                url, response.status_code, {name.lower(): value for name, value in response.headers.items()}
            )
            if not wanted(answer):
                return answer
            packing = answer.headers.get("content-encoding", "").strip().lower()
            return Answer(url, answer.status, answer.headers, await read_body(response.aiter_raw(), packing, limits))
        finally:
            await response.aclose()


async def read_body(pieces: AsyncIterator[bytes], packing: str, limits: Limits) -> bytes:
    """The body unpacked. It never takes more room than the limit and one piece, however well it was packed."""
    if packing not in ("", "identity", "gzip", "x-gzip"):
        raise Refused(f"packed as {packing[:40]!r}, which was not asked for")
    unpacker = zlib.decompressobj(wbits=31) if packing.endswith("gzip") else None
    body = bytearray()
    async for piece in pieces:
        rest = piece
        while rest:
            if unpacker is None:
                body, rest = body + rest, b""
            elif unpacker.eof:
                break  # what follows a whole stream is padding
            else:
                try:
                    body += unpacker.decompress(rest, _PIECE_BYTES)
                except zlib.error as error:
                    raise Refused("its packing is damaged") from error
                rest = unpacker.unconsumed_tail
            if len(body) > limits.size_max_bytes:
                if limits.cut:
                    return bytes(body[: limits.size_max_bytes])
                raise Refused(f"larger than {limits.size_max_bytes} bytes")
    if unpacker is not None and body and not unpacker.eof:
        raise Unreachable("its packed body ended early")
    return bytes(body)
