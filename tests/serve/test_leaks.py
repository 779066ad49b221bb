"""Replies of every malformed kind, cut anywhere, through the whole server: nothing of the thinking in response or log."""

import asyncio
import random

import pytest

from so8t.labels import Label
from so8t.serve.gate import judge
from so8t.serve.wording import INSTEAD
from so8t.thinking import APOLOGY
from tests.serve.adversary import leaks, replies
from tests.serve.rig import Scripted, rig, streamed

FIXED = {APOLOGY["en"], INSTEAD[Label.ESCALATION]["en"]}


def expected(reply: str) -> str:
    """What a client must get, by the plain parser."""
    verdict = judge(reply)
    if not verdict.well_formed:
        return APOLOGY["en"]
    return verdict.final if verdict.label is not None else INSTEAD[Label.ESCALATION]["en"]


async def converse(made, scripted, seed: int, count: int) -> dict[str, int]:
    """Ask `count` times, by both endpoints, whole and streamed; give how often each thing was answered."""
    draw, found = random.Random(seed), {"answered": 0, "fixed": 0, "streamed": 0}  # noqa: S311
    async with made.client() as client:
        for reply in replies(seed, count):
            scripted.reply = reply
            stream, think = draw.random() < 0.5, draw.random() < 0.5
            body = {"prompt": "?"} if think else {"messages": [{"role": "user", "content": "?"}]}
            response = await client.post("/think" if think else "/v1/chat/completions", json={**body, "stream": stream})
            assert response.status_code == 200
            assert not leaks(response.content), reply
            if stream:
                text, _ = streamed(response.text)
            else:
                told = response.json()
                text = told["final"] if think else told["choices"][0]["message"]["content"]
            assert text == expected(reply)
            found["streamed"] += stream
            found["fixed" if text in FIXED else "answered"] += 1
    return found


@pytest.mark.parametrize("count", [1000, pytest.param(10_000, marks=pytest.mark.soak)])
def test_no_thinking_in_any_response_or_log(tmp_path, count):
    scripted = Scripted()
    with rig(scripted, tmp_path / "serve") as made:
        found = asyncio.run(converse(made, scripted, 11, count))
        log = made.log()
    assert not leaks(log)
    assert len(log.splitlines()) == count
    # The test would see nothing if everything were refused, or nothing.
    assert min(found.values()) > count / 20
