"""GRPO, images, accumulated gradients, a static cache, roll-backs: killed anywhere, the bytes are the same."""

import json
import random
import signal
import time

import pytest

from so8t.artifacts import hash_file
from so8t.loop.checkpoint import Checkpoints
from tests.train import tiny

# Inside a rollout's buffer, at a review, in the next update; where the last roll-back ends the phase.
KILLS = {
    "grpo": ("ppo 2/9", "ppo 5/9", "ppo 7/9"),
    "destroyed": ("ppo 3/29", "ppo 5/29", "ppo 10/10"),
}


def state(home) -> dict[str, str]:
    """The artifact, and the last checkpoint: adapters, optimizer, RNG, metrics, history."""
    folder = home / "sessions" / f"train-{tiny.KEY[:12]}" / "checkpoints"
    final = folder / next(name for name in Checkpoints(folder, 5).names() if name.startswith("final"))
    return tiny.bytes_of(home) | {path.name: hash_file(path) for path in final.iterdir()}


@pytest.fixture(scope="module", params=KILLS)
def undisturbed(request, world, tmp_path_factory):
    home = tmp_path_factory.mktemp(request.param)
    tiny.train(world, home, interval_s=1000.0, config=tiny.CONFIGS[request.param])
    return request.param, home


def rows_of(home) -> list[dict[str, float]]:
    lines = (tiny.output(home) / "history.jsonl").read_text(encoding="utf-8").splitlines()
    return [row for row in map(json.loads, lines) if row["phase"] == "ppo"]


def test_killed_in_each_part_of_an_update_it_ends_in_the_same_bytes(undisturbed, world, forge, tmp_path):
    name, whole = undisturbed
    for seen in KILLS[name]:
        assert forge.start(world, tmp_path, 0.01, 0, "auto", name).stop_when(seen, signal.SIGKILL) == -9
    assert forge.start(world, tmp_path, 0.01, 0, "auto", name).wait() == 0
    assert state(tmp_path) == state(whole)


def test_what_the_history_says(undisturbed):
    name, home = undisturbed
    rows = rows_of(home)
    metrics = json.loads((tiny.output(home) / "metrics.json").read_text(encoding="utf-8"))["ppo"]
    reviews = [row for row in rows if "held_out_reward" in row]
    if name == "grpo":
        assert len(rows) == 9
        assert [row["position"] for row in reviews] == [4]
        assert {"kl_loss", "approx_kl", "reward_echo"} <= set(rows[0])
        assert "v_loss" not in rows[0]
        assert metrics["rolled_back"] == []
        assert metrics["algorithm"] == "grpo"
        return
    # Twice destroyed, once allowed: the phase ends at the second review, 19 steps early.
    assert [row["position"] for row in reviews] == [4, 9]
    assert [(row["rolled_back"], row["rate"]) for row in reviews] == [(1.0, 0.5), (1.0, 0.25)]
    assert len(rows) == 10
    assert [event["ended"] for event in metrics["rolled_back"]] == [False, True]
    assert metrics["ended_early"]
    assert metrics["reward_after"] == metrics["reward_before"]
    assert metrics["anchor_perplexity"]["after"] == metrics["anchor_perplexity"]["before"]


@pytest.mark.soak
@pytest.mark.parametrize("interval_s", [0.01, 0.1])
def test_killed_at_random_moments(undisturbed, world, forge, tmp_path, interval_s):
    name, whole = undisturbed
    draw = random.Random(interval_s)  # noqa: S311
    last = len(rows_of(whole))
    for _ in range(10):
        process = forge.start(world, tmp_path, interval_s, 0, "auto", name)
        process.await_word(f"ppo {draw.randint(1, last)}/", "head")
        time.sleep(draw.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert forge.start(world, tmp_path, interval_s, 0, "auto", name).wait() == 0
    assert state(tmp_path) == state(whole)
