"""Killed anywhere, training ends in the very bytes of a training that nobody disturbed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from so8t.session import read
from tests.train import tiny

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
SESSION = f"train-{tiny.KEY[:12]}"


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("world")
    torch.set_num_threads(1)
    tiny.make_world(root)
    return root


@pytest.fixture(scope="module")
def whole(world, tmp_path_factory) -> Path:
    home = tmp_path_factory.mktemp("whole")
    tiny.train(world, home)
    return home


def start(world: Path, home: Path) -> subprocess.Popen[bytes]:
    home.mkdir(exist_ok=True)
    with (home / "log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "tests.train.tiny", str(world), str(home)],
            cwd=ROOT, env=ENVIRONMENT, stdout=log, stderr=log,
        )  # fmt: skip


def stop_when(home: Path, process: subprocess.Popen[bytes], seen: str, number: signal.Signals) -> int:
    """Send the signal as soon as a progress message of this process contains `seen`; its exit code."""
    path = home / "progress.jsonl"
    offset = path.stat().st_size if path.exists() else 0
    deadline = time.monotonic() + 100
    while process.poll() is None and time.monotonic() < deadline:
        if path.exists() and seen in path.read_text(encoding="utf-8")[offset:]:
            process.send_signal(number)
            return process.wait(60)
        time.sleep(0.002)
    process.kill()
    pytest.fail(f"{seen!r} never came: {(home / 'log').read_text(encoding='utf-8')[-2000:]}")


def checkpoints(home: Path) -> Path:
    return home / "sessions" / SESSION / "checkpoints"


def test_it_trains_and_says_what_it_did(whole):
    metrics = json.loads((tiny.output(whole) / "metrics.json").read_text(encoding="utf-8"))
    assert set(metrics) == {"tower", "warmup", "ppo", "head"}
    assert metrics["ppo"]["reward_before"]["n"] == 4
    rows = [
        json.loads(line) for line in (tiny.output(whole) / "history.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    counts = {phase: sum(row["phase"] == phase for row in rows) for phase in metrics}
    assert counts == {"tower": 2, "warmup": 5, "ppo": 8, "head": 4}
    first = next(row for row in rows if row["phase"] == "ppo")
    assert {"reward", "kl", "reward_unsafe_allow", "reward_missing_end", "clipfrac"} <= set(first)
    session = read(whole / "sessions" / SESSION)
    assert session.completed
    assert session.checkpoints[-1] == "final-23"
    assert session.current_step == session.total_steps == 23
    logged = (whole / "progress_logs" / f"{SESSION}.jsonl").read_text(encoding="utf-8").splitlines()
    assert {"tokens_per_s", "loss", "rss_bytes"} <= set(json.loads(logged[-1]))


def test_another_run_gives_the_same_bytes_whatever_the_interval(world, whole, tmp_path):
    tiny.train(world, tmp_path, interval_s=1000.0)
    assert tiny.bytes_of(tmp_path) == tiny.bytes_of(whole)


KILLS = ("tower 1/2", "tower: measuring", "warmup 3/5", "ppo 1/8", "ppo 3/8", "ppo 6/8", "ppo: measuring", "head 2/4")


def test_sigkill_again_and_again_ends_in_the_same_bytes(world, whole, tmp_path):
    for seen in KILLS:
        assert stop_when(tmp_path, start(world, tmp_path), seen, signal.SIGKILL) == -9
    assert start(world, tmp_path).wait(100) == 0
    assert tiny.bytes_of(tmp_path) == tiny.bytes_of(whole)
    session = read(tmp_path / "sessions" / SESSION)
    assert session.attempts == len(KILLS) + 1
    assert session.problems == []


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM to catch")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_at_once_and_the_next_start_goes_on(world, whole, tmp_path, number, code):
    assert stop_when(tmp_path, start(world, tmp_path), "ppo 2/8", number) == code
    names = sorted(path.name for path in checkpoints(tmp_path).iterdir())
    emergency = [name for name in names if name.startswith("emergency-")]
    assert len(emergency) == 1
    assert int(emergency[0].split("-")[1]) >= 11
    assert read(tmp_path / "sessions" / SESSION).status == "interrupted"
    assert start(world, tmp_path).wait(100) == 0
    assert tiny.bytes_of(tmp_path) == tiny.bytes_of(whole)


def test_a_damaged_newest_checkpoint_falls_back_and_is_reported(world, whole, tmp_path):
    stop_when(tmp_path, start(world, tmp_path), "ppo 5/8", signal.SIGKILL)
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
