"""What a training tells while it runs: lines, trackers and samples, none of which reaches its numbers."""

import json
import sys
from pathlib import Path

import pytest
import torch

from so8t.errors import ConfigError
from so8t.progress import lines_of, log_of
from so8t.session import read
from so8t.train import policy
from tests.train import tiny

SESSION = f"train-{tiny.KEY[:12]}"
FIELDS = {
    "time", "phase", "step", "total_steps", "epoch", "loss", "reward", "kl", "tokens_per_s", "eta_phase_s", "cpu_percent",
    "rss_bytes", "gpu_percent", "gpu_memory_bytes", "gpu_memory_peak_bytes", "gpu_temperature_c", "checkpoints",
}  # fmt: skip


def history(home: Path) -> list[dict]:
    return lines_of(tiny.output(home) / "history.jsonl")


def stop_in_second_rollout(world: Path, home: Path, monkeypatch: pytest.MonkeyPatch, **settings: object) -> None:
    """Five steps of PPO short of the end, with no checkpoint of the last four."""
    original, calls = policy.roll_out, [0]

    def failing(*arguments, **named):
        calls[0] += 1
        if calls[0] == 2:
            raise RuntimeError("the driver is gone")
        return original(*arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr(policy, "roll_out", failing)
        with pytest.raises(RuntimeError, match="driver"):
            tiny.train(world, home, interval_s=1000.0, **settings)


def test_a_line_has_every_field_and_a_machine_without_gpu_has_none_of_its_numbers(whole):
    lines = lines_of(log_of(whole, SESSION))
    assert [line for line in lines if FIELDS - set(line)] == []
    assert {line["phase"] for line in lines} == set(tiny.STEPS)
    assert {line[name] for line in lines for name in FIELDS if name.startswith("gpu_")} == {None}
    assert all(line["rss_bytes"] > 1e7 for line in lines)
    said = {line["step"]: line for line in lines}
    for row in history(whole):
        assert all(said[row["step"]][name] == row.get(name) for name in ("loss", "epoch"))
    assert {line["reward"] for line in lines if line["phase"] == "warmup"} == {None}
    assert all(line["reward"] is not None for line in lines if line["phase"] == "ppo")


def test_epochs_are_passes_over_the_rows(whole):
    """Eight images in batches of four; sixteen of the twenty rows are drawn from in the warm-up."""
    rows = {(row["phase"], row["position"]): row.get("epoch") for row in history(whole)}
    assert [rows["align", i] for i in range(3)] == [0.5, 1.0, 1.5]
    assert rows["warmup", 4] == pytest.approx(5 * 8 / 20)
    assert read(whole / "sessions" / SESSION).current_epoch == int(rows["head", 3]) == 4


def test_the_interval_thins_the_lines_and_each_phase_keeps_its_last(world, whole, tmp_path):
    tiny.train(world, tmp_path, progress_log_interval_s=1000.0)
    assert tiny.bytes_of(tmp_path) == tiny.bytes_of(whole)
    assert [line["phase"] for line in lines_of(log_of(tmp_path, SESSION))] == list(tiny.STEPS)


def test_a_torn_line_costs_that_line_alone(world, whole, tmp_path):
    path = log_of(tmp_path, SESSION)
    path.parent.mkdir(parents=True)
    path.write_text('{"time": "2026-01-01", "st', encoding="utf-8", newline="\n")
    tiny.train(world, tmp_path)
    assert {line["step"] for line in lines_of(path)} == {line["step"] for line in lines_of(log_of(whole, SESSION))}


def test_samples_come_on_time_and_leave_no_trace(world, whole, tmp_path, monkeypatch):
    settings = {"samples_every": 2, "sample_tokens": 4}
    stop_in_second_rollout(world, tmp_path, monkeypatch, **settings)
    tiny.train(world, tmp_path, **settings)
    assert tiny.bytes_of(tmp_path) == tiny.bytes_of(whole)
    lines = lines_of(log_of(tmp_path, SESSION, "samples"))
    first = sum(tiny.STEPS[name] + 1 for name in ("tower", "align"))
    second = first + tiny.STEPS["warmup"] + 1
    # Steps 2, 4 and the last of the warm-up; of PPO's two updates the second, four minibatches each.
    assert sorted({line["step"] for line in lines}) == [first + 2, first + 4, first + 5, second + 8]
    # Four classes of text, an image, a sound.
    assert len({line["id"] for line in lines}) == 6
    assert all(isinstance(line["reply"], str) and line["wanted"] for line in lines)


def test_a_sample_is_what_generation_says_and_draws_nothing(world, whole):
    from so8t.train.learner import build
    from so8t.train.run import load_samples
    from so8t.train.samples import choose, greedy

    tokenizer = tiny.output(whole) / "tokenizer"
    ids = json.loads((tiny.output(whole) / "adapter" / "adapter.json").read_text(encoding="utf-8"))["token_ids"]
    learner = build(tiny.CONFIG, world / "base", tokenizer, ids, "cpu")
    held_out = load_samples(tiny.CONFIG, learner, tiny.artifact(world / "data", "preprocess"), "validation")
    texts, pictures = choose(held_out)
    before = torch.get_rng_state()
    together = greedy(learner, texts, 5)
    assert greedy(learner, pictures, 5)
    assert torch.equal(torch.get_rng_state(), before)
    assert together == [greedy(learner, [one], 5)[0] for one in texts]


def points(home: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(home / "progress_logs" / "tensorboard" / SESSION), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: [(one.step, one.value) for one in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def expected(home: Path) -> dict[str, list[tuple[int, float]]]:
    found: dict[str, list[tuple[int, float]]] = {}
    for row in history(home):
        for name, value in row.items():
            if name not in {"phase", "position", "step"}:
                found.setdefault(f"{row['phase']}/{name}", []).append((row["step"], value))
    return found


def test_tensorboard_has_every_point_once_after_a_resume(world, whole, tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    settings = {"trackers": ["tensorboard"]}
    stop_in_second_rollout(world, tmp_path, monkeypatch, **settings)
    assert points(tmp_path).keys() < points_of_the_end(world, tmp_path, settings).keys()
    assert tiny.bytes_of(tmp_path) == tiny.bytes_of(whole)


def points_of_the_end(world, home, settings):
    tiny.train(world, home, **settings)
    found, wanted = points(home), expected(home)
    assert {tag for tag in found if not tag.startswith("machine/")} == set(wanted)
    for tag, values in wanted.items():
        assert [step for step, _ in found[tag]] == [step for step, _ in values]
        assert [value for _, value in found[tag]] == pytest.approx([value for _, value in values], rel=1e-6)
    steps = [step for step, _ in found["machine/rss_bytes"]]
    assert steps == sorted(set(steps))
    return found


TRACKIO = """
import sys
from pathlib import Path
from so8t.train import policy
from tests.train import tiny
def gone(*arguments, **named):
    raise RuntimeError("the driver is gone")
def once(world, home):
    tiny.train(world, home, trackers=["trackio"])
original, policy.roll_out = policy.roll_out, gone
world, home = map(Path, sys.argv[1:])
try:
    once(world, home)
except RuntimeError:
    policy.roll_out = original
    once(world, home)
"""


def test_trackio_has_every_point_once_after_a_resume(world, tmp_path, monkeypatch):
    """In a process of its own: trackio chooses its folder when it is imported."""
    import sqlite3
    import subprocess

    pytest.importorskip("trackio")
    monkeypatch.delenv("TRACKIO_DIR", raising=False)
    subprocess.run([sys.executable, "-c", TRACKIO, str(world), str(tmp_path)], check=True)
    assert read(tmp_path / "sessions" / SESSION).attempts == 2
    rows = history(tmp_path)
    with sqlite3.connect(tmp_path / "progress_logs" / "trackio" / "so8t.db") as database:
        logged = [(step, json.loads(text)) for step, text in database.execute("select step, metrics from metrics")]
    losses = sorted((step, name, value) for step, m in logged for name, value in m.items() if name.endswith("/loss"))
    assert losses == sorted((row["step"], f"{row['phase']}/loss", row["loss"]) for row in rows if "loss" in row)


@pytest.mark.parametrize("name", ["tensorboard", "trackio"])
def test_an_absent_tracker_is_the_users_to_install(world, tmp_path, monkeypatch, name):
    for loaded in [one for one in sys.modules if one.startswith(("torch.utils.tensorboard", name))]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=rf"pip install .*\.\[{name}\]"):
        tiny.train(world, tmp_path, trackers=[name])
