"""What of ours a full disk is freed of, and what is left alone."""

import pytest
import torch
from filelock import FileLock

from so8t.artifacts import Store
from so8t.errors import NotFinite
from so8t.loop.checkpoint import Checkpoints, Snapshot
from so8t.recovery.room import free_bytes, free_own
from so8t.session import SessionFile

KEY = "a" * 64
NAME = f"train-{KEY[:12]}"


def checkpoints(home, count: int) -> Checkpoints:
    SessionFile.open(home, NAME, "train")
    (home / "locks").mkdir(parents=True, exist_ok=True)
    (home / "locks" / f"train-{KEY}.lock").touch()
    made = Checkpoints(home / "sessions" / NAME / "checkpoints", 9)
    for step in range(count):
        made.save("rolling", Snapshot(step, {"x": torch.zeros(3)}, {}), "kept by hand" if step == 0 else "")
    return made


def test_surplus_checkpoints_go_by_the_rule_of_the_training(tmp_path):
    made = checkpoints(tmp_path, 5)
    gone = free_own(Store(tmp_path), keep=2)
    assert [path.name for path in gone] == ["rolling-1", "rolling-2"]
    assert made.names() == ["rolling-0", "rolling-3", "rolling-4"]
    assert free_own(Store(tmp_path), keep=2) == []


def test_what_another_process_holds_is_left_alone(tmp_path):
    made = checkpoints(tmp_path, 4)
    partial = tmp_path / "artifacts" / "train" / f"{KEY}.partial"
    partial.mkdir(parents=True)
    (partial / "half.tmp").touch()
    with FileLock(tmp_path / "locks" / f"train-{KEY}.lock"):
        assert free_own(Store(tmp_path), keep=2) == []
    assert len(made.names()) == 4
    free_own(Store(tmp_path), keep=9)
    assert list(partial.iterdir()) == []


def test_a_measure_that_is_not_finite_is_the_fault_of_that_name(tmp_path):
    """Not a ValueError, on which retries would be spent in vain."""
    made = checkpoints(tmp_path, 1)
    with pytest.raises(NotFinite, match="a measure of step 7"):
        made.save("rolling", Snapshot(7, {"x": torch.zeros(3)}, {"metrics": {"loss": float("nan")}}))
    assert made.names() == ["rolling-0"]


def test_room_is_that_of_the_volume_even_where_nothing_is_yet(tmp_path):
    assert free_bytes(tmp_path / "not" / "there") > 0
