"""The fresh starts that a run's session counts."""

import threading
from concurrent.futures import ThreadPoolExecutor

from so8t.recovery import fresh
from so8t.session import SessionFile, read
from so8t.step import Ref

PARTS = 8


def test_parts_that_lose_a_gpu_in_one_moment_are_all_counted(tmp_path):
    run, together = SessionFile.open(tmp_path, "run-1", "run"), threading.Barrier(PARTS)

    def lose(part: int) -> int:
        together.wait()
        return fresh.count(run, f"cell[{part}]: gpu-lost", Ref("benchmark.cell", str(part)), f"{part}" * 64, 24.0)

    with ThreadPoolExecutor(PARTS) as pool:
        assert list(pool.map(lose, range(PARTS))) == [1] * PARTS
    assert len(read(run.folder).fresh_starts) == PARTS
