"""The two forms in which an answer leaves: our own, and OpenAI's chat completion; both whole or as events."""

import json
import secrets
import time
from typing import Any, Protocol

from so8t.serve.answer import Answer
from so8t.serve.guards import error_body

DONE = b"data: [DONE]\n\n"


class Shape(Protocol):
    """One response."""

    id: str

    def whole(self, answer: Answer) -> dict[str, Any]:
        """The body."""

    def opening(self) -> bytes:
        """The first event."""

    def closing(self, answer: Answer) -> bytes:
        """The answer and the end."""

    def failed(self, message: str) -> bytes:
        """The end of what failed on the way."""


class Thought:
    """`{"id", "final", "decision", "outcome", "usage"}`; as events `{"final"}` and then all of it but the final."""

    def __init__(self) -> None:
        self.id = f"think-{secrets.token_hex(12)}"

    def whole(self, answer: Answer) -> dict[str, Any]:
        """The body."""
        return {"id": self.id, "final": answer.text, **self._end(answer)}

    def opening(self) -> bytes:
        """The id."""
        return _event({"id": self.id})

    def closing(self, answer: Answer) -> bytes:
        """The final, what was decided, and the end."""
        return _event({"final": answer.text}) + _event(self._end(answer)) + DONE

    def failed(self, message: str) -> bytes:
        """An error and the end."""
        return _event(error_body(message, "server_error")) + DONE

    def _end(self, answer: Answer) -> dict[str, Any]:
        return {"decision": answer.decision.name, "outcome": answer.outcome, "usage": _usage(answer)}


class Completion:
    """OpenAI's chat completion, with `decision` and `outcome` beside its own fields."""

    def __init__(self, model: str, usage: bool) -> None:
        self.id, self._model, self._usage = f"chatcmpl-{secrets.token_hex(12)}", model, usage
        self._created = int(time.time())

    def whole(self, answer: Answer) -> dict[str, Any]:
        """The body."""
        message = {"role": "assistant", "content": answer.text}
        choice = {"index": 0, "message": message, "finish_reason": answer.finish, "logprobs": None}
        return {**self._head("chat.completion"), "choices": [choice], "usage": _usage(answer), **_judged(answer)}

    def opening(self) -> bytes:
        """The role."""
        return self._chunk({"role": "assistant", "content": ""})

    def closing(self, answer: Answer) -> bytes:
        """The content, the reason for the end, the usage if asked for, and the end."""
        told = self._chunk({"content": answer.text}) + self._chunk({}, answer.finish, **_judged(answer))
        if self._usage:
            told += _event({**self._head("chat.completion.chunk"), "choices": [], "usage": _usage(answer)})
        return told + DONE

    def failed(self, message: str) -> bytes:
        """An error and the end."""
        return _event(error_body(message, "server_error")) + DONE

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self._created, "model": self._model}

    def _chunk(self, delta: dict[str, Any], finish: str | None = None, **more: Any) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}
        return _event({**self._head("chat.completion.chunk"), "choices": [choice], **more})


def _judged(answer: Answer) -> dict[str, str]:
    return {"decision": answer.decision.name, "outcome": answer.outcome}


def _usage(answer: Answer) -> dict[str, int]:
    """Tokens; those of the thinking count as written."""
    count = answer.count
    return {
        "prompt_tokens": count.prompt_tokens,
        "completion_tokens": count.reply_tokens,
        "total_tokens": count.prompt_tokens + count.reply_tokens,
    }


def _event(value: object) -> bytes:
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n".encode()
