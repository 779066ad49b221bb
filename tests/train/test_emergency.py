"""Errors, a full disk, a chosen checkpoint, one on request: nothing is lost, and the bytes stay the same."""

import argparse
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from so8t.cli import checkpoint as command
from so8t.errors import InputError, Interrupted, ResourceError, StepFailed
from so8t.loop import request, trainer
from so8t.loop.checkpoint import Checkpoints
from so8t.loop.phase import Optimizer
from so8t.loop.saved import tag_of, verify
from so8t.models import write_thinking_tokenizer
from so8t.session import read
from so8t.train import policy
from so8t.train.learner import build
from tests.train import tiny

SESSION = f"train-{tiny.KEY[:12]}"


def folder(home: Path) -> Path:
    return home / "sessions" / SESSION / "checkpoints"


def fail_at(monkeypatch, module, name: str, call: int, error: Exception) -> None:
    original, calls = getattr(module, name), [0]

    def failing(*arguments, **named):
        calls[0] += 1
        if calls[0] == call:
            raise error
        return original(*arguments, **named)

    monkeypatch.setattr(module, name, failing)


def test_an_error_in_a_step_keeps_the_state_of_its_start(world, whole, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        fail_at(patched, policy, "roll_out", 2, RuntimeError("the driver is gone"))
        with pytest.raises(RuntimeError, match="the driver is gone") as caught:
            tiny.train(world, tmp_path, interval_s=1000.0)
    # The phases before with their ends, and four steps of the first update.
    reached = sum(tiny.STEPS[name] + 1 for name in ("tower", "align", "warmup")) + 4
    assert f"step {reached} is saved in emergency-{reached}" in caught.value.__notes__[0]
    assert read(tmp_path / "sessions" / SESSION).status == "failed"
    facts = tiny.train(world, tmp_path, interval_s=1000.0)
    assert facts["resumes"][0]["checkpoint"] == f"emergency-{reached}"
    assert tiny.bytes_of(tmp_path) == tiny.bytes_of(whole)


def test_an_error_in_the_middle_of_a_change_keeps_nothing_of_it(world, whole, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        # The parameters have moved by then, and the counters have not.
        fail_at(patched, trainer, "capture_rng", 6, MemoryError("no room"))
        with pytest.raises(MemoryError):
            tiny.train(world, tmp_path, interval_s=1000.0)
    assert not list(folder(tmp_path).glob("emergency-*"))
    tiny.train(world, tmp_path, interval_s=1000.0)
    assert tiny.bytes_of(tmp_path) == tiny.bytes_of(whole)


def test_a_loss_that_is_not_a_number_ends_the_training_and_is_not_saved(world, whole, tmp_path, monkeypatch):
    clip, calls = Optimizer.clip, [0]

    def exploding(self, max_norm):
        calls[0] += 1
        norm = clip(self, max_norm)
        return float("nan") if calls[0] == 5 else norm

    with monkeypatch.context() as patched:
        patched.setattr(Optimizer, "clip", exploding)
        with pytest.raises(StepFailed, match="grad_norm is nan"):
            tiny.train(world, tmp_path)
    assert [verify(path) for path in folder(tmp_path).iterdir()] == [None] * len(list(folder(tmp_path).iterdir()))
    tiny.train(world, tmp_path)
    assert tiny.bytes_of(tmp_path) == tiny.bytes_of(whole)


def test_what_is_saved_is_the_policy_even_while_the_reference_borrows_its_parameters(world, tmp_path):
    token_ids = write_thinking_tokenizer(world / "base", tmp_path / "tokenizer")
    learner = build(tiny.CONFIG, world / "base", tmp_path / "tokenizer", token_ids, "cpu")
    reference = {name: torch.zeros_like(p) for name, p in learner.text.parameters().items()}
    own = {name: p.data_ptr() for name, p in learner.text.parameters().items()}
    with learner.text.holding(reference):
        saved = learner.tensors()
    assert {name: saved[f"text.{name}"].data_ptr() for name in own} == own


class FillUp:
    """A sink that fills the disk once the warm-up is under way."""

    def __init__(self, disk: Path) -> None:
        self.disk, self.full = disk, False

    def report(self, step, done, total, message, metrics):
        if message == "warmup 3/5" and not self.full:
            self.full = True
            with (self.disk / "filler").open("wb", buffering=0) as file:
                try:
                    while file.write(bytes(65536)):
                        pass
                except OSError:
                    return


@pytest.fixture
def disk(tmp_path):
    """12 MB, where this machine lets us mount them."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(place)]
    if os.name == "nt" or subprocess.run(command, check=False).returncode:
        pytest.skip("no right to mount here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_ends_the_training_clearly_and_it_goes_on_once_there_is_room(world, whole, disk):
    with pytest.raises(ResourceError, match="the disk is full"):
        tiny.train(world, disk, sinks=(FillUp(disk),))
    (disk / "filler").unlink()
    kept = Checkpoints(folder(disk), 5)
    assert kept.names()
    assert [verify(kept.folder / name) for name in kept.names()] == [None] * len(kept.names())
    facts = tiny.train(world, disk)
    assert facts["resumes"][0]["step"] >= 3
    assert tiny.bytes_of(disk) == tiny.bytes_of(whole)


class FillUpAndEnd(FillUp):
    """What ends the training has nothing to do with the disk, which is full by then."""

    def __init__(self, disk: Path, error: Exception) -> None:
        super().__init__(disk)
        self.error = error

    def report(self, step, done, total, message, metrics):
        super().report(step, done, total, message, metrics)
        if self.full:
            raise self.error


@pytest.mark.parametrize("error", [Interrupted("told to stop"), StepFailed("a fault of its own")])
def test_on_a_full_disk_what_ends_the_training_is_what_arrives(world, disk, capsys, error):
    with pytest.raises(type(error), match=str(error)) as raised:
        # No rolling checkpoint: the first write on the full disk is that of the end.
        tiny.train(world, disk, 1000.0, sinks=(FillUpAndEnd(disk, error),))
    told = " ".join([str(raised.value), *getattr(raised.value, "__notes__", [])])
    assert "could not be saved" in told
    assert "took no note of how the run ended" in capsys.readouterr().err
    assert read(folder(disk).parent).status == "running"  # what was there is whole


def test_a_named_checkpoint_is_gone_on_from_once_and_newer_ones_are_passed_over(world, whole, tmp_path):
    tiny.train(world, tmp_path)
    names = Checkpoints(folder(tmp_path), 5).names()
    chosen = folder(tmp_path) / names[1]
    facts = tiny.train(world, tmp_path, resume=str(chosen))
    assert facts["resumes"][-1]["checkpoint"] == str(chosen)
    assert tiny.bytes_of(tmp_path) == tiny.bytes_of(whole)
    assert len(list(folder(tmp_path).glob("*.passed-over-1"))) == len(names) - 2
    # The same settings again, as an unattended start gives them: what came after is not thrown away.
    facts = tiny.train(world, tmp_path, resume=str(chosen))
    assert facts["resumes"][-1]["checkpoint"] == f"final-{tiny.TOTAL}"


def test_a_checkpoint_that_does_not_verify_or_belongs_elsewhere_is_refused(world, tmp_path):
    tiny.train(world, tmp_path)
    chosen = folder(tmp_path) / f"final-{tiny.TOTAL}"
    copied = shutil.copytree(chosen, tmp_path / "elsewhere" / f"final-{tiny.TOTAL}")
    (copied / "state.json").write_bytes(b"{}")
    with pytest.raises(InputError, match=r"no whole checkpoint: state\.json differs"):
        tiny.train(world, tmp_path, resume=str(copied))
    with pytest.raises(InputError, match="unreadable manifest"):
        tiny.train(world, tmp_path, resume=str(tmp_path / "nothing"))
    before = Checkpoints(folder(tmp_path), 5).names()
    other = Checkpoints(tmp_path / "other", 5)
    snapshot = other.load(chosen)
    snapshot.values["session"] = "train-another"
    foreign = other.save("final", snapshot)
    with pytest.raises(InputError, match="belongs to train-another"):
        tiny.train(world, tmp_path, resume=str(foreign))
    assert Checkpoints(folder(tmp_path), 5).names() == before


def options(home: Path, **changes) -> argparse.Namespace:
    from so8t.cli import DEFAULT_CONFIG

    given = {"action": "save", "tag": "", "json": False, "config": DEFAULT_CONFIG, "overrides": [], "home": home}
    return argparse.Namespace(**{**given, **changes})


def test_a_running_training_saves_on_request_and_none_that_runs_is_said_so(world, tmp_path, capsys):
    assert command.main(options(tmp_path)) == 1
    assert "no training runs" in capsys.readouterr().err
    longer = tiny.CONFIG.model_copy(update={"ppo": tiny.CONFIG.ppo.model_copy(update={"updates": 25})})
    began = threading.Event()

    class Begun:
        def report(self, step, done, total, message, metrics):
            if message.startswith("ppo 1"):
                began.set()

    training = threading.Thread(target=tiny.train, args=(world, tmp_path, 1000.0, longer, "auto", (Begun(),)))
    training.start()
    assert began.wait(60)
    code = command.main(options(tmp_path, tag="kept"))
    said = capsys.readouterr().out
    training.join(60)
    assert code == 0
    path = Path(said.removeprefix("saved ").strip())
    assert verify(path) is None
    assert tag_of(path) == "kept"
    assert not (tmp_path / "sessions" / SESSION / request.REQUEST).exists()
    assert command.main(options(tmp_path, action="verify")) == 0
    assert "tag kept" in capsys.readouterr().out


def test_resume_is_an_option_of_training_only():
    done = subprocess.run(
        [sys.executable, "-m", "so8t", "step", "collect", "--resume", "auto"],
        capture_output=True, encoding="utf-8", check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "--resume with collect" in done.stderr
