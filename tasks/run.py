"""What is the same of every flow that walks through steps: its notes, its stop, its children."""

from collections.abc import Iterator
from contextlib import contextmanager

from so8t import child, fence
from so8t.attempt import recorded
from so8t.config import Config
from so8t.errors import Interrupted
from tasks.steps import Reference


@contextmanager
def walked(config: Config) -> Iterator[list[Reference]]:
    """Give a list for the references; however the walk ends, it is noted and no child is left behind."""
    with recorded(config.home(), fence.current(), config.notify) as made:
        try:
            yield made
        except Interrupted as stop:
            # Prefect calls a run Failed by an Exception and Crashed by anything else; what crashed is resumed.
            raise KeyboardInterrupt(str(stop)) from stop
        finally:
            # Whatever ends the walk, a child that still works saves and stops before this process goes.
            child.stop_all()
