"""What two processes tell each other: `torchrun -m tests.train.exchange` in each; an assertion ends it."""

import torch
from torch import nn

from so8t.errors import ResourceError
from so8t.loop import ranks
from so8t.loop.checkpoint import Snapshot
from so8t.loop.microbatch import MicroBatch
from so8t.loop.rng import capture_rng, seed_all

TOO_MUCH_BYTES = 1 << 60


def main() -> None:
    seed_all(0)
    with ranks.joined(torch.device("cpu")):
        first = ranks.is_first()
        assert ranks.count() == 2
        with ranks.alone():
            assert ranks.count() == 1
            assert ranks.share([1, 2, 3]) == [1, 2, 3]
        assert ranks.share([1, 2, 3]) == ([1, 3] if first else [2])
        assert ranks.sums({"a": 1.0} if first else {"a": 2.0, "b": 5.0}) == {"a": 3.0, "b": 5.0}
        assert ranks.agreed({"x": [1, None]} if first else None) == {"x": [1, None]}
        mine = torch.full((2, 1) if first else (1, 3), 1 if first else 2)
        assert ranks.rows_of_all(mine, 3, 9).tolist() == [[1, 9, 9], [2, 2, 2], [1, 9, 9]]
        gradients(first)
        random_numbers()
        snapshot(first)
        out_of_memory(first)


def gradients(first: bool) -> None:
    both, one, none = (nn.Parameter(torch.ones(2)) for _ in range(3))
    both.grad = torch.full((2,), 1.0 if first else 2.0)
    if first:
        one.grad = torch.full((2,), 4.0)
    ranks.add_up_gradients([both, one, none])
    assert both.grad.tolist() == [3.0, 3.0]
    assert one.grad is not None
    assert one.grad.tolist() == [4.0, 4.0]
    assert none.grad is None


def random_numbers() -> None:
    with ranks.own_random_numbers():
        drawn = ranks.everyones(float(torch.rand(1)))
    assert drawn[0] != drawn[1]
    after = ranks.everyones(float(torch.rand(1)))
    assert after[0] == after[1]


def snapshot(first: bool) -> None:
    rng = capture_rng()
    made = Snapshot(7, {"a": torch.arange(3), "empty": torch.zeros(0), **rng["tensors"]}, {"rng": rng["values"]})
    got = ranks.snapshot_of_first(made if first else None)
    assert got is not None
    assert got.step == 7
    assert got.tensors["a"].tolist() == [0, 1, 2]
    assert got.values["rng"]["python"] == rng["values"]["python"]
    assert ranks.snapshot_of_first(None) is None


def out_of_memory(first: bool) -> None:
    """One runs out before an exchange that the other has begun: both halve, and neither waits."""
    tried = []

    def compute(size: int) -> float:
        tried.append(size)
        if size > limit and not first:
            torch.empty(TOO_MUCH_BYTES, dtype=torch.uint8)
        return ranks.sums({"n": float(size)})["n"]

    limit, micro = 2, MicroBatch(8)
    assert micro.attempt(compute) == 4.0
    assert tried == [8, 4, 2]
    limit = 0
    try:
        micro.attempt(compute)
    except ResourceError:
        return
    raise AssertionError("nobody gave up")


if __name__ == "__main__":
    main()
