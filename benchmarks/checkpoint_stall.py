"""How long does a training loop stand still for a checkpoint? Peers: torch.save and DCP's async_save, in the same run.

    OMP_NUM_THREADS=1 python benchmarks/checkpoint_stall.py [--saves 15] [--sizes 25 200] [--place DIR]

A small model with AdamW trains on one thread in steps of about 150 ms; parameters and optimizer together hold as
many MB as asked for, and change with every step. The stall of a save is the time from its call until it is on the
disk and the step that then runs is done, less as many times the median of the steps around it without a save: what
blocks the call and what slows the steps down both count. The methods take turns, so that a moment of a busy machine
meets them all; "(no save)" is what the same measure says where nothing is saved, the noise.

Other programs disturb that figure on a machine that is not idle. So a second one counts CPU seconds of the loop's
thread (caches and memory that the save takes away cost it CPU time too) and adds what it waited in the calls.

    ours         so8t.loop.writer: copied while the next step is computed, then hashed, fsynced, renamed
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions

from so8t.loop.checkpoint import Checkpoints, Snapshot
from so8t.loop.writer import Writer

QUIET = 4
STEP_S = 0.15
INTERVAL_S = 180.0
# Width and number of square layers; three numbers a parameter, four bytes each.
SHAPES = {25: (512, 8), 200: (1024, 16)}


@dataclass(frozen=True)
class Cost:
    """Seconds by the clock, seconds of the loop's own thread, and those of waiting in the calls of the method."""

    wall: float
    cpu: float
    waited: float


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
            cost = self.step()
            self.batch = max(8, min(4096, round(self.batch * STEP_S / cost.cpu)))

    def step(self) -> Cost:
        """One step."""
        wall, cpu = time.perf_counter(), time.thread_time()
        x = torch.randn(self.batch, self.width)
        loss = (self.model(x) - x).square().mean()
        self.adam.zero_grad()
        loss.backward()
        waited = call(self.before_change).waited
        self.adam.step()
        self.count += 1
        return Cost(time.perf_counter() - wall, time.thread_time() - cpu, waited)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Parameters and Adam's state, the living ones."""
        found = dict(self.model.named_parameters())
        own: dict[str, torch.Tensor] = {name: parameter.detach() for name, parameter in found.items()}
        for name, parameter in found.items():
            own |= {f"adam.{name}.{key}": value for key, value in self.adam.state[parameter].items()}
        return own


def call(action: Callable[[], None]) -> Cost:
    """What a call of the method costs."""
    wall, cpu = time.perf_counter(), time.thread_time()
    action()
    wall, cpu = time.perf_counter() - wall, time.thread_time() - cpu
    return Cost(wall, cpu, wall - cpu)


class Ours:
    """The writer that so8t trains with."""

    def __init__(self, folder: Path, training: Training) -> None:
        self.writer = Writer(Checkpoints(folder, 2), lambda saved: None).__enter__()
        self.training = training
        training.before_change = self.writer.wait_copied

    def save(self) -> None:
        """Begin, or do it all."""
        self.writer.submit("rolling", Snapshot(self.training.count, self.training.tensors(), {}))

    def done(self) -> bool:
        """Whether it is on the disk."""
        return not self.writer.busy

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

    def done(self) -> bool:
        """At once."""
        return True

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

    def done(self) -> bool:
        """Whether it is on the disk."""
        return bool(self.upload.done())

    def finish(self) -> None:
        """Until it is on the disk."""
        self.upload.result()
        shutil.rmtree(self.folder)

    def close(self) -> None:
        """End its thread."""
        if self.stager is not None:
            self.stager.close()


def stall(training: Training, method: Any) -> tuple[float, float, float]:
    """Seconds that one save costs the loop, by the clock and by its own thread, and seconds that its call blocks."""
    if hasattr(os, "sync"):
        os.sync()  # what the one before left for the kernel to write is not this one's
    training.step()
    quiet = [training.step() for _ in range(QUIET)]
    saving = call(method.save)
    disturbed = [saving]
    while len(disturbed) < 3 or not method.done():
        disturbed.append(training.step())
    method.finish()
    training.step()
    quiet += [training.step() for _ in range(QUIET)]
    steps = len(disturbed) - 1
    wall = sum(cost.wall for cost in disturbed) - steps * statistics.median(cost.wall for cost in quiet)
    own = sum(cost.cpu + cost.waited for cost in disturbed) - steps * statistics.median(cost.cpu for cost in quiet)
    return wall, own, saving.wall


class Nothing:
    """Saves nothing."""

    def __init__(self, folder: Path, training: Training) -> None:
        pass

    def save(self) -> None:
        """Nothing."""

    def done(self) -> bool:
        """At once."""
        return True

    def finish(self) -> None:
        """Nothing is in flight."""

    def close(self) -> None:
        """Nothing to close."""


def measure(size_mb: int, saves: int, place: Path) -> dict[str, list[tuple[float, float, float]]]:
    """Stalls of every method, taking turns."""
    makers: dict[str, Callable[[Path, Training], Any]] = {
        "ours": Ours,
        "torch.save": TorchSave,
        "async_save": lambda folder, training: AsyncSave(folder, training, False),
        "async+stager": lambda folder, training: AsyncSave(folder, training, True),
        "(no save)": Nothing,
    }
    trainings = {name: Training(size_mb) for name in makers}
    methods = {name: make(place / name, trainings[name]) for name, make in makers.items()}
    size = sum(tensor.nbytes for tensor in trainings["ours"].tensors().values())
    step_s = statistics.median(trainings["ours"].step().wall for _ in range(5))
    print(f"\n{size / 1e6:.0f} MB of state, {step_s * 1e3:.0f} ms a step, {saves} saves of each")
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in makers}
    for number in range(saves + 1):
        for name, method in methods.items():
            sample = stall(trainings[name], method)
            # The first one allocates buffers; it happens once in a training.
            if number:
                found[name].append(sample)
    for method in methods.values():
        method.close()
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--saves", type=int, default=15)
    parser.add_argument("--sizes", type=int, nargs="+", default=sorted(SHAPES), choices=sorted(SHAPES))
    parser.add_argument("--place", type=Path, help="a folder on a real disk, where /tmp is in memory")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for size_mb in options.sizes:
        with tempfile.TemporaryDirectory(dir=options.place) as place:
            found = measure(size_mb, options.saves, Path(place))
        for kind, words in enumerate(("by the clock", "own thread and waits")):
            ours = statistics.median(sample[kind] for sample in found["ours"])
            for name, samples in found.items():
                stalls = sorted(sample[kind] for sample in samples)
                median, blocked = statistics.median(stalls), statistics.median(sample[2] for sample in samples)
                print(
                    f"{words:>20} {name:>13}: stall median {median * 1e3:8.2f} ms  (quartiles "
                    f"{stalls[len(stalls) // 4] * 1e3:8.2f} .. {stalls[3 * len(stalls) // 4] * 1e3:8.2f}), blocked in "
                    f"the call {blocked * 1e3:7.2f} ms, {median / INTERVAL_S:.4%} at {INTERVAL_S:.0f} s, "
                    f"ours/it {ours / median:6.2f}"
                )


if __name__ == "__main__":
    main()
