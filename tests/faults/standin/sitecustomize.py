"""Put on PYTHONPATH by a test: the train step's process meets the fault that SO8T_FAULT names, `<kind>:<file>`.

memory      from the first pass of the warm-up on its control group (the file is its folder) may hold 1 GB more, and
            each sample of a pass takes 130 MB: ten at once are more than that, five are not. The kernel does the rest
nan         the warm-up's losses are NaN unless the learning rate is lower than the config's
kill, gpu   the first process ends by SIGKILL, or raises what CUDA raises for a lost device; it makes the file
package     an import fails
"""

import os
import signal
import sys
from pathlib import Path

ROOM, SAMPLE = 1_000_000_000, 130_000_000


def _install(kind: str, path: Path) -> None:
    import torch

    from so8t import asked
    from so8t.train import warmup

    real, limit, calls = warmup.weighted_loss, path / "memory.limit_in_bytes", []
    if kind == "memory":
        (path / "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")
        limit.write_text("-1", encoding="ascii")

    def loss(learner, samples):
        calls.append(len(samples))
        if kind == "memory":
            if len(calls) == 1:
                used = int((path / "memory.usage_in_bytes").read_text(encoding="ascii"))
                limit.write_text(str(used + ROOM), encoding="ascii")
            torch.ones(len(samples) * SAMPLE, dtype=torch.uint8)
        if kind == "nan" and asked.now().rate == 1.0 and len(calls) > 2:
            return real(learner, samples) * float("nan")
        if kind in ("kill", "gpu") and len(calls) > 2 and not path.exists():
            path.touch()
            if kind == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise torch.AcceleratorError("CUDA error: unspecified launch failure")
        if kind == "package":
            raise ModuleNotFoundError("No module named 'bitsandbytes'", name="bitsandbytes")
        return real(learner, samples)

    warmup.weighted_loss = loss


if "SO8T_FAULT" in os.environ and "--progress-file" in sys.orig_argv and "train" in sys.orig_argv:
    _kind, _, _path = os.environ["SO8T_FAULT"].partition(":")
    _install(_kind, Path(_path))
