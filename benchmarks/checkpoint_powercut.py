"""What is left of a training's checkpoints when the power goes? Peer: Hugging Face's Trainer, in the same run.

    pip install accelerate && OMP_NUM_THREADS=1 python benchmarks/checkpoint_powercut.py [--cuts 60]

Needs root on Linux and the rig's tools (tests/crash/powercut.py). Both save a tiny training's state to ext4, each
save 6 times the kernel's writeback age after the one before. Time is shortened tenfold: that age is lowered from
30 s to 3 s (vm.dirty_expire_centisecs and vm.dirty_writeback_centisecs; put back at the end), ext4's commit interval
from 5 s to 1 s, the least there is. Some trainings run side by side, each on a disk of its own; the power of each is
cut at random moments. Counted at each cut:

    newest unloadable     the newest checkpoint there cannot be read
    resume raised         `resume_from_checkpoint=True`, or our `load_newest()`, gives an error or nothing
    acknowledged lost     the newest checkpoint whose save had returned is not there whole
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.crash import powercut, powercut_writer

SETTINGS = {"dirty_expire_centisecs": "300", "dirty_writeback_centisecs": "50"}
PERIOD_S, SAVE_EVERY, KEEP = 18.0, 2, 5
SIDE_BY_SIDE = 5
KIND = "ext4-commit1"


@contextmanager
def hasty_kernel() -> Iterator[None]:
    """Write dirty pages back after three seconds, and put the machine's settings back afterwards."""
    folder = Path("/proc/sys/vm")
    before = {name: (folder / name).read_text(encoding="utf-8") for name in SETTINGS}
    try:
        for name, value in SETTINGS.items():
            (folder / name).write_text(value, encoding="utf-8")
        yield
    finally:
        for name, value in before.items():
            (folder / name).write_text(value, encoding="utf-8")


def trainer(folder: Path, callback: Any) -> Any:
    """A real Trainer of a tiny model."""
    from transformers import Phi3Config, Phi3ForCausalLM, PrinterCallback, Trainer, TrainingArguments
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    rows = [{"input_ids": (ids := torch.randint(5, 250, (16,))), "labels": ids} for _ in range(64)]
    config = Phi3Config(
        vocab_size=256, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    arguments = TrainingArguments(
        str(folder), max_steps=10**6, save_steps=SAVE_EVERY, save_total_limit=KEEP, per_device_train_batch_size=4,
        use_cpu=True, report_to=[], disable_tqdm=True, logging_steps=10**6,
    )  # fmt: skip
    made = Trainer(Phi3ForCausalLM(config), arguments, train_dataset=rows, callbacks=[callback])
    made.remove_callback(PrinterCallback)
    return made


def write_theirs(disk: Path, seed: int) -> None:
    """Train for ever; acknowledge each save after it has returned."""
    from transformers import TrainerCallback

    rng = random.Random(seed)  # noqa: S311

    class Paced(TrainerCallback):
        def on_step_end(self, args, state, control, **more):
            time.sleep(rng.uniform(0.5, 1.5) * PERIOD_S / SAVE_EVERY)

        def on_save(self, args, state, control, **more):
            os.write(1, f"{state.global_step} 0\n".encode())

    trainer(disk / "home", Paced()).train()


def write_ours(disk: Path, seed: int) -> None:
    """Save for ever at the same pace."""
    items, rng = powercut_writer.CheckpointItems(disk / "home"), random.Random(seed)  # noqa: S311
    for number in range(10**6):
        time.sleep(rng.uniform(0.5, 1.5) * PERIOD_S)
        items.write(number)
        os.write(1, f"{number} 0\n".encode())


def check_theirs(home: Path, acknowledged: int) -> Counter[str]:
    """Read the newest checkpoint; then resume as its users do, for one step."""
    from safetensors.torch import load_file
    from transformers import TrainerCallback
    from transformers.trainer_utils import get_last_checkpoint

    found = Counter[str](cuts=1)
    newest = get_last_checkpoint(str(home)) if home.exists() else None
    step = int(newest.rpartition("-")[2]) if newest else -1
    try:
        folder = Path(newest or home / "none")
        load_file(folder / "model.safetensors")
        for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin"):
            torch.load(folder / name, weights_only=False)
        json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))
    except Exception:  # noqa: BLE001 - whatever it is, the checkpoint is no use
        found["newest unloadable"] += 1
    if step < acknowledged or (step == acknowledged and found["newest unloadable"]):
        found["acknowledged lost"] += 1

    class OneStep(TrainerCallback):
        def on_step_end(self, args, state, control, **more):
            control.should_training_stop, control.should_save = True, False
            return control

    try:
        trainer(home, OneStep()).train(resume_from_checkpoint=True)
    except Exception:  # noqa: BLE001 - counted
        found["resume raised"] += 1
    return found


def check_ours(home: Path, acknowledged: int) -> Counter[str]:
    """The same of ours."""
    from so8t.loop.checkpoint import Checkpoints

    found = Counter[str](cuts=1)
    checkpoints = Checkpoints(home / "sessions" / "s" / "checkpoints", KEEP)
    try:
        newest = checkpoints.load_newest()
        found["newest unloadable"] += bool(checkpoints.problems)
        found["resume raised"] += newest is None
        found["acknowledged lost"] += newest is None or newest.step < acknowledged
    except Exception:  # noqa: BLE001 - counted
        found["resume raised"] += 1
    return found


def measure(name: str, cuts: int, seed: int, place: Path) -> Counter[str]:
    """One campaign on a disk of its own."""
    total, check = Counter[str](), check_theirs if name == "theirs" else check_ours

    def count(folder: Path, acknowledged: int) -> str:
        total.update(check(folder / "home", acknowledged))
        return ""

    with powercut.Disk(place / f"{name}-{seed}", KIND) as disk:
        command = [sys.executable, __file__, "--write", name, str(disk.live), "--seed", str(seed)]
        powercut.campaign(disk, command, count, cuts, seed, item_s=PERIOD_S)
    return total


def side_by_side(cuts: int, seed: int, place: str) -> dict[str, Counter[str]]:
    """All campaigns, each in a process of its own; what they counted together."""
    running = [
        (name, subprocess.Popen(  # noqa: S603
            [sys.executable, __file__, "--measure", name, place, "--cuts", str(share), "--seed", str(seed + at)],
            stdout=subprocess.PIPE, text=True, encoding="utf-8",
        ))
        for name in ("ours", "theirs")
        for at in range(SIDE_BY_SIDE)
        if (share := len(range(at, cuts, SIDE_BY_SIDE)))
    ]  # fmt: skip
    total = {"ours": Counter[str](), "theirs": Counter[str]()}
    for name, process in running:
        out, _ = process.communicate()
        if process.returncode:
            print(f"one campaign of {name} broke off; its cuts are not counted")
        else:
            total[name].update(json.loads(out))
    return total


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--cuts", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.write:
        {"theirs": write_theirs, "ours": write_ours}[given.write[0]](Path(given.write[1]), given.seed)
        return
    if given.measure:
        print(json.dumps(measure(given.measure[0], given.cuts, given.seed, Path(given.measure[1]))))
        return
    if powercut.why_not():
        sys.exit(powercut.why_not())
    with tempfile.TemporaryDirectory() as place, hasty_kernel():
        total = side_by_side(given.cuts, given.seed, place)
    for name, shown in (("ours", "so8t"), ("theirs", "transformers.Trainer")):
        columns = ("newest unloadable", "resume raised", "acknowledged lost")
        print(f"{shown:22}" + ", ".join(f"{column} {total[name][column]}/{total[name]['cuts']}" for column in columns))


if __name__ == "__main__":
    main()
