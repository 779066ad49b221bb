"""Signals: stop at once, but never in the middle of a change.

A handler raises `Interrupted` wherever the main thread is (in a generation, in a forward pass), because
the state of the step's start is still whole then. Inside `held()` it waits for the block's end.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from so8t.errors import Interrupted

# SIGBREAK is what Windows sends for Ctrl+Break and for a console that closes.
NAMES = ("SIGINT", "SIGTERM", "SIGBREAK")


class Signals:
    """Turns signals into `Interrupted` while it is entered."""

    def __init__(self) -> None:
        self._held = 0
        self._waiting: int | None = None
        self._done = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Signals":
        if threading.current_thread() is threading.main_thread():
            for name in NAMES:
                number = getattr(signal, name, None)
                if number is not None:
                    self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def held(self) -> Iterator[None]:
        """A change that must not be seen half done."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
        if self._waiting is not None and not self._held:
            self._raise(self._waiting)

    def _handle(self, number: int, _: FrameType | None) -> None:
        if self._done:
            return  # the emergency checkpoint is being written already
        if self._held:
            self._waiting = number
        else:
            self._raise(number)

    def _raise(self, number: int) -> None:
        self._done = True
        name = signal.Signals(number).name
        exit_code = 130 if name == "SIGINT" else 143
        raise Interrupted(
            f"stopped by {name}; the state was saved and the next start goes on from it", exit_code=exit_code
        )
