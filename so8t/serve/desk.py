"""The line before the model: one is served, some wait, more are turned away; whoever leaves is not served."""

import asyncio
import math
import threading
import time
from collections.abc import AsyncGenerator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

from so8t.serve.answer import Answer, Answering, Cancelled, Question, TimedOut

RETRY_S_MAX = 120
# Weight of the newest latency in the running mean.
NEWEST = 0.2


class Busy(Exception):
    """No room in the line, or too long a wait."""

    def __init__(self, retry_s: int) -> None:
        self.retry_s = retry_s
        super().__init__("too many requests wait for the model")


class Stopping(Exception):
    """The server stops."""


@dataclass(frozen=True)
class Event:
    """What a job tells its client; `begun` says that the prompt was read."""

    kind: Literal["begun", "done", "failed"]
    answer: Answer | None = None
    error: BaseException | None = None


class Desk:
    """Admits requests and answers them in one thread, in the order in which they came."""

    def __init__(self, answering: Answering, waiting_max: int, wait_s: float, reply_s: float) -> None:
        self._answering, self._wait_s, self._reply_s = answering, wait_s, reply_s
        self._places, self._taken = waiting_max + 1, 0
        self._thread = ThreadPoolExecutor(1, "so8t-model")
        self._mean_s = 1.0
        self._ends_at = math.inf

    @property
    def taken(self) -> int:
        """Requests inside: served and waiting."""
        return self._taken

    @property
    def stopping(self) -> bool:
        """Whether `stop` was called."""
        return self._ends_at < math.inf

    def enter(self) -> None:
        """Take a place, before the request's body is read; Busy or Stopping where there is none."""
        if self.stopping:
            raise Stopping
        if self._taken >= self._places:
            raise Busy(self._retry_s())
        self._taken += 1

    def leave(self) -> None:
        """Give the place back."""
        self._taken -= 1

    def stop(self, grace_s: float) -> None:
        """Take nobody in; those who wait are told, who is served has `grace_s` left. Safe in a signal handler."""
        self._ends_at = min(self._ends_at, time.monotonic() + grace_s)

    def close(self) -> None:
        """Wait for the thread."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    async def ask(self, asked: Question) -> AsyncGenerator[Event, None]:
        """The events of one question, the last of them done or failed. Leaving the iteration cancels the work."""
        job = _Job(asyncio.get_running_loop(), time.monotonic() + self._wait_s)
        self._thread.submit(self._serve, asked, job).add_done_callback(job.end)
        try:
            while True:
                event = await self._next(job)
                yield event
                if event.kind in ("done", "failed"):
                    return
        finally:
            job.left.set()

    async def _next(self, job: "_Job") -> Event:
        """The next event; a wait for the turn ends with the patience, or with the server."""
        while not job.begun:
            try:
                return await asyncio.wait_for(job.events.get(), 0.25)
            except TimeoutError:
                if self.stopping:
                    return Event("failed", error=Stopping())
                if time.monotonic() >= job.patience_ends_at and not job.begun:
                    return Event("failed", error=Busy(self._retry_s()))
        return await job.events.get()

    def _serve(self, asked: Question, job: "_Job") -> Answer:
        """In the thread."""
        if self.stopping or job.left.is_set():
            raise Cancelled
        job.begun = True
        started = time.monotonic()

        def check() -> None:
            now = time.monotonic()
            if job.left.is_set() or now >= self._ends_at:
                raise Cancelled
            if now >= started + self._reply_s:
                raise TimedOut

        try:
            return self._answering.answer(asked, check, lambda: job.emit(Event("begun")))
        finally:
            self._mean_s += NEWEST * (time.monotonic() - started - self._mean_s)

    def _retry_s(self) -> int:
        return min(max(math.ceil(self._mean_s * self._taken), 1), RETRY_S_MAX)


class _Job:
    """What client and thread share of one question."""

    def __init__(self, loop: asyncio.AbstractEventLoop, patience_ends_at: float) -> None:
        self._loop, self.patience_ends_at = loop, patience_ends_at
        self.events: asyncio.Queue[Event] = asyncio.Queue()
        self.left = threading.Event()
        self.begun = False

    def emit(self, event: Event) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.events.put_nowait, event)

    def end(self, future: "Future[Answer]") -> None:
        """The last event."""
        error = Cancelled() if future.cancelled() else future.exception()
        if error is None:
            self.emit(Event("done", answer=future.result()))
        else:
            self.emit(Event("failed", error=Stopping() if isinstance(error, Cancelled) else error))
