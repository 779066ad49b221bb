"""What one source gives: rows, refused rows and the evidence of where they came from."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from so8t.records import Record


@dataclass
class Gathered:
    """Rows of one source, rows set aside with a reason, and JSON-able evidence; `facts` are what the clock decides."""

    records: list[Record]
    refused: list[tuple[Record, str]] = field(default_factory=list)
    evidence: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


def content_revision(records: Iterable[Record]) -> str:
    """40 hex digits of a hash over what the rows say: the revision of data without a commit."""
    digest = hashlib.sha256()
    for record in records:
        fields = (record.id, record.language, record.prompt, record.response, str(record.label), record.licence)
        digest.update("\x1f".join(fields).encode("utf-8") + b"\x1e" + record.media)
    return digest.hexdigest()[:40]
