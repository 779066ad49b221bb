"""How much memory a GGUF takes and how fast it reads and writes, measured in a process that does nothing else."""

import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from statistics import median
from typing import Any

import llama_cpp.llama_cpp as lib

from so8t import pulse
from so8t.bake.config import Speed
from so8t.errors import StepFailed
from so8t.llama import Llama
from so8t.resident import memory_peak_bytes

# Ids of a made-up prompt: ordinary pieces of any vocabulary. What is said does not change the work.
FIRST_ID, IDS = 300, 100
TIMEOUT_S = 1800.0
SIGN_S = 10.0


def measure_speed(path: Path, config: Speed, threads: int, device: str) -> dict[str, Any]:
    """Tokens a second and peak resident bytes of one file; StepFailed where its process ends otherwise than well."""
    wanted = {"path": str(path), "threads": threads, "device": device, "sign_s": SIGN_S, **config.model_dump()}
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", "so8t.bake.speed", json.dumps(wanted)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, text=True, encoding="utf-8",
            cwd=Path(__file__).resolve().parents[2],
        )  # fmt: skip
        last, in_time = _last_line(process)
        if not in_time:
            raise StepFailed(
                f"the speed of {path.name} was not known after {TIMEOUT_S:.0f} s; fewer bake.speed tokens or repeats take "
                "less, and repeats: 0 measures nothing"
            )
        if process.returncode:
            errors.seek(0)
            said = errors.read().decode("utf-8", errors="replace")
            raise StepFailed(
                f"the speed of {path.name} could not be measured (exit code {process.returncode})\n{said[-2000:]}"
            )
    found: dict[str, Any] = json.loads(last)
    return found


def _last_line(process: subprocess.Popen[str]) -> tuple[str, bool]:
    """What it said last, and whether it ended by itself in time; each line is a sign of life."""
    overdue, last = threading.Event(), ""

    def end() -> None:
        overdue.set()
        process.kill()

    late = threading.Timer(TIMEOUT_S, end)
    late.start()
    try:
        # Leaving the block waits for the process's end.
        with process:
            try:
                for line in process.stdout or ():
                    last = line
                    pulse.beat()
            except BaseException:
                process.kill()
                raise
    finally:
        late.cancel()
    return last, not overdue.is_set()


def measure_here(path: Path, config: Speed, threads: int, device: str) -> dict[str, Any]:
    """What this process, fresh, finds: medians of `repeats` after one run that counts for nothing."""
    before = memory_peak_bytes()
    prompt = [FIRST_ID + number % IDS for number in range(config.prompt_tokens)]
    gpu = device != "cpu" and bool(lib.llama_supports_gpu_offload())
    reading, writing = [], []
    with Llama(path, context=config.prompt_tokens + config.new_tokens, threads=threads, gpu=gpu) as model:
        for _ in range(config.repeats + 1):
            started = time.perf_counter()
            model.last_logits([prompt])
            read = time.perf_counter()
            # The first new token comes from the prompt's own pass.
            model.generate([prompt], config.new_tokens + 1, stop=[])
            reading.append(read - started)
            writing.append(time.perf_counter() - read - reading[-1])
        threads = model.threads
    return {
        "memory_peak_bytes": memory_peak_bytes(),
        "memory_before_bytes": before,
        "prompt_tokens_per_s": round(config.prompt_tokens / median(reading[1:]), 2),
        # A generation on a busy machine can be faster than the prompt's pass before it.
        "new_tokens_per_s": round(config.new_tokens / max(median(writing[1:]), 1e-9), 2),
        "threads": threads,
        "on": "GPU" if gpu else "CPU",
    }


def main() -> None:
    """Print the result as the last line, as JSON; before it a line now and then, while the work goes on."""
    wanted = json.loads(sys.argv[1])
    path, threads, device = Path(wanted.pop("path")), wanted.pop("threads"), wanted.pop("device")
    sign_s, said_at = wanted.pop("sign_s"), time.monotonic()

    def say() -> None:
        nonlocal said_at
        # Rarely: what is measured must not wait for it.
        if time.monotonic() - said_at >= sign_s:
            said_at = time.monotonic()
            sys.stdout.write("measuring\n")
            sys.stdout.flush()

    with pulse.heard(say):
        found = measure_here(path, Speed.model_validate(wanted), threads, device)
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
