"""A checkpoint that is asked for by hand: a file in the session's folder, and another one as the answer.

Read by the training between two steps; written by `so8t checkpoint save`.
"""

import secrets
from dataclasses import asdict, dataclass
from pathlib import Path

from so8t import durable
from so8t.loop.writer import Saved

REQUEST, ANSWER = "checkpoint-request.json", "checkpoint-answer.json"


@dataclass(frozen=True)
class Request:
    """`tag` keeps the checkpoint from being pruned."""

    id: str
    tag: str


def ask(folder: Path, tag: str) -> str:
    """Leave a request in the session's folder; its id."""
    request = Request(secrets.token_hex(8), tag)
    durable.write_json(folder / REQUEST, asdict(request))
    return request.id


def answer_to(folder: Path, request_id: str) -> str | None:
    """Where the checkpoint lies; None as long as there is none."""
    try:
        answer = durable.read_json(folder / ANSWER)
        return str(answer["checkpoint"]) if answer["id"] == request_id else None
    except (FileNotFoundError, ValueError, KeyError):
        return None


def withdraw(folder: Path) -> None:
    """Take the request back."""
    durable.retry_sharing(lambda: (folder / REQUEST).unlink(missing_ok=True))


class Requests:
    """The training's side."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._path = folder, folder / REQUEST
        self._taken: Request | None = None

    def pending(self) -> Request | None:
        """What is asked for now; costs one look at the folder's entry."""
        if not self._path.exists():
            return None
        try:
            return Request(**durable.read_json(self._path))
        except (FileNotFoundError, ValueError, TypeError):
            # Withdrawn in this moment, or of another version: nobody would wait for the answer.
            withdraw(self._folder)
            return None

    def take(self, request: Request | None) -> None:
        """The save that begins now is the one that was asked for."""
        self._taken = request

    def answer(self, saved: Saved) -> None:
        """Say where it lies, once it is durable."""
        if self._taken is not None:
            durable.write_json(self._folder / ANSWER, {"id": self._taken.id, "checkpoint": str(saved.path)})
            withdraw(self._folder)
            self._taken = None
