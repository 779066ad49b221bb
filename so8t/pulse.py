"""Signs of life from inside long work, which a monitor would take for a hang.

`beat()` stands behind each unit of work deep in code that knows no Progress: a layer computed, a megabyte hashed, a
batch of rows read. Whoever runs a step listens, in the step's thread, and repeats its last report now and then. No
clock beats: what stands still shows no sign.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_listening: ContextVar[Callable[[], None] | None] = ContextVar("listening", default=None)


def beat() -> None:
    """Something was done; nothing happens where nobody listens."""
    listen = _listening.get()
    if listen is not None:
        listen()


@contextmanager
def heard(listen: Callable[[], None]) -> Iterator[None]:
    """Inside, `listen` is called at every beat of this thread; it must cost little."""
    token = _listening.set(listen)
    try:
        yield
    finally:
        _listening.reset(token)
