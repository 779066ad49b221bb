"""From a conversation to what its sender gets: class, gate, fixed answers, and the line in the audit log.

Runs in the one thread that may use the model. Nothing leaves before its line is in the audit log.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from so8t.labels import Label, precedent
from so8t.serve import wording
from so8t.serve.audit import AuditLog
from so8t.serve.gate import Gate, Verdict
from so8t.serve.model import Count, Sampling, Writer
from so8t.serve.prompt import BadRequest, Turn

if TYPE_CHECKING:
    from so8t.classifier import Classifier

Outcome = Literal["answered", "replaced", "malformed"]
Finish = Literal["stop", "length", "content_filter"]


class TimedOut(Exception):
    """The reply took longer than it may."""


class Cancelled(Exception):
    """Nobody waits for the reply any more, or the server stops."""


@dataclass(frozen=True)
class Question:
    """What is asked, and how."""

    id: str
    endpoint: str
    turns: tuple[Turn, ...]
    image: bytes  # PNG of the tower's size, or nothing
    sampling: Sampling
    stream: bool

    @property
    def text(self) -> str:
        """The last turn's words."""
        return self.turns[-1].text


@dataclass(frozen=True)
class Answer:
    """What leaves."""

    text: str
    decision: Label
    outcome: Outcome
    finish: Finish
    count: Count


@dataclass
class Answering:
    """Everything an answer needs but its question."""

    writer: Writer
    audit: AuditLog
    served: dict[str, str]  # what the audit log says of the model: names and hashes
    classifier: "Classifier | None" = None
    clock: Callable[[], float] = field(default=time.monotonic)

    def answer(self, asked: Question, check: Callable[[], None], begun: Callable[[], None]) -> Answer:
        """Write the reply and judge it; `begun` is called once the prompt was read.

        Raises BadRequest, and what `check` raises; these too are in the log.
        """
        started, count, gate, floor = self.clock(), Count(), Gate(), Label.ESCALATION
        try:
            for number, piece in enumerate(self.writer.write(asked.turns, asked.image, asked.sampling, count, check)):
                if number == 0:
                    # Only what fits the model's context: the classifier would read any length, and nothing could stop it.
                    floor = self._classify(asked.turns)
                    begun()
                gate.feed(piece)
                if gate.broken:
                    break
            answer = decide(gate.close(), floor, asked.text, count)
        except BaseException as error:
            self._log(asked, "", gate, count, started, outcome=_name(error), decision=None)
            raise
        self._log(asked, answer.text, gate, count, started, outcome=answer.outcome, decision=answer.decision.name)
        return answer

    def _classify(self, turns: Sequence[Turn]) -> Label:
        """The strictest class of what the user wrote, by the classifier; without one no floor."""
        if self.classifier is None:
            return Label.ALLOW
        return precedent(self.classifier.decide([turn.text for turn in turns if turn.role == "user"]))

    def _log(self, asked: Question, answer: str, gate: Gate, count: Count, started: float, **facts: Any) -> None:
        sign = self.audit.key.sign
        sampling = asked.sampling
        self.audit.write(
            id=asked.id, endpoint=asked.endpoint, stream=asked.stream, **self.served,
            prompt_hmac=sign(prompt_text(asked.turns)), image_hmac=sign(asked.image.hex()) if asked.image else None,
            thinking_hmac=sign(gate.thinking()), answer_hmac=sign(answer),
            probability=round(count.probability, 6), prompt_tokens=count.prompt_tokens,
            reply_tokens=count.reply_tokens, latency_s=round(self.clock() - started, 3),
            temperature=sampling.temperature, top_p=sampling.top_p, seed=sampling.seed, max_tokens=sampling.max_tokens,
            **facts,
        )  # fmt: skip


def decide(verdict: Verdict, floor: Label, question: str, count: Count) -> Answer:
    """What leaves of a judged reply. No class is ESCALATION, and a class below the floor counts as the floor."""
    named = Label.ESCALATION if verdict.label is None else verdict.label
    decision = precedent([named, floor])
    if not verdict.well_formed:
        finish: Finish = "length" if verdict.truncated and count.full else "content_filter"
        decision = precedent([decision, Label.ESCALATION])
        return Answer(wording.apology(question), decision, "malformed", finish, count)
    if verdict.label is None or decision != verdict.label:
        return Answer(wording.instead(decision, question), decision, "replaced", "content_filter", count)
    return Answer(verdict.final, decision, "answered", "stop", count)


def prompt_text(turns: Sequence[Turn]) -> str:
    """The text whose HMAC the audit log holds: JSON of [role, text] pairs, as `json.dumps` writes it without spaces."""
    return json.dumps([[turn.role, turn.text] for turn in turns], ensure_ascii=False, separators=(",", ":"))


def _name(error: BaseException) -> str:
    names = {TimedOut: "timeout", Cancelled: "cancelled", BadRequest: "refused"}
    return next((name for kind, name in names.items() if isinstance(error, kind)), f"error:{type(error).__name__}")
