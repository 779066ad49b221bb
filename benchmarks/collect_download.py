"""Our downloader beside huggingface_hub's: time, CPU, memory, and what a killed process costs.

    python -m benchmarks.collect_download [--mib 128] [--rounds 3] [--json FILE]

Both fetch the same large file from a Hub on this machine (tests/hub), each time in a new process, in turn; the ratios are
of medians. Ours also hashes what comes and makes it durable, huggingface_hub does neither. Then each is killed
(SIGKILL) when half of the file has come, and started again: bytes fetched twice, and files left beside the result.
"""

import argparse
import hashlib
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.hub import HubServer

OURS = """
import sys
from pathlib import Path
from so8t.collect.download import RemoteFile, bring
kind, repo, revision, name, size, expected, folder = sys.argv[1:]
bring(RemoteFile(kind, repo, revision, name, int(size), expected), Path(folder) / name)
"""
THEIRS = """
import sys
from huggingface_hub import snapshot_download
kind, repo, revision, name, size, expected, folder = sys.argv[1:]
snapshot_download(repo, repo_type=kind, revision=revision, cache_dir=folder, allow_patterns=[name], max_workers=1)
"""
# Of the program alone: what wait4 tells counts the memory of the process that it was forked from.
PEAK = """
import re
from pathlib import Path
print(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text(encoding="utf-8"))[1])
"""
PEERS = {"ours": OURS + PEAK, "huggingface_hub": THEIRS + PEAK}


def start(code: str, arguments: list[str], folder: Path, url: str) -> subprocess.Popen[bytes]:
    """A process that fetches the file into the folder."""
    environment = {**os.environ, "HF_ENDPOINT": url, "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    command = [sys.executable, "-c", code, *arguments, str(folder)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE)  # noqa: S603


def whole(folder: Path, sha256: str) -> bool:
    """Whether the file is there, byte for byte."""
    found = [path for path in folder.rglob("data.bin") if path.is_file()]
    return len(found) == 1 and hashlib.sha256(found[0].read_bytes()).hexdigest() == sha256


def timed(code: str, arguments: list[str], url: str, sha256: str) -> dict[str, float]:
    """Seconds, CPU seconds and peak memory of one whole fetch in a process of its own."""
    with tempfile.TemporaryDirectory() as name:
        began = time.perf_counter()
        child = start(code, arguments, Path(name), url)
        peak_mib, cpu_seconds = ended(child)
        seconds = time.perf_counter() - began
        assert whole(Path(name), sha256)
    return {"seconds": seconds, "cpu_seconds": cpu_seconds, "peak_mib": peak_mib}


def ended(child: subprocess.Popen[bytes]) -> tuple[float, float]:
    """Peak memory in MiB, which the child prints last, and CPU seconds, when it has ended well."""
    assert child.stdout is not None
    printed = child.stdout.read().split()
    _, status, usage = os.wait4(child.pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    return int(printed[-1]) / (1 << 10), usage.ru_utime + usage.ru_stime


def killed(code: str, arguments: list[str], hub: HubServer, size_bytes: int, sha256: str) -> dict[str, Any]:
    """What one kill in the middle costs: bytes that the server sends again, and files that stay behind."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        hub.resolved_bytes, hub.piece_pause_s = 0, 0.002
        child = start(code, arguments, folder, hub.url)
        while child.poll() is None and hub.resolved_bytes < size_bytes // 2:
            time.sleep(0.005)
        assert child.poll() is None, "it ended before the kill"
        child.send_signal(signal.SIGKILL)
        child.wait()
        hub.piece_pause_s = 0.0
        time.sleep(0.2)
        assert start(code, arguments, folder, hub.url).wait() == 0
        assert whole(folder, sha256)
        left = [path.name for path in folder.rglob("*") if path.name.endswith((".incomplete", ".part", ".part.json"))]
        return {"mib_fetched_again": (hub.resolved_bytes - size_bytes) / (1 << 20), "files_left": len(left)}


def measure(mib: int, rounds: int) -> dict[str, Any]:
    """Medians of all rounds, their ratios, and one kill each."""
    data = random.Random(0).randbytes(mib << 20)  # noqa: S311
    sha256 = hashlib.sha256(data).hexdigest()
    with tempfile.TemporaryDirectory() as root, HubServer(Path(root)) as hub:
        repo = hub.store.create("datasets", "lab/data", private=False)
        hub.store.put_object(sha256, data)
        header = {"key": "header", "value": {"summary": "data"}}
        revision = hub.store.commit(
            repo, "main", [header, {"key": "lfsFile", "value": {"path": "data.bin", "oid": sha256}}]
        )
        arguments = ["dataset", "lab/data", revision, "data.bin", str(len(data)), sha256]
        runs: dict[str, list[dict[str, float]]] = {name: [] for name in PEERS}
        for _ in range(rounds):
            for name, code in PEERS.items():
                runs[name].append(timed(code, arguments, hub.url, sha256))
        medians = {
            name: {key: statistics.median(run[key] for run in done) for key in done[0]} for name, done in runs.items()
        }
        kills = {name: killed(code, arguments, hub, len(data), sha256) for name, code in PEERS.items()}
    ratios = {key: medians["ours"][key] / medians["huggingface_hub"][key] for key in medians["ours"]}
    return {"mib": mib, "rounds": rounds, "medians": medians, "ours_to_theirs": ratios, "after_a_kill": kills}


def show(found: dict[str, Any], path: Path | None) -> None:
    """Print the figures, and write them where asked."""
    text = json.dumps(found, indent=2)
    print(text)
    if path:
        path.write_text(text + "\n", encoding="utf-8", newline="\n")


def main() -> int:
    """Print the figures, and write them where asked."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.collect_download", description=__doc__)
    parser.add_argument("--mib", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = measure(options.mib, options.rounds)
    show(found, options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
