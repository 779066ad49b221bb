"""What becomes of a training whose newest checkpoint is damaged? Peer: Hugging Face's Trainer, in the same run.

    pip install accelerate && OMP_NUM_THREADS=1 python benchmarks/checkpoint_damage.py

Both train a tiny model on the CPU, stop, have their newest checkpoint damaged, and go on with what their users
would say (`resume_from_checkpoint=True` there, nothing at all here). Counted against an uninterrupted training:

    same bytes       it found the damage, or could do without the file, and ended in the same weights
    stopped          it raised an error instead of going on from the checkpoint before
    silently wrong   it went on, said nothing, and ended in other weights

The damages are those of tests/train/damage.py: every file of the checkpoint cut, flipped, zeroed, emptied, removed;
a torn tail; a newer checkpoint that is only half there.
"""

import contextlib
import io
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.train import damage, tiny

OURS = ("tensors.safetensors", "state.json", "manifest.json")
THEIRS = ("model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json", "config.json")
STEPS, STOP_AT, SAVE_EVERY = 12, 9, 3


class Stop(Exception):
    """Ends a training in the middle."""


class StopAt:
    """A progress sink that stops our training."""

    def report(self, step: str, done: float, total: float | None, message: str, metrics: dict[str, object]) -> None:
        """Raise at the fifth step of PPO."""
        if message == "ppo 5/8":
            raise Stop


def ours(place: Path) -> tuple[Callable[[Path], str], Path, dict[str, damage.Damage]]:
    """How a training of ours ends after a damage; where it stopped; the damages."""
    world, stopped = place / "world", place / "stopped"
    tiny.make_world(world)
    tiny.train(world, place / "whole")
    wanted = tiny.bytes_of(place / "whole")
    with contextlib.suppress(Stop):
        tiny.train(world, stopped, sinks=(StopAt(),))

    def resume(home: Path) -> str:
        tiny.train(world, home)
        return "same bytes" if tiny.bytes_of(home) == wanted else "silently wrong"

    kinds = damage.of_files(OURS) | {
        "torn tail": damage.torn_tail(OURS[0]), "newer half written": damage.half_written_newer(OURS[0])
    }  # fmt: skip
    return resume, stopped, kinds


def theirs(place: Path) -> tuple[Callable[[Path], str], Path, dict[str, damage.Damage]]:
    """The same for transformers.Trainer."""
    from transformers import Phi3Config, Phi3ForCausalLM, Trainer, TrainerCallback, TrainingArguments
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    generator = torch.Generator().manual_seed(1)
    rows = [{"input_ids": (ids := torch.randint(5, 250, (16,), generator=generator)), "labels": ids} for _ in range(64)]

    class Early(TrainerCallback):
        def on_step_end(self, args, state, control, **more):
            control.should_training_stop = state.global_step >= STOP_AT
            return control

    def train(home: Path, resume: bool, early: bool = False) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        config = Phi3Config(
            vocab_size=256, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
            pad_token_id=0, bos_token_id=1, eos_token_id=2, resid_pdrop=0.1, attention_dropout=0.1,
        )  # fmt: skip
        arguments = TrainingArguments(
            str(home), max_steps=STEPS, save_steps=SAVE_EVERY, per_device_train_batch_size=4, use_cpu=True, seed=3,
            report_to=[], disable_tqdm=True, logging_steps=1000, learning_rate=1e-3,
        )  # fmt: skip
        trainer = Trainer(Phi3ForCausalLM(config), arguments, train_dataset=rows, callbacks=[Early()] if early else [])
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            trainer.train(resume_from_checkpoint=resume)
        trainer.save_model(str(home / "end"))
        return load_file(home / "end" / "model.safetensors")

    wanted = train(place / "their whole", resume=False)
    stopped = place / "their stopped"
    train(stopped, resume=False, early=True)

    def resume(home: Path) -> str:
        found = train(home, resume=True)
        return "same bytes" if all(torch.equal(found[n], wanted[n]) for n in wanted) else "silently wrong"

    kinds = damage.of_files(THEIRS) | {
        "torn tail": damage.torn_tail(THEIRS[0]), "newer half written": damage.half_written_newer(THEIRS[0])
    }  # fmt: skip
    return resume, stopped, kinds


def newest(home: Path) -> Path:
    """The newest checkpoint's folder."""
    found = [path for path in home.rglob("*-*") if path.is_dir() and path.name.rpartition("-")[2].isdigit()]
    return max(found, key=lambda path: int(path.name.rpartition("-")[2]))


def main() -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as text:
        for name, prepare in (("so8t", ours), ("transformers.Trainer", theirs)):
            place = Path(text) / name
            place.mkdir()
            resume, stopped, kinds = prepare(place)
            counts: Counter[str] = Counter()
            for words, damaging in {"(none)": lambda folder: None, **kinds}.items():
                shutil.copytree(stopped, home := place / "damaged")
                damaging(newest(home))
                try:
                    outcome = resume(home)
                except Exception as error:  # noqa: BLE001 - an error is one of the outcomes counted
                    outcome = f"stopped ({type(error).__name__})"
                shutil.rmtree(home)
                print(f"{name:>21}  {words:32} {outcome}")
                counts[outcome.partition(" (")[0]] += words != "(none)"
            told = ", ".join(f"{counts[word]} {word}" for word in ("same bytes", "stopped", "silently wrong"))
            print(f"{name:>21}: of {len(kinds)} damages {told}\n")


if __name__ == "__main__":
    main()
