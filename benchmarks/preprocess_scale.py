"""What preprocessing takes in memory and time with ten times the documents, beside a data frame that holds them.

    OMP_NUM_THREADS=1 python -m benchmarks.preprocess_scale [--documents 50000] [--times 10]

Documents are those of benchmarks.preprocess_dedup (340 characters, 1 kB; every tenth has an edited copy), made anew in
blocks; one in fifty names a telephone number, and the first 2,000 have a class and a reply. Each measurement is a fresh
process, one thread: every shard, then the join, as the pipeline runs them. The peer is pandas, which reads the same file
into a data frame and drops exact duplicates of the prompt, nothing else. Resident memory is the kernel's own peak;
anonymous memory (without libraries and other mapped files) is looked at every 20 ms.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

import psutil

from so8t import durable, records, resident
from so8t.artifacts import Artifact, Manifest
from so8t.config import Machine
from so8t.preprocess import run as join
from so8t.preprocess import shard
from so8t.preprocess.config import Preprocess
from so8t.preprocess.order import shards_of
from so8t.progress import Progress
from so8t.records import Record

BLOCK, LABELLED = 5_000, 2_000
LOOK_S = 0.02
RATIO_MAX = 1.10


def make(folder: Path, count: int) -> None:
    """The documents as collect leaves them."""
    from benchmarks.preprocess_dedup import documents

    durable.make_folder(folder)
    with records.Stream(folder / "records.parquet") as stream:
        for block in range(-(-count // BLOCK)):
            for text in documents(min(BLOCK, count - block * BLOCK), block)[0]:
                row = stream.count
                said = f"{text}090-1234-{row % 10000:04d}に電話" if row % 50 == 0 else text
                record = Record(f"scale:{row}", "text", "ja", said, source="scale", file="made", row=row, licence="mit")
                if row < LABELLED:
                    record = record.with_(response="はい", label=row % 4, label_source="human")
                stream.add(record)
    durable.write_json(folder / "sources.json", {"sources": []})


def ours(folder: Path, out: Path) -> dict[str, float]:
    """Every shard, then the join; CPU seconds of both."""
    config, progress = Preprocess(), Progress("preprocess", Machine(), out)
    inputs = {"collected": Artifact(folder, Manifest.model_construct())}
    started = time.process_time()
    for number in range(shards_of(folder / "records.parquet", config.shard_rows)):
        place = out / f"shard-{number}"
        durable.make_folder(place)
        facts = shard.run(config.shard(number), {"collected": inputs["collected"]}, place, progress)
        inputs[f"shard.{number}"] = Artifact(place, Manifest.model_construct(facts=facts))
    mapped = time.process_time()
    durable.make_folder(out / "whole")
    join.run(config, inputs, out / "whole", progress)
    return {"shards_s": mapped - started, "join_s": time.process_time() - mapped}


def pandas(folder: Path, out: Path) -> dict[str, float]:
    """A data frame of all rows, and exact duplicates dropped."""
    import pyarrow.parquet as pq

    started = time.process_time()
    frame = pq.read_table(folder / "records.parquet").to_pandas()
    frame.drop_duplicates("prompt").to_parquet(out / "kept.parquet")
    return {"frame_s": time.process_time() - started}


TOOLS: dict[str, Callable[[Path, Path], dict[str, float]]] = {"so8t": ours, "pandas": pandas}


class Anonymous:
    """The most anonymous memory that this process is seen to hold while the block runs, in bytes."""

    def __init__(self) -> None:
        self.peak_bytes, self._done = 0, threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _look(self) -> None:
        process = psutil.Process()
        while not self._done.wait(LOOK_S):
            held = process.memory_info()
            # "shared" is what a file lies behind; other systems do not tell it.
            self.peak_bytes = max(self.peak_bytes, held.rss - getattr(held, "shared", 0))


def measured(tool: str, folder: Path, out: Path) -> dict[str, float]:
    """CPU seconds and peaks of resident and of anonymous memory in MiB, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.preprocess_scale", "--tool", tool, str(folder), str(out)]
    said = subprocess.run(command, check=True, capture_output=True, text=True, encoding="utf-8").stdout  # noqa: S603
    return dict(json.loads(said.splitlines()[-1]))


def main() -> int:
    """Both tools at both sizes; 1 where so8t's memory grows by more than a tenth."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=50_000)
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--tool", nargs=3, metavar=("TOOL", "FOLDER", "OUT"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.tool:
        tool, folder, out = given.tool
        with Anonymous() as anonymous:
            took = TOOLS[tool](Path(folder), Path(out))
        peaks_bytes = {"peak_mib": resident.memory_peak_bytes(), "anonymous_mib": anonymous.peak_bytes}
        print(json.dumps({**took, **{name: size / 2**20 for name, size in peaks_bytes.items()}}))
        return 0
    seen: dict[str, list[dict[str, float]]] = {tool: [] for tool in TOOLS}
    for count in (given.documents, given.documents * given.times):
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "collected"
            make(folder, count)
            for tool in TOOLS:
                out = Path(scratch) / tool
                out.mkdir()
                found = measured(tool, folder, out)
                seen[tool].append(found)
                speed = {
                    name.replace("_s", "_documents_per_s"): round(count / s)
                    for name, s in found.items()
                    if name.endswith("_s")
                }
                memory = {name: round(size) for name, size in found.items() if name.endswith("_mib")}
                print(json.dumps({"tool": tool, "documents": count, **memory, **speed}), flush=True)
    for tool, (small, large) in seen.items():
        ratios = {
            name.replace("_mib", "_ratio"): round(large[name] / small[name], 3)
            for name in small
            if name.endswith("_mib")
        }
        extra = (large["peak_mib"] - small["peak_mib"]) * 2**20 / (given.documents * max(1, given.times - 1))
        print(json.dumps({"tool": tool, **ratios, "bytes_per_further_row": round(extra)}))
    (ours_small, ours_large), (_, peer_large) = (
        [found["peak_mib"] for found in seen[tool]] for tool in ("so8t", "pandas")
    )
    print(json.dumps({"pandas_over_so8t_memory": round(peer_large / ours_large, 2)}))
    return 0 if ours_large <= RATIO_MAX * ours_small else 1


if __name__ == "__main__":
    sys.exit(main())
