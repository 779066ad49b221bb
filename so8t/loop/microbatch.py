"""How many samples go through a pass: halved when memory runs out, while the effective batch stays.

An attempt that runs out of memory is begun again from the same random state with half as many samples a pass and
twice as many passes. What a step finds out becomes lasting with its commit, and lies in the checkpoint: a resumed
training goes on with it. Where the process did not live to find it out, its session asks for it (`so8t/asked.py`).
Sums over another split round differently, so such a run ends in other bytes.
"""

import gc
from collections.abc import Callable
from typing import TypeVar

import torch

from so8t import asked
from so8t.errors import ResourceError
from so8t.loop import ranks
from so8t.loop.rng import capture_rng, restore_rng

T = TypeVar("T")
# What allocators say, beside the types that PyTorch and Python raise; cuBLAS and the driver have their own words.
WORDS = ("out of memory", "can't allocate memory", "not enough memory", "cublas_status_alloc_failed")


class MicroBatch:
    """`size` is the one that lasts: changed by `commit` only, which calls it `name`; `batch` is the effective batch."""

    def __init__(self, size: int, name: str = "micro_batch", batch: int = 0) -> None:
        self.name, self.batch = name, batch
        self.size = self._trying = self._told = size
        self._begin(size, asked.now().halvings)

    def attempt(self, compute: Callable[[int], T]) -> T:
        """`compute(size)`, which must begin from nothing each time; ResourceError where one sample is too many."""
        rng = capture_rng()
        while True:
            failed_here = True
            try:
                result = compute(self._trying)
                ranks.check()
                return result
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                told, failed_here = str(error).splitlines()[0], not isinstance(error, ranks.PeerOutOfMemory)
            # Outside the handler: the error's traceback holds the tensors of the pass that failed.
            if failed_here:
                ranks.check(failed=True)
            if self._trying == 1:
                raise ResourceError(
                    f"memory runs out with one sample a pass: {told}",
                    "a config that fits this machine",
                    "see `so8t plan`; shorter sequences, a 4-bit base or a smaller --profile need less",
                )
            self._trying = -(-self._trying // 2)
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            restore_rng(rng["values"], rng["tensors"])

    def commit(self) -> dict[str, float]:
        """Keep what the step found out; a change as metrics, nothing where there was none."""
        if self._trying == self._told:
            return {}
        self.size = self._told = self._trying
        return {self.name: float(self.size), **({"effective_batch": float(self.batch)} if self.batch else {})}

    def restore(self, size: int) -> None:
        """Take over a checkpoint's, and what was asked since."""
        self._begin(size, max(0, asked.now().halvings - asked.now().known))

    def _begin(self, size: int, halvings: int) -> None:
        self._told = size
        self.size = self._trying = asked.halved(size, halvings)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocator refused, on whichever device."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in WORDS)
