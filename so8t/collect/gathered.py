"""What one source gives: rows, refused rows and the evidence of where they came from."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from so8t.collect.shards import Shards
from so8t.progress import Progress
from so8t.records import Record


@dataclass
class Gathered:
    """Rows of one source, rows set aside with a reason, and JSON-able evidence; `facts` are what the clock decides.

    A source of any size keeps its rows in `shards`; the lists are then empty.
    """

    records: list[Record]
    refused: list[tuple[Record, str]] = field(default_factory=list)
    evidence: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    shards: tuple[Shards, ...] = ()

    def rows(self) -> Iterator[Record]:
        """The rows, as often as they are asked for."""
        return chain(self.records, *(part.kept() for part in self.shards))

    def set_aside(self) -> Iterator[tuple[Record, str]]:
        """The refused rows with their reasons."""
        return chain(self.refused, *(part.refused() for part in self.shards))


def content_revision(records: Iterable[Record]) -> str:
    """40 hex digits of a hash over what the rows say: the revision of data without a commit."""
    digest = hashlib.sha256()
    for record in records:
        fields = (record.id, record.language, record.prompt, record.response, str(record.label), record.licence)
        digest.update("\x1f".join(fields).encode("utf-8") + b"\x1e" + record.media)
    return digest.hexdigest()[:40]


def note(progress: Progress, problem: str) -> None:
    """Say what somebody should know of, where it is also found afterwards."""
    progress.update(0, None, problem)
    if progress.session is not None:
        progress.session.update(problems=[*progress.session.session.problems, problem])
