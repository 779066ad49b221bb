"""How much does a bounded OpenMP spin save beside a busy process? Peer: libgomp's default, in the same run.

    python benchmarks/openmp_spin.py

Prints seconds a training-like step for the default and for GOMP_SPINCOUNT=5000 (what `so8t` sets in its
children), on an idle machine and beside one busy process, and their ratios. Linux with libgomp only.
"""

import json
import os
import subprocess
import sys
import tempfile

WORK = """
import json, time, torch
torch.set_num_threads(2)
a = [torch.randn(512, 256) for _ in range(8)]
w = [torch.randn(256, 256, requires_grad=True) for _ in range(8)]
def step():
    sum((torch.tanh(x @ m).square().mean() for x, m in zip(a, w)), torch.zeros(())).backward()
for _ in range(5): step()
started = time.perf_counter()
for _ in range(40): step()
print(json.dumps((time.perf_counter() - started) / 40))
"""


def seconds(spin: str | None) -> float:
    """Seconds a step in a fresh process."""
    environment = {
        name: value for name, value in os.environ.items() if name not in {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"}
    }
    if spin is not None:
        environment["GOMP_SPINCOUNT"] = spin
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", WORK], env=environment, capture_output=True, text=True, encoding="utf-8", check=True
    )
    return float(json.loads(done.stdout))


def main() -> None:
    """Measure and print."""
    for name, busy in (("idle", False), ("beside one busy process", True)):
        with tempfile.TemporaryFile() as nothing:
            other = subprocess.Popen([sys.executable, "-c", "while True: pass"], stdout=nothing) if busy else None
            try:
                default, bounded = seconds(None), seconds("5000")
            finally:
                if other is not None:
                    other.kill()
                    other.wait()
        print(
            f"{name}: default {default * 1e3:.2f} ms, GOMP_SPINCOUNT=5000 {bounded * 1e3:.2f} ms, ratio {default / bounded:.2f}"
        )


if __name__ == "__main__":
    main()
