"""The endpoints: /think, OpenAI's /v1/chat/completions and /v1/models, /health."""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.responses import StreamingResponse

from so8t.serve import picture, shapes
from so8t.serve.answer import Answer, Question, TimedOut
from so8t.serve.config import Serve
from so8t.serve.desk import Busy, Desk, Event, Stopping
from so8t.serve.guards import busy, error_body, refusal
from so8t.serve.model import Sampling
from so8t.serve.prompt import BadRequest, Turn
from so8t.serve.schema import Chat, Drawn, Think

T = TypeVar("T")

_log = logging.getLogger("so8t.serve")

KEEP_ALIVE_S = 10.0
SEED_BITS = 63


class Gone(Exception):
    """The client has left."""


@dataclass(frozen=True)
class Served:
    """What the endpoints say of the model, and what its tower reads."""

    name: str
    created: int  # Unix time of the file
    context: int  # tokens
    image_size: int  # pixels; 0: no images


def application(desk: Desk, served: Served, config: Serve) -> FastAPI:
    """The application, without what stands before it (guards.py)."""
    app = FastAPI(title="so8t", docs_url=None, redoc_url=None, openapi_url=None)
    asking = Asking(desk, served, config)

    @app.get("/health")
    async def health() -> JSONResponse:
        told = {"status": "stopping" if desk.stopping else "ok", "inside": desk.taken}
        return JSONResponse(told, 503 if desk.stopping else 200)

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        entry = {"id": served.name, "object": "model", "created": served.created, "owned_by": "so8t"}
        return {"object": "list", "data": [entry]}

    @app.post("/think")
    async def think(body: Think, request: Request) -> Response:
        return await asking.reply(request, body, (Turn("user", body.prompt),), body.image, shapes.Thought())

    @app.post("/v1/chat/completions")
    async def chat(body: Chat, request: Request) -> Response:
        if body.model not in (None, served.name):
            return refusal(404, f"no such model; this server has {served.name}", "invalid_request_error")
        usage = body.stream_options is not None and body.stream_options.include_usage
        return await asking.reply(request, body, body.turns(), body.image(), shapes.Completion(served.name, usage))

    _handle_errors(app)
    return app


class Asking:
    """Turns a request into a question, and its events into a response."""

    def __init__(self, desk: Desk, served: Served, config: Serve) -> None:
        self._desk, self._served, self._config = desk, served, config
        self._one_image = asyncio.Lock()

    async def reply(
        self, request: Request, body: Drawn, turns: tuple[Turn, ...], image: str | None, shape: shapes.Shape
    ) -> Response:
        """The whole answer, or a stream of events."""
        asked = Question(
            shape.id, request.url.path, turns, await self._picture(image), self._sampling(body), body.stream
        )
        events = self._desk.ask(asked)
        if not body.stream:
            async with contextlib.aclosing(events):
                return JSONResponse(shape.whole(await _unless_gone(request, _answer(events))))
        # Until the prompt was read an error still has a status of its own.
        first = await _unless_gone(request, anext(events))
        if first.error:
            await events.aclose()
            raise first.error
        return StreamingResponse(
            _stream(events, shape), media_type="text/event-stream", headers={"Cache-Control": "no-store"}
        )

    async def _picture(self, url: str | None) -> bytes:
        if url is None:
            return b""
        if not self._served.image_size:
            raise BadRequest("this server reads no images; it was started without --mmproj")
        pixels_max = int(self._config.image_megapixels * 1e6)
        async with self._one_image:  # an unpacked image is large
            data = picture.unpack(url)
            return await asyncio.to_thread(
                picture.as_read, data, self._served.image_size, pixels_max, self._config.resampling
            )

    def _sampling(self, body: Drawn) -> Sampling:
        most = self._config.max_tokens
        asked = [body.max_tokens, body.max_completion_tokens if isinstance(body, Chat) else None]
        return Sampling(
            temperature=self._config.temperature if body.temperature is None else body.temperature,
            top_p=1.0 if body.top_p is None else body.top_p,
            seed=secrets.randbits(SEED_BITS) if body.seed is None else body.seed,
            max_tokens=min(most, *(tokens for tokens in asked if tokens is not None), most),
        )


async def _answer(events: AsyncGenerator[Event, None]) -> Answer:
    async for event in events:
        if event.error:
            raise event.error
        if event.answer:
            return event.answer
    raise AssertionError("the events of a question end with done or failed")


async def _unless_gone(request: Request, work: Awaitable[T]) -> T:
    """The work's result; Gone, and the work cancelled, where the client leaves first."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise Gone
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _stream(events: AsyncGenerator[Event, None], shape: shapes.Shape) -> AsyncIterator[bytes]:
    """Server-sent events, and a comment now and then, which says nothing of what is being thought."""
    yield shape.opening()
    waiting: asyncio.Future[Event] | None = None
    try:
        while True:
            waiting = waiting or asyncio.ensure_future(anext(events))
            await asyncio.wait({waiting}, timeout=KEEP_ALIVE_S)
            if not waiting.done():
                yield b": waiting\n\n"
                continue
            event, waiting = waiting.result(), None
            if event.error:
                status, text = _told(event.error)
                if status == 500:
                    _log.error("a streamed reply failed", exc_info=event.error)
                yield shape.failed(text)
                return
            if event.answer:
                yield shape.closing(event.answer)
                return
    finally:
        if waiting is not None:
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        await events.aclose()


def _told(error: BaseException) -> tuple[int, str]:
    """Status and text for what went wrong; of an unforeseen error no text, which might hold some of the reply."""
    if isinstance(error, BadRequest):
        return 400, str(error)
    if isinstance(error, TimedOut):
        return 504, "the reply took too long"
    if isinstance(error, Busy | Stopping):
        return 503, str(error) or "the server stops"
    return 500, "the reply failed; the server's output says more"


def _handle_errors(app: FastAPI) -> None:
    async def refuse(request: Request, error: Exception) -> Response:
        status, text = _told(error)
        return JSONResponse(error_body(text, "invalid_request_error" if status == 400 else "server_error"), status)

    async def unavailable(request: Request, error: Exception) -> Response:
        assert isinstance(error, Busy | Stopping)
        return busy(error)

    async def gone(request: Request, error: Exception) -> Response:
        return Response(status_code=499)

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        faults = [f"{'.'.join(map(str, fault['loc'][1:]))}: {fault['msg']}" for fault in error.errors()]
        return refusal(400, "; ".join(faults[:5]), "invalid_request_error")

    async def other(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return refusal(error.status_code, str(error.detail), "invalid_request_error")

    handlers: list[tuple[type[Exception], Callable[[Request, Exception], Awaitable[Response]]]] = [
        (BadRequest, refuse), (TimedOut, refuse), (Busy, unavailable), (Stopping, unavailable), (Gone, gone),
        (RequestValidationError, invalid), (HTTPException, other), (Exception, refuse),
    ]  # fmt: skip
    for kind, handler in handlers:
        app.add_exception_handler(kind, handler)
