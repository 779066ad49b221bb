"""Writes checkpoints beside the training, which waits for nothing but the copy of its state.

Parameters change in commits only. So the copy into host memory is made while the next step is being
computed, and only the next commit waits for it (`wait_copied`). Hashing, writing and fsync release the
interpreter's lock.
"""

import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from so8t.loop.checkpoint import Checkpoints, GivenUp, Kind, Snapshot, host_bytes


@dataclass(frozen=True)
class Saved:
    """A checkpoint that is durable, and what it took."""

    path: Path
    step: int
    size_bytes: int
    copy_s: float
    save_s: float


class HostBuffers:
    """Host memory for one snapshot, used again for the next: new pages cost many times the copy into old ones."""

    def __init__(self) -> None:
        self._buffers: dict[str, Tensor] = {}

    def copy(self, tensors: Mapping[str, Tensor], ready: "torch.cuda.Event | None" = None) -> dict[str, Tensor]:
        """Copies on the CPU, valid until the next call. `ready`: when those on a GPU may be read."""
        stream = torch.cuda.Stream() if ready is not None else None  # type: ignore[no-untyped-call]
        if stream is not None and ready is not None:
            stream.wait_event(ready)
        self._buffers = {name: self._buffer(name, tensor) for name, tensor in tensors.items()}
        with torch.cuda.stream(stream):
            for name, tensor in tensors.items():
                if tensor.is_cuda:
                    self._buffers[name].copy_(tensor, non_blocking=True)
                else:
                    # Tensor.copy_ would start a second set of OpenMP threads beside the training's own.
                    np.copyto(host_bytes(self._buffers[name]), host_bytes(tensor))
        if stream is not None:
            stream.synchronize()
        return dict(self._buffers)

    def prepare(self, tensors: Mapping[str, Tensor]) -> None:
        """Have the memory ready for such a snapshot."""
        self._buffers = {name: self._buffer(name, tensor) for name, tensor in tensors.items()}
        for buffer in self._buffers.values():
            host_bytes(buffer).fill(0)

    def _buffer(self, name: str, tensor: Tensor) -> Tensor:
        held = self._buffers.get(name)
        if held is not None and held.shape == tensor.shape and held.dtype == tensor.dtype:
            return held
        return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)


class Writer:
    """One save in flight at most; its error is raised by the next call of the training."""

    def __init__(self, checkpoints: Checkpoints, report: Callable[[Saved], None]) -> None:
        """`report` is called in the writer's thread once a checkpoint is durable."""
        self.checkpoints, self._report = checkpoints, report
        self._buffers = HostBuffers()
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._copied, self._idle, self._unwanted = threading.Event(), threading.Event(), threading.Event()
        self._copied.set()
        self._idle.set()
        self._step: int | None = None
        self._note_waits = False
        self._error: BaseException | None = None
        self._at_once = threading.Lock()
        self._thread = threading.Thread(target=self._work, name="checkpoint-writer", daemon=True)

    def __enter__(self) -> "Writer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._jobs.put(None)
        self._thread.join()

    @property
    def busy(self) -> bool:
        """Whether a save is in flight."""
        return not self._idle.is_set()

    def submit(self, kind: Kind, snapshot: Snapshot, tag: str = "") -> None:
        """Begin to save; the snapshot's tensors may be the living ones, but must not change before `wait_copied`."""
        self.wait()
        self._step = snapshot.step
        self._idle.clear()
        self._copied.clear()
        ready = torch.cuda.current_stream().record_event() if _on_gpu(snapshot) else None
        self._jobs.put(lambda: self._save(kind, snapshot, tag, ready))

    def prepare(self, tensors: Mapping[str, Tensor]) -> None:
        """Get memory for snapshots of this kind, so that the first one need not wait for it."""
        self._jobs.put(lambda: self._buffers.prepare(tensors))

    def note(self, write: Callable[[], None]) -> None:
        """Run a small durable write in the writer's thread; left out while the one before still waits."""
        if not self._note_waits:
            self._note_waits = True
            self._jobs.put(lambda: self._noted(write))

    def wait_copied(self) -> None:
        """Return once the state may change again. Raises the error of an earlier save."""
        self._copied.wait()
        self._raise()

    def wait(self) -> None:
        """Return once nothing is in flight. Raises the error of an earlier save."""
        self._idle.wait()
        self._raise()

    def save_now(self, kind: Kind, snapshot: Snapshot) -> Path:
        """Durable when it returns. The state stands still until then; called from any thread.

        What is in flight is waited for if it is this very state, else it is given up.
        """
        with self._at_once:
            if self._step != snapshot.step:
                self._unwanted.set()
            self._idle.wait()
            self._unwanted.clear()
            if _on_gpu(snapshot):
                ready = torch.cuda.current_stream().record_event()
                snapshot = Snapshot(snapshot.step, self._buffers.copy(snapshot.tensors, ready), snapshot.values)
            return self.checkpoints.save(kind, snapshot)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job()
            except BaseException as error:  # noqa: BLE001 - raised again in the training's thread
                self._error = error

    def _save(self, kind: Kind, snapshot: Snapshot, tag: str, ready: "torch.cuda.Event | None") -> None:
        try:
            started = time.monotonic()
            host = Snapshot(snapshot.step, self._buffers.copy(snapshot.tensors, ready), snapshot.values)
            copy_s = time.monotonic() - started
            self._copied.set()
            path = self.checkpoints.save(kind, host, tag, self._unwanted.is_set)
            size_bytes = sum(tensor.nbytes for tensor in host.tensors.values())
            self._report(Saved(path, snapshot.step, size_bytes, copy_s, time.monotonic() - started))
        except GivenUp:
            return
        finally:
            self._copied.set()
            self._idle.set()

    def _noted(self, write: Callable[[], None]) -> None:
        self._note_waits = False
        write()

    def _raise(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            raise error


def _on_gpu(snapshot: Snapshot) -> bool:
    return any(tensor.is_cuda for tensor in snapshot.tensors.values())
