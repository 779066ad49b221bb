"""What a look tells: one thing that is so now, or that happened once."""

from dataclasses import dataclass
from typing import Literal

Severity = Literal["note", "warn"]


@dataclass(frozen=True)
class Finding:
    """`kind` and `subject` tell it from others: the same finding is told once, as long as it stands.

    `once`: it happened, and does not stand until it is mended.
    """

    kind: str  # fault, stall, interrupted, crash-loop, disk, memory, gpu, server, worker, clock, leftovers
    subject: str
    severity: Severity
    found: str
    do: str = ""
    once: bool = False

    @property
    def fingerprint(self) -> str:
        """The same for the same thing, whatever numbers its text holds now."""
        return f"{self.kind}: {self.subject}"


@dataclass(frozen=True)
class Action:
    """What was done about a finding, or would be."""

    kind: str
    subject: str
    did: str
    outcome: str
