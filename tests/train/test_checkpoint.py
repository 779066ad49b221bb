"""Checkpoints: what verifies is loaded, what does not is set aside, and only as many are kept as were asked for."""

import json
import shutil

import pytest
import torch

from so8t.train.checkpoint import Checkpoints, Snapshot, verify


def snapshot(step: int) -> Snapshot:
    return Snapshot(step, {"x": torch.full((100,), float(step))}, {"step": step})


@pytest.fixture
def three(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=5)
    for step in (10, 20, 30):
        checkpoints.save("rolling", snapshot(step))
    return checkpoints


def test_the_newest_comes_back_whole(three):
    found = three.load_newest()
    assert found.step == 30
    assert torch.equal(found.tensors["x"], torch.full((100,), 30.0))
    assert found.values == {"step": 30}
    assert three.problems == []


def test_an_empty_folder_has_none(tmp_path):
    assert Checkpoints(tmp_path / "new", 5).load_newest() is None


def _flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGES = {
    "bit flip in tensors": lambda p: _flip(p / "tensors.safetensors"),
    "bit flip in state": lambda p: _flip(p / "state.json"),
    "truncated tensors": lambda p: (p / "tensors.safetensors").write_bytes(
        (p / "tensors.safetensors").read_bytes()[:-9]
    ),
    "zero tail": lambda p: (p / "tensors.safetensors").write_bytes(
        (p / "tensors.safetensors").read_bytes()[:-64] + bytes(64)
    ),
    "no tensors": lambda p: (p / "tensors.safetensors").unlink(),
    "no state": lambda p: (p / "state.json").unlink(),
    "no manifest": lambda p: (p / "manifest.json").unlink(),
    "manifest of zeros": lambda p: (p / "manifest.json").write_bytes(bytes(200)),
    "manifest of an older one": lambda p: shutil.copy(p.parent / "rolling-20" / "manifest.json", p / "manifest.json"),
    "whole older one": lambda p: (shutil.rmtree(p), shutil.copytree(p.parent / "rolling-20", p)),
    "empty folder": lambda p: (shutil.rmtree(p), p.mkdir()),
    "foreign format": lambda p: (p / "manifest.json").write_text(json.dumps({"format": "x"}), encoding="utf-8"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_newest_is_set_aside_and_the_one_before_is_taken(three, name):
    DAMAGES[name](three.folder / "rolling-30")
    assert verify(three.folder / "rolling-30") is not None
    assert three.load_newest().step == 20
    assert len(three.problems) == 1
    assert "rolling-30" in three.problems[0]
    assert (three.folder / "rolling-30.damaged-1").is_dir()
    assert three.names() == ["rolling-10", "rolling-20"]


def test_two_damaged_ones_are_passed_over(three):
    for step in (20, 30):
        _flip(three.folder / f"rolling-{step}" / "tensors.safetensors")
    assert three.load_newest().step == 10
    assert len(three.problems) == 2


def test_half_written_ones_vanish_at_the_next_start(three):
    (three.folder / "rolling-40.tmp").mkdir()
    (three.folder / "rolling-40.tmp" / "tensors.safetensors").write_bytes(b"half")
    again = Checkpoints(three.folder, 5)
    assert not (three.folder / "rolling-40.tmp").exists()
    assert again.load_newest().step == 30


def test_only_the_newest_are_kept_and_the_final_always(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    checkpoints.save("final", snapshot(1))
    for step in range(2, 8):
        checkpoints.save("rolling" if step % 2 else "emergency", snapshot(step))
    assert checkpoints.names() == ["final-1", "emergency-6", "rolling-7"]


def test_equal_states_are_equal_bytes(tmp_path):
    paths = [Checkpoints(tmp_path / name, 5).save("rolling", snapshot(3)) for name in ("a", "b")]
    assert (paths[0] / "manifest.json").read_bytes() == (paths[1] / "manifest.json").read_bytes()
