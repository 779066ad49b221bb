"""Checkpoints: what verifies is loaded, what does not is set aside, and only as many are kept as were asked for."""

import json
import shutil
import signal

import pytest
import torch

from so8t.loop.checkpoint import Checkpoints, Snapshot
from so8t.loop.saved import verify
from tests.loop import damage
from tests.train import tiny


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


FILES = ("tensors.safetensors", "state.json", "manifest.json")


def _before(path):
    """The newest checkpoint but one."""
    others = [p for p in path.parent.glob("*-*") if p != path and p.suffix == ""]
    return max(others, key=lambda p: int(p.name.split("-")[1]))


def _whole_older(path):
    shutil.copytree(_before(path), copied := path.with_name("copied"))
    shutil.rmtree(path)
    copied.rename(path)


def _edit_manifest(path, change):
    manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
    change(manifest)
    (path / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")


# At the newest checkpoint; what verifies afterwards is the one before.
DAMAGES = {
    **damage.of_files(FILES),
    "torn tail of tensors": damage.torn_tail(FILES[0]),
    "tensors of an older one": damage.swap_in(FILES[0], _before),
    "state of an older one": damage.swap_in(FILES[1], _before),
    "manifest of an older one": damage.swap_in(FILES[2], _before),
    "whole older one": _whole_older,
    "empty folder": damage.empty_folder,
    "another format": lambda p: _edit_manifest(p, lambda m: m.update(format="so8t-checkpoint-1")),
    "wrong size in the manifest": lambda p: _edit_manifest(p, lambda m: m["files"][FILES[0]].update(size_bytes=1)),
    "manifest without hashes": lambda p: _edit_manifest(p, lambda m: m.update(files={})),
    "manifest of another shape": lambda p: (p / "manifest.json").write_text("[1]", encoding="utf-8"),
}
# Beside the newest checkpoint, which stays the one to take.
NEWER = {
    "newer one half written": damage.half_written_newer(FILES[0], ".tmp"),
    "newer one without a manifest": damage.half_written_newer(FILES[0]),
    "newer one with a manifest only": damage.half_written_newer(FILES[2]),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_newest_is_set_aside_and_the_one_before_is_taken(three, name):
    DAMAGES[name](three.folder / "rolling-30")
    assert verify(three.folder / "rolling-30") is not None
    again = Checkpoints(three.folder, 5)
    found = again.load_newest()
    assert found.step == 20
    assert torch.equal(found.tensors["x"], torch.full((100,), 20.0))
    assert len(again.problems) == 1
    assert "rolling-30" in again.problems[0]
    assert (three.folder / "rolling-30.damaged-1").is_dir()
    assert again.names() == ["rolling-10", "rolling-20"]


@pytest.mark.parametrize("name", NEWER)
def test_a_newer_one_that_is_not_whole_is_passed_by(three, name):
    NEWER[name](three.folder / "rolling-30")
    again = Checkpoints(three.folder, 5)
    assert again.load_newest().step == 30
    assert again.names() == ["rolling-10", "rolling-20", "rolling-30"]


@pytest.mark.soak
@pytest.mark.parametrize("name", [*DAMAGES, *NEWER])
def test_after_any_damage_the_training_ends_in_the_same_bytes(name, world, whole, stopped, tmp_path):
    shutil.copytree(stopped, home := tmp_path / "home")
    folder = home / "sessions" / f"train-{tiny.KEY[:12]}" / "checkpoints"
    newest = folder / Checkpoints(folder, 5).names()[-1]
    {**DAMAGES, **NEWER}[name](newest)
    facts = tiny.train(world, home)
    assert facts["resumes"][-1]["checkpoint"] == (newest.name if name in NEWER else facts["resumes"][-1]["checkpoint"])
    assert len(facts["damaged_checkpoints"]) == (name != "newer one half written")
    assert tiny.bytes_of(home) == tiny.bytes_of(whole)


@pytest.fixture(scope="module")
def stopped(world, forge, tmp_path_factory):
    """A training killed in the middle of PPO."""
    home = tmp_path_factory.mktemp("stopped")
    forge.start(world, home).stop_when("ppo 5/8", getattr(signal, "SIGKILL", signal.SIGTERM))
    return home


def test_two_damaged_ones_are_passed_over(three):
    for step in (20, 30):
        damage.flip(three.folder / f"rolling-{step}" / "tensors.safetensors")
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
