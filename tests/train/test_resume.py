"""Killed anywhere, training ends in the very bytes of a training that nobody disturbed."""

import json
import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch

from so8t.artifacts import hash_file
from so8t.loop.checkpoint import Checkpoints
from so8t.session import read
from tests.train import tiny

SESSION = f"train-{tiny.KEY[:12]}"


def checkpoints(home: Path) -> Path:
    return home / "sessions" / SESSION / "checkpoints"


def test_it_trains_and_says_what_it_did(whole):
    metrics = json.loads((tiny.output(whole) / "metrics.json").read_text(encoding="utf-8"))
    assert set(metrics) == set(tiny.STEPS)
    assert metrics["ppo"]["reward_before"]["n"] == 4
    rows = [
        json.loads(line) for line in (tiny.output(whole) / "history.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    counts = {phase: sum(row["phase"] == phase for row in rows) for phase in metrics}
    assert counts == tiny.STEPS
    first = next(row for row in rows if row["phase"] == "ppo")
    assert {"reward", "kl", "reward_unsafe_allow", "reward_missing_end", "clipfrac"} <= set(first)
    session = read(whole / "sessions" / SESSION)
    assert session.completed
    assert session.checkpoints[-1] == f"final-{tiny.TOTAL}"
    assert session.current_step == session.total_steps == tiny.TOTAL
    logged = (whole / "progress_logs" / f"{SESSION}.jsonl").read_text(encoding="utf-8").splitlines()
    assert {"tokens_per_s", "loss", "rss_bytes"} <= set(json.loads(logged[-1]))


def test_another_run_gives_the_same_bytes_whatever_the_interval(world, whole, tmp_path):
    tiny.train(world, tmp_path, interval_s=1000.0)
    assert tiny.bytes_of(tmp_path) == tiny.bytes_of(whole)


KILLS = (
    "tower 1/2", "tower: measuring", "align 2/3", "align: measuring", "warmup 1/5", "warmup 3/5", "ppo 1/8", "ppo 3/8",
    "ppo 6/8", "ppo: measuring", "alpha 2/5", "head 2/4",
)  # fmt: skip


def test_sigkill_again_and_again_ends_in_the_same_bytes(world, whole, forge, tmp_path):
    for seen in KILLS:
        assert forge.start(world, tmp_path).stop_when(seen, signal.SIGKILL) == -9
    assert forge.start(world, tmp_path).wait() == 0
    assert tiny.bytes_of(tmp_path) == tiny.bytes_of(whole)
    assert final_bytes(tmp_path) == final_bytes(whole)
    session = read(tmp_path / "sessions" / SESSION)
    assert session.attempts == len(KILLS) + 1
    assert session.problems == []


def final_bytes(home: Path) -> dict[str, str]:
    """Of the last checkpoint: adapters, optimizer, RNG, metrics, history."""
    return {path.name: hash_file(path) for path in (checkpoints(home) / f"final-{tiny.TOTAL}").iterdir()}


UPDATES = [f"{name} {i}/{n}" for name, n in tiny.STEPS.items() for i in range(1, n + 1)]


@pytest.mark.soak
@pytest.mark.parametrize("interval_s", [0.01, 0.15])
def test_sigkill_at_twenty_random_updates(world, whole, forge, tmp_path, interval_s):
    """As many trainings as twenty kills take: a process that is killed late may have written the next update's word."""
    draw, kills = random.Random(interval_s), list[int]()  # noqa: S311
    while sum(kills) < 20:
        home = tmp_path / str(len(kills))
        kills.append(0)
        for word in sorted(draw.sample(UPDATES, 10), key=UPDATES.index):
            process = forge.start(world, home, interval_s)
            if process.await_word(word):
                time.sleep(draw.uniform(0, 0.03))
                process.send_signal(signal.SIGKILL)
            code = process.wait()
            assert code in {0, -9}
            kills[-1] += code == -9
        assert forge.start(world, home, interval_s).wait() == 0
        assert tiny.bytes_of(home) == tiny.bytes_of(whole)
        assert final_bytes(home) == final_bytes(whole)
        assert read(home / "sessions" / SESSION).problems == []
    print(f"{sum(kills)} kills in {len(kills)} trainings, a checkpoint every {interval_s} s")  # noqa: T201


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM to catch")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_at_once_and_the_next_start_goes_on(world, whole, forge, tmp_path, number, code):
    assert forge.start(world, tmp_path).stop_when("ppo 2/8", number) == code
    newest = Checkpoints(checkpoints(tmp_path), 5).names()[-1]
    assert int(newest.split("-")[1]) >= 15
    assert f"is saved in {newest}" in (tmp_path / "error.txt").read_text(encoding="utf-8")
    session = read(tmp_path / "sessions" / SESSION)
    assert session.status == "interrupted"
    assert session.checkpoints[-1] == newest
    assert forge.start(world, tmp_path).wait() == 0
    assert tiny.bytes_of(tmp_path) == tiny.bytes_of(whole)


def test_a_damaged_newest_checkpoint_falls_back_and_is_reported(world, whole, forge, tmp_path):
    forge.start(world, tmp_path).stop_when("ppo 5/8", signal.SIGKILL)
    newest = max(checkpoints(tmp_path).glob("*-*[0-9]"), key=lambda path: int(path.name.split("-")[1]))
    data = bytearray((newest / "tensors.safetensors").read_bytes())
    data[-100] ^= 4
    (newest / "tensors.safetensors").write_bytes(data)
    facts = tiny.train(world, tmp_path)
    assert tiny.bytes_of(tmp_path) == tiny.bytes_of(whole)
    assert len(facts["damaged_checkpoints"]) == 1
    assert newest.with_name(newest.name + ".damaged-1").is_dir()


def test_a_completed_session_only_writes_its_files_again(world, whole, tmp_path):
    tiny.train(world, tmp_path)
    for path in tiny.output(tmp_path).rglob("*.safetensors"):
        path.unlink()
    lines = (tmp_path / "progress.jsonl").read_text(encoding="utf-8").count("\n")
    tiny.train(world, tmp_path)
    assert tiny.bytes_of(tmp_path) == tiny.bytes_of(whole)
    said = (tmp_path / "progress.jsonl").read_text(encoding="utf-8").splitlines()[lines:]
    assert not any("ppo" in json.loads(line)["message"] for line in said)


def test_recomputing_activations_really_happens_and_changes_no_byte(world, whole, tmp_path, monkeypatch):
    from transformers.models.phi3.modeling_phi3 import Phi3MLP

    forwards = [0]
    original = Phi3MLP.forward

    def counting(self, hidden_states):
        forwards[0] += torch.is_grad_enabled()
        return original(self, hidden_states)

    monkeypatch.setattr(Phi3MLP, "forward", counting)
    plain = tiny.CONFIG.adapter.model_copy(update={"gradient_checkpointing": False})
    counts = []
    for name, config in (("on", tiny.CONFIG), ("off", tiny.CONFIG.model_copy(update={"adapter": plain}))):
        forwards[0] = 0
        tiny.train(world, tmp_path / name, config=config)
        counts.append(forwards[0])
        assert tiny.bytes_of(tmp_path / name) == tiny.bytes_of(whole)
    assert counts[0] == 2 * counts[1] > 0


def test_the_artifact_loads_as_both_systems(world, whole):
    from so8t.so8.adapted import load_system

    system_a, system_b = (load_system(world / "base", tiny.output(whole), adapted) for adapted in (False, True))
    ids = torch.tensor([system_b.tokenizer("<final>7</final>", add_special_tokens=False)["input_ids"]])
    assert not torch.equal(system_a.model(ids).logits, system_b.model(ids).logits)
    with system_b.text_adapters.off():
        assert torch.equal(system_a.model(ids).logits, system_b.model(ids).logits)
