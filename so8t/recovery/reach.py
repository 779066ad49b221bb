"""Whether a server answers: one cheap request to its root, by which nothing is asked of it."""

import os
import random

from so8t.waits import asked_s

TIMEOUT_S = 10.0
HUB = "https://huggingface.co"
BUSY = frozenset({408, 425, 429})


def hub() -> str:
    """The Hub in force."""
    return os.environ.get("HF_ENDPOINT") or HUB


def refusal(endpoint: str) -> tuple[str, float] | None:
    """Why a server does not answer, and the seconds that it wants to be left alone; None where it answers."""
    import httpx

    try:
        answer = httpx.get(endpoint, timeout=TIMEOUT_S, follow_redirects=False)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return f"{type(error).__name__}: {error}".rstrip(": "), 0.0
    if answer.status_code in BUSY or answer.status_code >= 500:
        return f"it answers {answer.status_code}", asked_s(answer.headers.get("Retry-After")) or 0.0
    return None


def pause_s(tries: int, first_s: float, longest_s: float, asked_s: float = 0.0) -> float:
    """Full jitter: anything up to min(`longest_s`, `first_s` * 2^tries), but what the server asked for at least."""
    return max(asked_s, random.uniform(0, min(longest_s, first_s * 2 ** min(tries, 30))))  # noqa: S311
