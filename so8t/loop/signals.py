"""Signals: the state is kept at once, wherever the training is, and never in the middle of a change.

A Python handler runs in the main thread between two byte codes, so not while that thread is in a long C
call. So a signal also wakes a thread of its own (`signal.set_wakeup_fd`: a socket, as Windows wants it).
It waits for the end of a commit, after which no other begins, and keeps the state of the step's start,
while the main thread leaves by `Interrupted`. If that does not come back from C, the process ends anyway.
"""

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from so8t.errors import Interrupted

# SIGBREAK is what Windows sends for Ctrl+Break and for a console that closes.
NAMES = ("SIGINT", "SIGTERM", "SIGBREAK")
# How long the main thread may stay in C once the state is durable.
LEAVE_GRACE_S = 10.0


class Signals:
    """Turns signals into `Interrupted` while it is entered, in the main thread; elsewhere it only keeps order."""

    def __init__(self, keep: Callable[[], str], leave_grace_s: float = LEAVE_GRACE_S) -> None:
        """`keep` makes the state durable, in a thread of its own, and says what it did; it raises nothing."""
        self._keep, self._leave_grace_s = keep, leave_grace_s
        self._commit = threading.Lock()
        self._held = False
        self._waiting: int | None = None
        self._stopped_by: int | None = None
        self._raised = False
        self._kept, self._left = threading.Event(), threading.Event()
        self._outcome = ""
        self._before: dict[int, Any] = {}
        self._wakeup_before = -1
        self._ends: tuple[socket.socket, socket.socket] | None = None

    def __enter__(self) -> "Signals":
        if threading.current_thread() is threading.main_thread():
            reader, writer = self._ends = socket.socketpair()
            writer.setblocking(False)
            self._wakeup_before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
            for name in NAMES:
                number = getattr(signal, name, None)
                if number is not None:
                    self._before[number] = signal.signal(number, self._handle)
            threading.Thread(target=self._watch, args=(reader,), name="signals", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._left.set()
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._ends is not None:
            signal.set_wakeup_fd(self._wakeup_before)
            # Closing the writer ends the watcher, which closes the reader.
            self._ends[1].close()

    @contextmanager
    def held(self) -> Iterator[None]:
        """A change that must not be seen half done; none begins after a signal."""
        with self._commit:
            if self._stopped_by is not None:
                self._raise(self._stopped_by)
            self._held = True
            try:
                yield
            finally:
                self._held = False
        if self._waiting is not None:
            self._raise(self._waiting)

    def outcome(self) -> str:
        """What `keep` said. Only after `Interrupted` was raised from here."""
        self._kept.wait()
        return self._outcome

    @property
    def raised(self) -> bool:
        """Whether a signal was turned into `Interrupted`."""
        return self._raised

    def ignore(self) -> None:
        """The training ends anyway: no signal interrupts what is still done."""
        self._raised = True

    def _handle(self, number: int, _: FrameType | None) -> None:
        if self._raised:
            return  # the state is being kept already
        if self._held:
            self._waiting = number
        else:
            self._raise(number)

    def _raise(self, number: int) -> None:
        self._raised = True
        raise Interrupted(f"stopped by {signal.Signals(number).name}", exit_code=128 + _as_unix(number))

    def _watch(self, reader: socket.socket) -> None:
        with reader:
            while data := reader.recv(64):
                for number in data:
                    if number in self._before and self._stopped_by is None:
                        self._stop(number)

    def _stop(self, number: int) -> None:
        with self._commit:
            self._stopped_by = number
        self._outcome = self._keep()
        self._kept.set()
        if not self._left.wait(self._leave_grace_s):
            os._exit(128 + _as_unix(number))


def _as_unix(number: int) -> int:
    """SIGBREAK asks for the same as SIGTERM."""
    return int(signal.SIGINT if number == signal.SIGINT else signal.SIGTERM)
