"""How long to wait for the Hub, and for what not at all."""

import time
from email.utils import formatdate

import httpx2
import pytest
from huggingface_hub.errors import HfHubHTTPError

from so8t.errors import ResourceError, StepFailed
from so8t.upload.retry import Backoff, asked_wait_s, explain, is_transient, patiently


def answer(status: int, **headers: str) -> HfHubHTTPError:
    """An error as the client raises it."""
    told = {name.replace("_", "-"): value for name, value in headers.items()}
    return HfHubHTTPError(
        "no", response=httpx2.Response(status, headers=told, request=httpx2.Request("GET", "http://x"))
    )


@pytest.mark.parametrize("seconds", [7, 0])
def test_what_the_server_asks_for_is_waited(seconds):
    assert asked_wait_s(answer(429, Retry_After=str(seconds))) == seconds


def test_a_date_that_the_server_gives_is_waited_for():
    date = formatdate(time.time() + 3600, usegmt=True)
    assert 3000 < asked_wait_s(answer(429, Retry_After=date)) <= 3600


@pytest.mark.parametrize("text", ["", "soon", formatdate(0, usegmt=True)])
def test_what_is_no_time_to_come_is_not_waited(text):
    assert not asked_wait_s(answer(503, Retry_After=text))


def test_waits_are_jittered_bounded_and_at_least_what_was_asked():
    backoff = Backoff(first_s=1.0, longest_s=100.0)
    waits = [backoff.wait_s(5, None) for _ in range(200)]
    assert 0 <= min(waits) < 8
    assert 24 < max(waits) <= 32
    assert backoff.wait_s(60, None) <= 100.0
    assert backoff.wait_s(0, 50.0) == 50.0
    assert backoff.wait_s(0, 1e9) == 100.0


def send_part():
    try:
        raise answer(503)
    except HfHubHTTPError as error:
        raise RuntimeError("Error while uploading a part") from error


def test_causes_are_walked_through():
    """A failed part of a large file is a RuntimeError; hf_xet raises the builtin ConnectionError."""
    with pytest.raises(RuntimeError) as wrapped:
        send_part()
    assert is_transient(wrapped.value)
    assert is_transient(ConnectionError("xet"))
    assert is_transient(httpx2.ReadTimeout("silent"))
    assert not any(is_transient(answer(status)) for status in (400, 401, 403, 404, 412, 413, 422))


@pytest.mark.parametrize(("status", "kind"), [(401, ResourceError), (403, ResourceError), (404, StepFailed)])
def test_what_no_patience_mends_stops_at_the_first_try(status, kind):
    tries = []

    def act():
        tries.append(1)
        raise answer(status)

    with pytest.raises(kind):
        patiently(act, "acting", Backoff(first_s=0.0), lambda text: None)
    assert len(tries) == 1
    assert isinstance(explain(answer(status), "acting"), kind)


def test_fault_of_our_own_file_is_not_the_networks():
    def act():
        raise FileNotFoundError("model.gguf")

    with pytest.raises(FileNotFoundError):
        patiently(act, "sending", Backoff(), lambda text: None)
