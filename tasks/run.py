"""What is the same of every flow that walks through steps: its notes, its stop, its children."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from so8t import child, fence
from so8t.attempt import recorded
from so8t.config import Config
from so8t.errors import InputLost, Interrupted
from so8t.overview import asked
from so8t.step import NotReady
from tasks.overview import shown
from tasks.steps import Reference

# Each artifact is made again once; this is for those that a run finds one after the other.
WALKS_MAX = 5


@contextmanager
def walked(config: Config) -> Iterator[list[Reference]]:
    """Give a list for the references; however the walk ends, it is noted and no child is left behind."""
    with recorded(config.home(), fence.current(), config.notify) as made:
        try:
            if (session := fence.current()) is not None:
                asked.note(session.folder, config)
            with shown(config):
                yield made
        except Interrupted as stop:
            # Prefect calls a run Failed by an Exception and Crashed by anything else; what crashed is resumed.
            raise KeyboardInterrupt(str(stop)) from stop
        finally:
            # Whatever ends the walk, a child that still works saves and stops before this process goes.
            child.stop_all()


def remaking(walk: Callable[[], None], made: list[Reference]) -> None:
    """Walk; once more from the top where an input was found damaged and set aside: what is whole is Cached."""
    for _ in range(WALKS_MAX - 1):
        try:
            walk()
        except (InputLost, NotReady):
            made.clear()
        else:
            return
    walk()
