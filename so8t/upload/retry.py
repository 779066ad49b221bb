"""Patience with the network: what is worth another try, what is not, and how long to wait."""

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import httpx2
from huggingface_hub.errors import HfHubHTTPError

from so8t.errors import ResourceError, StepFailed
from so8t.waits import asked_s

T = TypeVar("T")

TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504, 520, 522, 524})
# What the client raises for answers, lost connections and failed parts of large files: httpx2's own errors, OSError
# from hf_xet, RuntimeError around the failure of one file.
ERRORS = (httpx2.HTTPError, OSError, RuntimeError)


@dataclass(frozen=True)
class Backoff:
    """Full jitter: a wait is uniform between 0 and min(`longest_s`, `first_s` * 2^tries)."""

    first_s: float = 2.0
    longest_s: float = 900.0
    patience_s: float = 6 * 3600.0  # since the last success; then the step fails and may be retried as a whole

    def wait_s(self, tries: int, asked_s: float | None) -> float:
        """Pause before the next try; what the server asked for comes first."""
        jittered = random.uniform(0, min(self.longest_s, self.first_s * 2 ** min(tries, 30)))  # noqa: S311
        return max(jittered, min(asked_s or 0.0, self.longest_s))


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and its causes: a failed part of a large file is wrapped in RuntimeError."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def status_of(error: BaseException) -> int | None:
    """The HTTP status at the root of an error, if a server answered at all."""
    for cause in chain(error):
        if isinstance(cause, HfHubHTTPError) and cause.response is not None:
            return int(cause.response.status_code)
        if isinstance(cause, httpx2.HTTPStatusError):
            return int(cause.response.status_code)
    return None


def is_transient(error: BaseException) -> bool:
    """Whether the same request may succeed later."""
    status = status_of(error)
    if status is not None:
        return status in TRANSIENT
    return any(isinstance(cause, httpx2.TransportError | ConnectionError | TimeoutError) for cause in chain(error))


def asked_wait_s(error: BaseException) -> float | None:
    """Retry-After in seconds, where the server sent one."""
    for cause in chain(error):
        response = getattr(cause, "response", None)
        if response is not None:
            return asked_s(response.headers.get("Retry-After"))
    return None


def explain(error: BaseException, doing: str) -> Exception:
    """The error to raise for what no retry mends."""
    status = status_of(error)
    if status == 401:
        return ResourceError(
            f"the Hub does not accept the token (401) while {doing}",
            "a valid token with write access",
            "make one under Settings > Access Tokens, then set HF_TOKEN or run `hf auth login`",
        )
    if status == 403:
        return ResourceError(
            f"the token may not write there (403) while {doing}",
            "a token with write access to this repository, and a namespace that is yours",
            "check upload.target.repo_id and the token's permissions",
        )
    return StepFailed(f"the Hub refused ({status or type(error).__name__}) while {doing}: {_first_line(error)}")


def _first_line(error: BaseException) -> str:
    """The message without the request's details."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__


def patiently(
    action: Callable[[], T],
    doing: str,
    backoff: Backoff,
    report: Callable[[str], None],
    reconcile: Callable[[], T | None] = lambda: None,
) -> T:
    """Run `action` until it succeeds, its error is final, or patience ends.

    After a lost connection the request may have been carried out: `reconcile` looks, and gives the
    result if so.
    """
    deadline = time.monotonic() + backoff.patience_s
    tries = 0
    while True:
        try:
            if tries > 0 and (done := reconcile()) is not None:
                return done
            return action()
        except ERRORS as error:
            if status_of(error) is None and isinstance(error, OSError) and not is_transient(error):
                raise  # a file of ours, not the network
            if not is_transient(error):
                raise explain(error, doing) from error
            pause_s = backoff.wait_s(tries, asked_wait_s(error))
            if time.monotonic() + pause_s > deadline:
                raise StepFailed(
                    f"no success in {backoff.patience_s:.0f} s of {doing}: {_first_line(error)}"
                ) from error
            report(f"{doing}: {status_of(error) or type(error).__name__}, again in {pause_s:.0f} s")
        time.sleep(pause_s)
        tries += 1
