"""How long does a training loop stand still for a checkpoint? Peers: torch.save and DCP's async_save, in the same run.

    OMP_NUM_THREADS=1 python benchmarks/checkpoint_stall.py [--saves 15] [--sizes 25 200]

A small model with AdamW trains on one thread in steps of about 150 ms; parameters and optimizer together hold as
many MB as asked for, and change with every step. The stall of a save is the time from its call until STEPS more
steps are done, less the time of the STEPS steps before it: what blocks the call and what slows the steps down
both count. The methods take turns, so that a moment of a busy machine meets them all.

    ours         so8t.train.writer: copied while the next step is computed, then hashed, fsynced, renamed
    torch.save   to a temporary file, fsync, rename
    async_save   torch.distributed.checkpoint, its default (the state is copied inside the call)
    async+stager the same with DefaultStager(use_async_staging=True), staged before the next optimizer step
"""

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions

from so8t.train.checkpoint import Checkpoints, Snapshot
from so8t.train.writer import Writer

STEPS = 5
STEP_S = 0.15
INTERVAL_S = 180.0
# Width and number of square layers; three numbers a parameter, four bytes each.
SHAPES = {25: (512, 8), 200: (1024, 16)}


class Training:
    """A loop whose state changes with every step."""

    def __init__(self, size_mb: int) -> None:
        width, layers = SHAPES[size_mb]
        torch.manual_seed(0)
        self.model = nn.Sequential(*[nn.Sequential(nn.Linear(width, width), nn.Tanh()) for _ in range(layers)])
        self.adam = torch.optim.AdamW(self.model.parameters(), lr=1e-4)
        self.width, self.batch = width, 64
        self.count = 0
        self.before_change: Callable[[], None] = lambda: None
        for _ in range(6):
            seconds = self.step()
            self.batch = max(8, min(4096, round(self.batch * STEP_S / seconds)))

    def step(self) -> float:
        """Seconds of one step."""
        started = time.perf_counter()
        x = torch.randn(self.batch, self.width)
        loss = (self.model(x) - x).square().mean()
        self.adam.zero_grad()
        loss.backward()
        self.before_change()
        self.adam.step()
        self.count += 1
        return time.perf_counter() - started

    def tensors(self) -> dict[str, torch.Tensor]:
        """Parameters and Adam's state, the living ones."""
        found = dict(self.model.named_parameters())
        own: dict[str, torch.Tensor] = {name: parameter.detach() for name, parameter in found.items()}
        for name, parameter in found.items():
            own |= {f"adam.{name}.{key}": value for key, value in self.adam.state[parameter].items()}
        return own


class Ours:
    """The writer that so8t trains with."""

    def __init__(self, folder: Path, training: Training) -> None:
        self.writer = Writer(Checkpoints(folder, 2), lambda saved: None).__enter__()
        self.training = training
        training.before_change = self.writer.wait_copied

    def save(self) -> None:
        """Begin, or do it all."""
        self.writer.submit("rolling", Snapshot(self.training.count, self.training.tensors(), {}))

    def finish(self) -> None:
        """Until it is on the disk."""
        self.writer.wait()

    def close(self) -> None:
        """End its thread."""
        self.writer.__exit__()


class TorchSave:
    """What most loops do, made durable."""

    def __init__(self, folder: Path, training: Training) -> None:
        self.path, self.training = folder / "checkpoint.pt", training
        folder.mkdir()

    def save(self) -> None:
        """Begin, or do it all."""
        temporary = self.path.with_suffix(".tmp")
        with temporary.open("wb") as file:
            torch.save(self.training.tensors(), file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.path)

    def finish(self) -> None:
        """Nothing is in flight."""

    def close(self) -> None:
        """Nothing to close."""


class AsyncSave:
    """torch.distributed.checkpoint.async_save in a thread; `staged` copies in a thread too."""

    def __init__(self, folder: Path, training: Training, staged: bool) -> None:
        self.folder, self.training = folder, training
        options = StagingOptions(
            use_pinned_memory=False, use_shared_memory=False, use_async_staging=True, use_non_blocking_copy=False
        )
        self.stager = DefaultStager(options) if staged else None
        self.staging: Any = None
        self.upload: Any = None
        if staged:
            training.before_change = self._wait_staged

    def _wait_staged(self) -> None:
        if self.staging is not None:
            self.staging.result()
            self.staging = None

    def save(self) -> None:
        """Begin, or do it all."""
        place = self.folder / str(self.training.count)
        answer = dcp.async_save(self.training.tensors(), checkpoint_id=place, async_stager=self.stager, no_dist=True)
        if self.stager is not None:
            self.staging, self.upload = answer.staging_completion, answer.upload_completion
        else:
            self.upload = answer

    def finish(self) -> None:
        """Until it is on the disk."""
        self.upload.result()
        shutil.rmtree(self.folder)

    def close(self) -> None:
        """End its thread."""
        if self.stager is not None:
            self.stager.close()


def stall(training: Training, method: Any) -> tuple[float, float]:
    """Seconds that one save costs the loop, and seconds that its call blocks."""
    quiet = sum(training.step() for _ in range(STEPS))
    started = time.perf_counter()
    method.save()
    blocked = time.perf_counter() - started
    for _ in range(STEPS):
        training.step()
    disturbed = time.perf_counter() - started
    method.finish()
    return disturbed - quiet, blocked


def noise(training: Training) -> float:
    """The same figure where nothing is saved."""
    return sum(training.step() for _ in range(STEPS)) - sum(training.step() for _ in range(STEPS))


def measure(size_mb: int, saves: int, place: Path) -> dict[str, list[tuple[float, float]]]:
    """Stalls of every method, taking turns."""
    makers: dict[str, Callable[[Path, Training], Any]] = {
        "ours": Ours,
        "torch.save": TorchSave,
        "async_save": lambda folder, training: AsyncSave(folder, training, False),
        "async+stager": lambda folder, training: AsyncSave(folder, training, True),
    }
    trainings = {name: Training(size_mb) for name in makers}
    methods = {name: make(place / name, trainings[name]) for name, make in makers.items()}
    size = sum(tensor.nbytes for tensor in trainings["ours"].tensors().values())
    step_s = statistics.median(trainings["ours"].step() for _ in range(5))
    print(f"\n{size / 1e6:.0f} MB of state, {step_s * 1e3:.0f} ms a step, {saves} saves of each")
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in makers}
    found["(no save)"] = []
    for number in range(saves + 1):
        for name, method in methods.items():
            sample = stall(trainings[name], method)
            # The first one allocates buffers; it happens once in a training.
            if number:
                found[name].append(sample)
        found["(no save)"].append((noise(trainings["ours"]), 0.0))
    for method in methods.values():
        method.close()
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--saves", type=int, default=15)
    parser.add_argument("--sizes", type=int, nargs="+", default=sorted(SHAPES), choices=sorted(SHAPES))
    options = parser.parse_args()
    torch.set_num_threads(1)
    for size_mb in options.sizes:
        with tempfile.TemporaryDirectory(dir=Path.cwd()) as place:
            found = measure(size_mb, options.saves, Path(place))
        ours = statistics.median(sample[0] for sample in found["ours"])
        for name, samples in found.items():
            stalls = sorted(sample[0] for sample in samples)
            median, blocked = statistics.median(stalls), statistics.median(sample[1] for sample in samples)
            print(
                f"{name:>13}: stall median {median * 1e3:8.2f} ms  (quartiles {stalls[len(stalls) // 4] * 1e3:8.2f} .. "
                f"{stalls[3 * len(stalls) // 4] * 1e3:8.2f}), blocked in the call {blocked * 1e3:8.2f} ms, "
                f"{median / INTERVAL_S:.4%} at {INTERVAL_S:.0f} s, ours/it {ours / median:6.2f}"
            )


if __name__ == "__main__":
    main()
