"""Processes that train together: each computes its share of a step, the first alone writes.

`torchrun` starts them and says in the environment who is who. All hold the same parameters and the same random
numbers and take the same decisions, so each exchange below is made by all, in the same order. What one of them cannot
do the others learn first: an exchange begins by asking whether somebody has run out of memory, and who has says so
instead of taking part.

With one process everything here gives back what it was given.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn

from so8t.launcher import MEETING_VARIABLE
from so8t.loop.checkpoint import Snapshot
from so8t.loop.rng import capture_rng, restore_rng

T = TypeVar("T")
# A rank may generate for long while another waits; one that has died is noticed by torchrun at once.
TIMEOUT = timedelta(hours=2)
SEEDS = 2**48
_alone = False


class PeerOutOfMemory(RuntimeError):
    """Another process could not do its share; this one must not wait for it."""

    def __init__(self) -> None:
        super().__init__("another process ran out of memory")


def started() -> int:
    """How many processes torchrun has started for this training; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """Whether this process is the one that writes; known before `joined`."""
    return int(os.environ.get("RANK", "0")) == 0


@contextmanager
def joined(device: torch.device) -> Iterator[None]:
    """Exchanges with the other processes are possible inside; gloo on the CPU, NCCL for what lies on a GPU."""
    if started() == 1:
        yield
        return
    distributed.init_process_group(
        "gloo" if device.type == "cpu" else "cpu:gloo,cuda:nccl", timeout=TIMEOUT, **_meeting()
    )
    yield
    # Not where the block was left by an error: this process ends, and who waits for it is told by that.
    distributed.destroy_process_group()


def _meeting() -> dict[str, Any]:
    """The file by which the processes find each other; without one it is torchrun's own TCP store."""
    place = os.environ.get(MEETING_VARIABLE)
    if place is None:
        return {}
    return {"init_method": Path(place).as_uri(), "rank": int(os.environ["RANK"]), "world_size": started()}


def see_own_gpu() -> None:
    """Before CUDA is used: each process sees one GPU, so that none keeps a context on another's."""
    if started() > 1:
        mine = int(os.environ["LOCAL_RANK"])
        seen = os.environ.get("CUDA_VISIBLE_DEVICES")
        os.environ["CUDA_VISIBLE_DEVICES"] = seen.split(",")[mine] if seen else str(mine)


@contextmanager
def alone() -> Iterator[None]:
    """What the block computes is this process's affair; nothing in it is shared."""
    global _alone
    _alone = True
    try:
        yield
    finally:
        _alone = False


def count() -> int:
    """How many take part."""
    together = not _alone and distributed.is_available() and distributed.is_initialized()
    return distributed.get_world_size() if together else 1


def share(items: Sequence[T]) -> list[T]:
    """This process's part: every `count`-th."""
    return list(items)[distributed.get_rank() :: count()] if count() > 1 else list(items)


def check(failed: bool = False) -> None:
    """Before an exchange and at the end of an attempt; PeerOutOfMemory where another process says `failed`."""
    if count() == 1:
        return
    flag = torch.tensor([float(failed)])
    distributed.all_reduce(flag)
    if flag.item() and not failed:
        raise PeerOutOfMemory


def add_up(*tensors: Tensor) -> None:
    """Each becomes the sum over the processes."""
    if count() == 1:
        return
    check()
    for tensor in tensors:
        distributed.all_reduce(tensor)


def add_up_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Each gradient becomes the sum; a parameter that nobody's share has reached keeps none."""
    if count() == 1:
        return
    check()
    reached = torch.tensor([float(parameter.grad is not None) for parameter in parameters])
    distributed.all_reduce(reached)
    for parameter, by in zip(parameters, reached.tolist(), strict=True):
        if by:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            distributed.all_reduce(parameter.grad)


def sums(values: Mapping[str, float]) -> dict[str, float]:
    """Each named number summed in the order of the ranks; a rank may lack some."""
    told: dict[str, float] = {}
    for one in everyones(dict(values)):
        for name, value in one.items():
            told[name] = told.get(name, 0.0) + value
    return told


def everyones(value: T) -> list[T]:
    """What each process holds, by way of JSON."""
    if count() == 1:
        return [value]
    check()
    return [_broadcast(value, source) for source in range(count())]


def agreed(value: T) -> T:
    """What the first process holds, by way of JSON."""
    if count() == 1:
        return value
    check()
    agreed_on: T = _broadcast(value, 0)
    return agreed_on


def _broadcast(value: Any, source: int) -> Any:
    mine = distributed.get_rank() == source
    data = json.dumps(value).encode() if mine else b""
    size = torch.tensor([len(data)])
    distributed.broadcast(size, source)
    told = torch.tensor(list(data), dtype=torch.uint8) if mine else torch.empty(int(size), dtype=torch.uint8)
    distributed.broadcast(told, source)
    return json.loads(bytes(told.tolist()))


def same(tensors: Mapping[str, Tensor]) -> None:
    """All take over what the first process holds."""
    if count() > 1:
        check()
        for name in sorted(tensors):
            distributed.broadcast(tensors[name], 0)


def snapshot_of_first(snapshot: Snapshot | None) -> Snapshot | None:
    """The state from which the first process goes on; the others need no file."""
    if count() == 1:
        return snapshot
    shapes = {n: [str(t.dtype).removeprefix("torch."), list(t.shape)] for n, t in snapshot.tensors.items()} if snapshot else {}  # fmt: skip
    told: Any = agreed([snapshot.step, dict(snapshot.values), shapes] if snapshot else None)
    if told is None:
        return None
    tensors = snapshot.tensors if snapshot else {n: torch.empty(s, dtype=getattr(torch, d)) for n, (d, s) in told[2].items()}  # fmt: skip
    same(tensors)
    return Snapshot(told[0], tensors, told[1])


def rows_of_all(mine: Tensor, rows: int, fill: int) -> Tensor:
    """Whole numbers [b, T] for this process's `share` of so many rows -> [rows, longest T], `fill` after shorter ones."""
    if count() == 1:
        return mine
    check()
    width = torch.tensor([mine.shape[1]])
    distributed.all_reduce(width, distributed.ReduceOp.MAX)
    whole = mine.new_zeros((rows, int(width)))
    rank = distributed.get_rank()
    whole[rank :: count()] = fill
    whole[rank :: count(), : mine.shape[1]] = mine
    distributed.all_reduce(whole)
    return whole


@contextmanager
def own_random_numbers() -> Iterator[None]:
    """Other ones in each process; after it all go on alike, as if one number had been drawn."""
    if count() == 1:
        yield
        return
    seed = int(torch.randint(SEEDS, (1,)))
    kept = capture_rng()
    torch.manual_seed(seed + distributed.get_rank())
    try:
        yield
    finally:
        restore_rng(kept["values"], kept["tensors"])
