"""How far the client is with a large file, which it tells progress bars alone: here they are ears instead.

huggingface_hub 2.4 offers no callback for a commit's files. A file that goes by LFS is read through
`CommitOperationAdd.as_file`; hf_xet reports to a class that the library looks up when it sends. The test of the upload
by hf_xet fails where a later version no longer does.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from typing import Any, BinaryIO

from huggingface_hub import CommitOperationAdd, utils

Tell = Callable[[int], object]  # bytes so far


class Addition(CommitOperationAdd):  # type: ignore[misc]  # the library is seen without its types
    """A file to be sent; `tell` hears how far it has been read."""

    tell: Tell | None = None

    @contextmanager
    def as_file(self, with_tqdm: bool = False) -> Iterator[BinaryIO]:
        """As the library's, without a bar."""
        with super().as_file() as file:
            if with_tqdm and self.tell is not None:
                _tell_reads(file, self.tell)
            yield file


def _tell_reads(file: Any, tell: Tell) -> None:
    read = file.read

    def reading(size: int | None = -1) -> bytes:
        data: bytes = read(size)
        tell(file.tell())
        return data

    file.read = reading


@contextmanager
def heard(tell: Tell) -> Iterator[None]:
    """Inside, `tell` hears of what hf_xet sends, from a thread of its own, in the context of the caller.

    Nothing where the library has its reporter no more: what is sent is sent all the same, after a run of days.
    """
    try:
        from huggingface_hub.utils import _xet_progress_reporting as reporting
    except ImportError:
        yield
        return
    context, one_at_a_time = copy_context(), threading.Lock()

    class Ears:
        """In the place of the library's bars."""

        def __init__(self) -> None:
            self._sent = (0, 0)

        def update_progress(self, group: Any, items: Any) -> None:
            """It is called by a clock, so only another number is news."""
            sent = (group.total_bytes_completed, group.total_transfer_bytes_completed)
            with one_at_a_time:
                if sent != self._sent:
                    self._sent = sent
                    context.run(tell, sent[1])

        def close(self) -> None:
            """Nothing was opened."""

    bars, disabled = reporting.XetUploadProgressReporter, utils.are_progress_bars_disabled
    reporting.XetUploadProgressReporter, utils.are_progress_bars_disabled = Ears, lambda name=None: False
    try:
        yield
    finally:
        reporting.XetUploadProgressReporter, utils.are_progress_bars_disabled = bars, disabled
