"""From `so8t up` to the first resumed training update, broken down; beside it the same training resumed by hand.

    python -m benchmarks.resume_latency [ROUNDS]

Training of the smoke config (made longer) is cut off by SIGKILL of everything. Then, in turn, (a) `so8t up` is
started and goes on with the run by itself, (b) `so8t step train` is started by hand on the same home: what any
start of this training costs without server, worker and orchestration. The bar for (a) is 30 s on two idle cores.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.conftest import ROOT, TINY
from tests.crash.tree import Api, Tree

ARGUMENTS = [*TINY, "--set", "machine.server_port=0", "--set", "train.warmup.steps=100000"]
BAR_S = 30.0
Times = dict[str, float]


def progress_of(path: Path) -> list[dict[str, object]]:
    """The whole lines of a progress file."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.endswith("}")]


def wait_for_update(path: Path, began: float, moments: Times) -> None:
    """Until training reports a step of the warm-up, which is what was cut; note the child's first word, too."""
    while True:
        lines = progress_of(path)
        if lines and "the training process speaks" not in moments:
            moments["the training process speaks"] = float(str(lines[0]["time"])) - began
        done = [line for line in lines if str(line["message"]).startswith("warmup ") and "/" in str(line["message"])]
        if done:
            moments["first resumed update"] = float(str(done[0]["time"])) - began
            return
        time.sleep(0.02)


def attempts(home: Path) -> set[Path]:
    """Folders of the starts so far."""
    return set((home / "logs").glob("attempt_*"))


def by_itself(home: Path, run_id: str) -> Times:
    """`so8t up`, and the moments on its way, in seconds since its start."""
    before, began = attempts(home), time.time()
    tree, moments = Tree(home, *ARGUMENTS), Times()
    words = {
        "server  http": "server healthy",
        "resume  resumed": "run rescheduled",
        "worker  started": "worker started",
    }
    while not (fresh := attempts(home) - before):
        for word, name in words.items():
            if name not in moments and word in tree.said():
                moments[name] = time.time() - began
        time.sleep(0.02)
    moments["flow process has the run"] = time.time() - began
    wait_for_update(fresh.pop() / "train.progress.jsonl", began, moments)
    assert Api(home).run(run_id)["state_name"] == "Running"
    tree.cut()
    return moments


def by_hand(home: Path) -> Times:
    """`so8t step train` on the same home."""
    began, moments, path = time.time(), Times(), home.parent / f"by-hand-{time.monotonic_ns()}.jsonl"
    process = subprocess.Popen(  # noqa: S603
        [sys.executable, "-m", "so8t", "step", "train", "--home", str(home), "--progress-file", str(path), *ARGUMENTS],
        cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    wait_for_update(path, began, moments)
    process.kill()
    process.wait()
    return moments


def main() -> int:
    """Print medians and the ratio; exit 1 above the bar."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        tree = Tree(home, *ARGUMENTS)
        tree.wait_for("worker  started")
        run_id, began = Api(home).start(), time.time()
        while not (found := list(home.glob("logs/attempt_*/train.progress.jsonl"))):
            time.sleep(0.1)
        wait_for_update(found[0], began, Times())
        while not list(home.glob("sessions/train-*/checkpoints/rolling-*")):
            time.sleep(0.1)
        tree.cut()
        itself, hand = [], []
        for _ in range(rounds):
            itself.append(by_itself(home, run_id))
            hand.append(by_hand(home))
    print(f"median of {rounds}, seconds since the start of `so8t up`:")
    for name in itself[0]:
        print(f"  {name:<30} {statistics.median(moments[name] for moments in itself):6.1f}")
    up = [moments["first resumed update"] for moments in itself]
    own = [moments["first resumed update"] for moments in hand]
    print(f"by hand (`so8t step train`):      {statistics.median(own):6.1f}   worst of up: {max(up):.1f}")
    print(f"ratio up / by hand: {statistics.median(up) / statistics.median(own):.2f}   bar: {BAR_S:g} s")
    return 1 if statistics.median(up) > BAR_S else 0


if __name__ == "__main__":
    sys.exit(main())
