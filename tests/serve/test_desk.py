"""The line: who is admitted, who is told to come again, what happens to those who leave or wait too long."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator, Sequence

import pytest

from so8t.labels import Label
from so8t.serve.answer import Question
from so8t.serve.config import Serve
from so8t.serve.desk import Busy, Stopping
from so8t.serve.model import Count, Sampling
from so8t.serve.prompt import Turn
from so8t.thinking import render
from tests.serve.rig import rig

GOOD = render("①", Label.ALLOW, "②", "③", "Fine.")
ASK = {"prompt": "x"}


class Held:
    """A writer that writes when it is let, looking at `check` all the while."""

    def __init__(self) -> None:
        self.let, self.started, self.calls = threading.Event(), threading.Event(), 0

    def write(
        self, turns: Sequence[Turn], image: bytes, sampling: Sampling, count: Count, check: Callable[[], None]
    ) -> Iterator[str]:
        self.calls += 1
        self.started.set()
        yield ""
        while not self.let.wait(0.01):
            check()
        yield GOOD


@pytest.fixture
def held():
    return Held()


def outcomes(made) -> list[str]:
    return [json.loads(line)["outcome"] for line in made.log().splitlines()]


async def begun(writer) -> None:
    await asyncio.to_thread(writer.started.wait, 30)


def test_one_is_served_some_wait_more_are_turned_away(tmp_path, held):
    async def scene(made):
        async with made.client() as client:
            inside = [asyncio.create_task(client.post("/think", json=ASK)) for _ in range(3)]
            await begun(held)
            while made.desk.taken < 3:
                await asyncio.sleep(0.01)
            refused = await client.post("/think", json=ASK)
            assert (refused.status_code, refused.json()["error"]["type"]) == (503, "overloaded_error")
            assert 1 <= int(refused.headers["retry-after"]) <= 120
            assert (await client.get("/health")).json()["inside"] == 3
            held.let.set()
            assert [done.json()["final"] for done in await asyncio.gather(*inside)] == ["Fine."] * 3
            assert (await client.post("/think", json=ASK)).status_code == 200
            assert made.desk.taken == 0

    with rig(held, tmp_path / "serve", Serve(queue=2)) as made:
        asyncio.run(scene(made))
    assert outcomes(made) == ["answered"] * 4


def test_who_waits_too_long_is_told_and_never_served(tmp_path, held):
    async def scene(made):
        async with made.client() as client:
            first = asyncio.create_task(client.post("/think", json=ASK))
            await begun(held)
            late = await client.post("/think", json={**ASK, "stream": True})
            assert late.status_code == 503
            assert "retry-after" in late.headers
            held.let.set()
            assert (await first).status_code == 200

    with rig(held, tmp_path / "serve", Serve(queue_s=0.3)) as made:
        asyncio.run(scene(made))
    assert held.calls == 1


@pytest.mark.parametrize("stream", [False, True])
def test_a_reply_that_takes_too_long_ends(tmp_path, held, stream):
    async def scene(made):
        async with made.client() as client:
            return await client.post("/think", json={**ASK, "stream": stream})

    with rig(held, tmp_path / "serve", Serve(reply_s=0.2)) as made:
        response = asyncio.run(scene(made))
    assert response.status_code == (200 if stream else 504)
    assert "took too long" in response.text
    assert outcomes(made) == ["timeout"]


def test_who_leaves_is_not_served(tmp_path, held):
    question = Question("q", "/think", (Turn("user", "x"),), b"", Sampling(0, 1, 0, 9), stream=False)

    async def scene(made):
        async def follow():
            async for _ in made.desk.ask(question):
                pass

        served, waiting = asyncio.create_task(follow()), None
        await begun(held)
        waiting = asyncio.create_task(follow())
        await asyncio.sleep(0.05)
        for task in (waiting, served):
            task.cancel()
        await asyncio.gather(served, waiting, return_exceptions=True)

    with rig(held, tmp_path / "serve") as made:
        asyncio.run(scene(made))
        made.desk.close()
    assert held.calls == 1
    assert outcomes(made) == ["cancelled"]


def test_a_stop_ends_what_runs_after_its_grace_and_takes_nobody_in(tmp_path, held):
    async def scene(made):
        async with made.client() as client:
            tasks = [asyncio.create_task(client.post("/think", json=ASK)) for _ in range(2)]
            await begun(held)
            made.desk.stop(0.1)
            assert [response.status_code for response in await asyncio.gather(*tasks)] == [503, 503]
            assert (await client.post("/think", json=ASK)).status_code == 503
            assert (await client.get("/health")).status_code == 503

    with rig(held, tmp_path / "serve") as made:
        asyncio.run(scene(made))
        with pytest.raises(Stopping):
            made.desk.enter()
    assert held.calls == 1


def test_a_body_that_does_not_come_gives_its_place_back(tmp_path, held):
    async def scene(made):
        sent = []

        async def send(message):
            sent.append(message)

        async def receive():
            await asyncio.sleep(60)

        scope = {
            "type": "http",
            "method": "POST",
            "path": "/think",
            "headers": [(b"host", b"localhost")],
            "query_string": b"",
        }
        await made.app(scope, receive, send)
        return sent[0]["status"]

    with rig(held, tmp_path / "serve", Serve(body_s=0.1)) as made:
        assert asyncio.run(scene(made)) == 408
        assert made.desk.taken == 0


def test_the_pause_that_is_asked_for_grows_with_the_line(tmp_path, held):
    with rig(held, tmp_path / "serve", Serve(queue=3)) as made:
        for _ in range(4):
            made.desk.enter()
        with pytest.raises(Busy) as full:
            made.desk.enter()
    assert full.value.retry_s == 4
