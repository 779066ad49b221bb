"""What a look of the monitor costs inside `so8t up`, beside the same look as a process that a worker starts.

    python -m benchmarks.monitor_look [--looks 200]

Starts a server of its own in a temporary home. Prints CPU seconds (of this process, of the peer's processes) and wall
seconds a look, the ratio, and by how much this process has grown over the looks.
"""

import argparse
import logging
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parent.parent
PEER_LOOKS = 3
MB = 1e6


def main() -> None:
    """Both, against one server."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--looks", type=int, default=200)
    looks = parser.parse_args().looks
    from deployments.server import Server
    from so8t.config import load_config

    with tempfile.TemporaryDirectory() as folder:
        calm = ["machine.server_port=0", "monitor.forecast_hours=1e-9", "notify.sound=false", "monitor.interval_s=1e6"]
        config = load_config(ROOT / "configs" / "demo.yaml", calm, Path(folder))
        (Path(folder) / "logs").mkdir()
        with Server(config, Path(folder) / "logs" / "server.log") as server:
            os.environ.update(server.environment())
            _measure(config, looks)


def _measure(config, looks: int) -> None:
    from prefect.client.orchestration import get_client

    from deployments import watchman
    from deployments.register import register
    from deployments.watchman import Watchman

    logging.getLogger("prefect.flow_runs").setLevel(logging.ERROR)  # as `Watchman.start` does
    with get_client(sync_client=True) as client:
        register(client, {})
        deployment = watchman.register(client, config)

        def ask() -> str:
            return str(client.create_flow_run_from_deployment(deployment).id)

        man = Watchman(config, threading.Event(), lambda line: print(line))
        own, sizes, wall = psutil.Process(), [], []
        for number in range(looks + 10):
            if number == 10:
                began = time.process_time()
            ask()
            started = time.monotonic()
            man._serve()
            wall.append(time.monotonic() - started)
            sizes.append(own.memory_info().rss)
        cpu_s = (time.process_time() - began) / looks
        half = len(sizes) // 2
        print(f"in process: {cpu_s:.3f} s CPU, {statistics.median(wall[10:]):.3f} s wall a look, {looks} looks")
        print(
            f"memory: {sizes[10] / MB:.1f} MB after 10, {sizes[half] / MB:.1f} after {half}, {sizes[-1] / MB:.1f} at the end"
        )
        peer = []
        for _ in range(PEER_LOOKS):
            run, before, started = ask(), resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
            subprocess.run([sys.executable, "-m", "prefect", "flow-run", "execute", run], check=True, cwd=ROOT,  # noqa: S603
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            peer.append((used, time.monotonic() - started))
        used, waited = (statistics.median(column) for column in zip(*peer, strict=True))
        print(f"`prefect flow-run execute`: {used:.3f} s CPU, {waited:.3f} s wall a look")
        print(
            f"ratio: {used / cpu_s:.1f} times the CPU, {waited / statistics.median(wall[10:]):.1f} times the wall time"
        )


if __name__ == "__main__":
    main()
