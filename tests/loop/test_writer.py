"""Written beside the training: the state as it was asked for, errors that surface, nothing twice, nothing half."""

import hashlib
import itertools
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from so8t.errors import ResourceError, StepFailed
from so8t.loop.checkpoint import Checkpoints, GivenUp, Snapshot
from so8t.loop.directio import BLOCK_BYTES, BlockWriter
from so8t.loop.pace import Pace
from so8t.loop.saved import tag_of, verify
from so8t.loop.writer import Saved, Writer


def snapshot(step: int, tensor: torch.Tensor) -> Snapshot:
    return Snapshot(step, {"x": tensor}, {"step": step})


@pytest.fixture
def checkpoints(tmp_path):
    return Checkpoints(tmp_path / "checkpoints", 5)


def test_what_is_saved_is_the_state_of_the_call_however_soon_it_changes(checkpoints):
    state = torch.zeros(2_000_000)
    with Writer(checkpoints, lambda saved: None) as writer:
        for step in range(1, 4):
            writer.wait_copied()
            state += 1
            writer.submit("rolling", snapshot(step, state))
        writer.wait_copied()
        state += 100
        writer.wait()
    for step in range(1, 4):
        saved = load_file(checkpoints.folder / f"rolling-{step}" / "tensors.safetensors")
        assert torch.equal(saved["x"], torch.full((2_000_000,), float(step)))


def test_every_type_and_shape_is_read_back_by_safetensors(checkpoints):
    tensors = {
        "scalar": torch.tensor(3.0), "empty": torch.empty(0, 4), "bool": torch.tensor([True, False, True]),
        "half": torch.randn(3, 3).bfloat16(), "transposed": torch.randn(4, 6).t(), "long": torch.arange(7),
        "byte": torch.tensor([1, 2, 3], dtype=torch.uint8), "double": torch.randn(2, dtype=torch.float64),
    }  # fmt: skip
    path = checkpoints.save("rolling", Snapshot(1, tensors, {}))
    found = load_file(path / "tensors.safetensors")
    assert set(found) == set(tensors)
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


@pytest.mark.parametrize("size", [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, 2 * BLOCK_BYTES + 12345])
@pytest.mark.parametrize("memory", [False, True])
def test_blocks_past_the_cache_are_the_bytes_that_were_given(tmp_path, size, memory):
    """On the disk of the tests, and on a tmpfs, where there is no going past the cache."""
    shm = Path("/dev/shm")  # noqa: S108
    if memory and not shm.is_dir():
        pytest.skip("no tmpfs here")
    with tempfile.TemporaryDirectory(dir=shm if memory else tmp_path) as folder:
        data = np.random.default_rng(size).integers(0, 256, size, dtype=np.uint8).tobytes()
        cuts = [0, size // 3, size // 3, size // 2, size]
        pieces = [data[start:end] for start, end in itertools.pairwise(cuts)]
        with (Path(folder) / "file").open("wb") as file:
            hashed = BlockWriter().write(file, pieces, lambda: None)
        assert (Path(folder) / "file").read_bytes() == data
        assert (hashed.size_bytes, hashed.sha256) == (size, hashlib.sha256(data).hexdigest())


def test_an_error_of_the_writer_reaches_the_training_and_leaves_what_was_there(checkpoints):
    checkpoints.save("rolling", snapshot(1, torch.ones(10)))
    with Writer(checkpoints, lambda saved: None) as writer:
        # A file where the temporary folder belongs: as clear a refusal as that of a full disk.
        (checkpoints.folder / "rolling-2.tmp").write_bytes(b"")
        writer.submit("rolling", snapshot(2, torch.ones(10)))
        with pytest.raises((ResourceError, OSError)):
            writer.wait()
        writer.wait()  # said once
    assert checkpoints.names() == ["rolling-1"]
    assert verify(checkpoints.folder / "rolling-1") is None


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nothing_that_is_not_finite_is_saved(checkpoints, bad):
    tensor = torch.ones(1000)
    tensor[7] = bad
    with pytest.raises(StepFailed, match="x holds NaN or infinity at step 3"):
        checkpoints.save("emergency", snapshot(3, tensor))
    assert list(checkpoints.folder.iterdir()) == []


def test_large_numbers_whose_sum_overflows_are_saved(checkpoints):
    checkpoints.save("rolling", snapshot(3, torch.full((100,), 3e38)))
    assert checkpoints.names() == ["rolling-3"]


def test_a_save_that_is_not_wanted_any_more_leaves_nothing(checkpoints):
    with pytest.raises(GivenUp):
        checkpoints.save("rolling", snapshot(4, torch.ones(10)), unwanted=lambda: True)
    assert list(checkpoints.folder.iterdir()) == []


def test_the_same_step_is_not_written_twice(checkpoints):
    state = torch.ones(3_000_000)
    with Writer(checkpoints, lambda saved: None) as writer:
        writer.submit("rolling", snapshot(5, state))
        assert writer.save_now("emergency", snapshot(5, state)).name == "rolling-5"
    assert checkpoints.names() == ["rolling-5"]
    again = Checkpoints(checkpoints.folder, 5)
    assert again.load_newest().step == 5
    assert again.save("emergency", snapshot(5, state)).name == "rolling-5"


def test_an_emergency_overtakes_an_older_state_in_flight(checkpoints):
    state = torch.ones(3_000_000)
    with Writer(checkpoints, lambda saved: None) as writer:
        writer.submit("rolling", snapshot(5, state))
        writer.wait_copied()
        state += 1
        assert writer.save_now("emergency", snapshot(6, state)).name == "emergency-6"
    assert checkpoints.names()[-1] == "emergency-6"
    assert torch.equal(checkpoints.load_newest().tensors["x"], state)


def test_a_tag_keeps_a_checkpoint_from_being_pruned(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    checkpoints.save("rolling", snapshot(1, torch.ones(3)), tag="before the change")
    for step in range(2, 6):
        checkpoints.save("rolling", snapshot(step, torch.ones(3)))
    assert checkpoints.names() == ["rolling-1", "rolling-4", "rolling-5"]
    assert tag_of(tmp_path / "rolling-1") == "before the change"
    assert verify(tmp_path / "rolling-1") is None


def test_stalls_stretch_the_interval_to_their_share_and_one_slow_moment_does_not(tmp_path):
    pace = Pace(180.0, 0.0005)
    for _ in range(3):
        pace.submitted(0.001)
        pace.copied(0.002)
    assert pace.interval_s == 180.0
    pace.submitted(5.0)
    pace.copied(0.0)
    assert pace.interval_s == 180.0
    for _ in range(5):
        pace.submitted(0.1)
        pace.copied(0.1)
    assert pace.interval_s == pytest.approx(400.0)
    assert pace.statistics()["stall_median_s"] == pytest.approx(0.2)


def test_a_slow_disk_stretches_the_interval(tmp_path):
    pace = Pace(0.5, 1.0)
    pace.saved(Saved(tmp_path, 1, 10, 0.1, 3.0))
    assert pace.interval_s == 6.0
    assert not pace.due()


def test_notes_are_written_by_the_writer_and_the_newest_waits(checkpoints):
    written = []
    with Writer(checkpoints, lambda saved: time.sleep(0.2)) as writer:
        writer.submit("rolling", snapshot(1, torch.ones(3)))
        for number in range(5):
            writer.note(lambda number=number: written.append(number))
    assert written == [0]
