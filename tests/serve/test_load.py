"""Fifty clients at once on a real socket: an answer or a clean refusal, nothing else, and memory that stays."""

import asyncio
import os
import random
import time
from collections import Counter

import httpx
import psutil
import pytest

from tests.serve.rig import streamed
from tests.serve.test_server import serving
from tests.serve.tiny import CHATS, SECRET

CLIENTS = 50
SAMPLE_S = 0.5


async def talk(url: str, ends_at: float, seed: int, found: Counter[str]) -> None:
    """One client: both endpoints, whole and streamed; one in ten leaves before its answer."""
    draw = random.Random(seed)  # noqa: S311
    async with httpx.AsyncClient(base_url=url, timeout=120) as client:
        while time.monotonic() < ends_at:
            prompt, stream = draw.choice(list(CHATS)), draw.random() < 0.5
            body = {"messages": [{"role": "user", "content": prompt}], "stream": stream, "max_tokens": 60}
            if draw.random() < 0.1:
                try:
                    await client.post("/v1/chat/completions", json=body, timeout=draw.uniform(0.005, 0.2))
                    found["answered in time"] += 1
                except httpx.TimeoutException:
                    found["left"] += 1
                continue
            response = await client.post("/v1/chat/completions", json=body)
            found[str(response.status_code)] += 1
            assert SECRET not in response.text
            if response.status_code == 503:
                assert response.json()["error"]["type"] == "overloaded_error"
                assert 1 <= int(response.headers["retry-after"]) <= 120
                await asyncio.sleep(draw.uniform(0.05, 0.5))
            else:
                assert response.status_code == 200, response.text
                text = streamed(response.text)[0] if stream else response.json()["choices"][0]["message"]["content"]
                assert text in CHATS[prompt] or text.startswith("Sorry")


async def watch(process: psutil.Process, ends_at: float) -> list[int]:
    """Resident bytes of the server, now and then."""
    sizes = []
    while time.monotonic() < ends_at:
        sizes.append(process.memory_info().rss)
        await asyncio.sleep(SAMPLE_S)
    return sizes


async def crowd(url: str, pid: int, seconds: float) -> tuple[Counter[str], list[int]]:
    found: Counter[str] = Counter()
    ends_at = time.monotonic() + seconds
    sizes, *_ = await asyncio.gather(
        watch(psutil.Process(pid), ends_at), *(talk(url, ends_at, seed, found) for seed in range(CLIENTS))
    )
    return found, sizes


@pytest.mark.parametrize("seconds", [5.0, pytest.param(120.0, marks=pytest.mark.soak)])
def test_a_crowd_is_answered_or_asked_to_come_again(baked, tmp_path, seconds):
    with serving(baked, tmp_path / "home") as (process, url, said):
        found, sizes = asyncio.run(crowd(url, process.pid, seconds))
        health = httpx.get(f"{url}/health", timeout=60).json()
        assert health["status"] == "ok"
        process.terminate()
        assert process.wait(120) == 0
    third = len(sizes) // 3
    first, last = sum(sizes[:third]) / max(third, 1), sum(sizes[-third:]) / max(third, 1)
    told = f"{dict(found)}; {first / 1e6:.1f} MB in the first third, {last / 1e6:.1f} MB in the last"
    if "SO8T_SHOW" in os.environ:
        said.with_name("figures").write_text(told, encoding="utf-8")
    assert found["200"] > 0, told
    assert found["503"] > 0, told
    assert set(found) <= {"200", "503", "left", "answered in time"}, told
    if seconds > 60:
        assert last < 1.03 * first, told
    assert "Traceback" not in said.read_text(encoding="utf-8")
