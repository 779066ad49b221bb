"""Peak memory of collecting: ten times the rows, the same memory.

    python -m benchmarks.collect_memory [--rows 20000] [--json FILE]

A JSONL file of rows of 1 kB is collected as a `files` source, then one of ten times as many, each in a process of its own.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.collect_download import PEAK, ended, show

COLLECT = """
import sys
from pathlib import Path
from so8t.collect import source
from so8t.collect.config import FilesSource
from so8t.config import Machine
from so8t.progress import Progress
file, out = Path(sys.argv[1]), Path(sys.argv[2])
config = FilesSource(kind="files", name="rows", paths=(file,), licence="mit")
assert source.run(config, {}, out, Progress("collect.source", Machine(), out.parent))["rows"] == int(sys.argv[3])
"""


def peak(rows: int) -> dict[str, float]:
    """Peak memory and CPU seconds of collecting so many rows."""
    draw = random.Random(rows)  # noqa: S311
    with tempfile.TemporaryDirectory() as name:
        file, out = Path(name) / "rows.jsonl", Path(name) / "out"
        out.mkdir()
        with file.open("w", encoding="utf-8", newline="\n") as lines:
            for _ in range(rows):
                row = {"prompt": draw.randbytes(250).hex(), "response": draw.randbytes(250).hex(), "language": "en"}
                lines.write(json.dumps(row) + "\n")
        command = [sys.executable, "-c", COLLECT + PEAK, str(file), str(out), str(rows)]
        child = subprocess.Popen(command, stdout=subprocess.PIPE)  # noqa: S603
        peak_mib, cpu_seconds = ended(child)
    return {"rows": rows, "peak_mib": peak_mib, "cpu_seconds": cpu_seconds}


def main() -> int:
    """Print the figures, and write them where asked."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.collect_memory", description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    few, many = peak(options.rows), peak(10 * options.rows)
    found: dict[str, Any] = {"few": few, "many": many, "many_to_few": many["peak_mib"] / few["peak_mib"]}
    show(found, options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
