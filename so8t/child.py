"""Runs a step in a process of its own: `python -m so8t step NAME ...`.

A CUDA fault, a segfault or the kernel's OOM killer then ends a child with an exit code and frees
the GPU. Its output goes to a file, its progress to another file that this process follows, and
its error comes back as typed JSON. It dies with its parent: the parent holds the write end of its
standard input, and the kernel closes that however the parent ends.
"""

import _thread
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil

from so8t import durable, errors, faults, hang, lifeline
from so8t.artifacts import Artifact, Store
from so8t.config import Config
from so8t.errors import Interrupted, So8tError, StepFailed, UserError
from so8t.launcher import launcher
from so8t.progress import Sink, follow
from so8t.step import Ref, plan

POLL_S = 0.1
# Between two looks at the memory that is left.
LOOK_S = 1.0
# Less than this share of the machine's memory free is scarce: guards in user space act at some percent.
SCARCE_SHARE = 0.05
# Time for an emergency checkpoint between the request to stop and the kill.
STOP_GRACE_S = 30.0
LOG_TAIL_LINES = 15
# By it a step's process is known from outside.
DIE_WITH_STDIN = "--die-with-stdin"
# The exit code of a step whose disk was so full that not even this could be noted.
NO_ROOM = 74
# The step that several processes may share.
SHARED = "train"

# Set by the signal handler: children run in threads, which an exception in the main thread does not reach.
stopping = threading.Event()
_alive: set[int] = set()


def stop_all() -> None:
    """Have every running child save and stop, and wait until they have."""
    if not _alive:
        return
    stopping.set()
    deadline = time.monotonic() + 2 * STOP_GRACE_S
    while _alive and time.monotonic() < deadline:
        time.sleep(POLL_S / 2)


def run(ref: Ref, config: Config, store: Store, sinks: tuple[Sink, ...], logs: Path) -> Artifact:
    """Make the step's artifact in a child process; the child's error is raised here as its own type."""
    files = {kind: log_file(logs, ref, suffix) for kind, suffix in _FILES.items()}
    durable.write_text(files["config"], config.model_dump_json(indent=2))
    for told in ("error", "ended"):
        files[told].unlink(missing_ok=True)
    command = ["so8t", "step", ref.step, "--config", str(files["config"]), "--home", str(store.home)]
    command += ["--progress-file", str(files["progress"]), "--error-file", str(files["error"]), DIE_WITH_STDIN]
    if ref.part:
        command += ["--part", ref.part]
    killed_before = faults.oom_kills()
    with files["log"].open("ab") as log, launcher(processes_of(ref, config)) as launched:
        process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", *launched.module, *command],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=Path(__file__).parent.parent,
            env={**_environment(ref, config), **launched.environment},
            start_new_session=os.name != "nt",
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )
        _alive.add(process.pid)
        memory = _Memory()
        try:
            code = _wait(process, ref, config, files["progress"], sinks, memory)
        except BaseException:
            _stop(process)
            raise
        finally:
            _alive.discard(process.pid)
    if code != 0:
        if (hung := hang.found(files["ended"], str(ref), files["log"])) is not None:
            raise hung
        kills = faults.oom_kills() - killed_before
        fault = faults.classify_exit(code, kills, memory.scarce)
        # Nobody here asked for a stop: not of what torchrun stops where one of several has ended, nor of what a guard
        # ends by SIGTERM before the memory is gone.
        starved = kills > 0 or memory.scarce
        unasked = faults.Fault.HOST_MEMORY if starved else faults.Fault.CRASH if processes_of(ref, config) > 1 else None
        raise _error(ref, code, fault, files, unasked)
    planned = plan(ref, config, store)
    found = store.find(ref.step, planned.key)
    if found is None:
        raise StepFailed(f"{ref} ended with exit code 0 but left no artifact {planned.key[:12]}; see {files['log']}")
    return found


def processes_of(ref: Ref, config: Config) -> int:
    """How many processes make the step together."""
    return config.machine.processes if ref.step == SHARED else 1


PROGRESS = "progress.jsonl"
_FILES = {
    "config": "config.yaml",
    "progress": PROGRESS,
    "error": "error.json",
    "ended": hang.SUFFIX,
    "log": "log",
}


def log_file(logs: Path, ref: Ref, suffix: str) -> Path:
    """A file of an attempt that belongs to one step or part."""
    name = str(ref).replace("[", "-").replace("]", "").replace(":", "-")
    return logs / f"{name}.{suffix}"


class _Memory:
    """Whether hardly any memory was left when it was last looked at."""

    def __init__(self) -> None:
        self.scarce = False
        self._looked_at = 0.0

    def look(self) -> None:
        """Now and then."""
        if time.monotonic() - self._looked_at >= LOOK_S:
            self._looked_at, found = time.monotonic(), psutil.virtual_memory()
            self.scarce = found.available < SCARCE_SHARE * found.total


def _wait(
    process: subprocess.Popen[bytes],
    ref: Ref,
    config: Config,
    progress: Path,
    sinks: tuple[Sink, ...],
    memory: _Memory,
) -> int:
    deadline = time.monotonic() + config.machine.step_timeout_s
    offset = progress.stat().st_size if progress.exists() else 0
    while (code := process.poll()) is None:
        offset = follow(progress, sinks, offset)
        if stopping.is_set():
            raise Interrupted(f"{ref} was stopped; the same command goes on from here")
        memory.look()
        if time.monotonic() > deadline:
            raise StepFailed(f"{ref} took longer than machine.step_timeout_s = {config.machine.step_timeout_s:g} s")
        time.sleep(POLL_S)
    follow(progress, sinks, offset)
    return code


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ask the child to save and stop; kill it after the grace."""
    if os.name == "nt":
        # SIGTERM is TerminateProcess there, and Ctrl+Break reaches only who shares a console: the child sees the end of
        # its standard input and does what SIGTERM does elsewhere.
        with contextlib.suppress(OSError):
            process.stdin.close()  # type: ignore[union-attr]
    else:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_GRACE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _environment(ref: Ref, config: Config) -> dict[str, str]:
    """Mapped parts share the cores; a single step has them all."""
    cores = os.cpu_count() or 1
    share = max(1, cores // (config.machine.workers if ref.part else processes_of(ref, config)))
    threads = str(config.machine.threads or share)
    return {
        # A waiting OpenMP thread must not spin long: one measurement of the demo's training step beside a busy
        # process was far slower with libgomp's default. benchmarks/openmp_spin.py does not reproduce it yet.
        "GOMP_SPINCOUNT": "5000",
        "KMP_BLOCKTIME": "0",
        **os.environ,
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "OPENBLAS_NUM_THREADS": threads,
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONUTF8": "1",
        "PYTHONUNBUFFERED": "1",
    }


def _error(
    ref: Ref, code: int, fault: faults.Fault, files: dict[str, Path], unasked: faults.Fault | None = None
) -> So8tError:
    """The child's own error where it could still say it, else what its end means (`fault`).

    `unasked` is what a stop means that nobody here asked for; without it a stop is the wish of whoever made it.
    """
    if files["error"].exists():
        told: dict[str, Any] = durable.read_json(files["error"])
        error = _told(ref, told, files["log"], unasked)
        error.fault = error.fault or told["fault"]
        error.endpoint, error.wait_s, error.place = told["endpoint"], told["wait_s"], told["place"]
        return error
    if code == NO_ROOM:
        full = StepFailed(f"{ref}: the disk is full at {files['error'].parent}: not even its error could be noted")
        full.fault, full.place = faults.Fault.DISK_FULL, str(files["error"])
        return full
    if code in (130, 143) and unasked is None:
        # It saved and ended while its main thread was still in native code.
        return Interrupted(f"{ref} was stopped; the same command goes on from here", exit_code=code)
    tail = files["log"].read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_TAIL_LINES:]
    error = StepFailed(
        f"{ref} ended with {describe_exit(code)} ({fault})\nthe end of {files['log']}:\n" + "\n".join(tail)
    )
    error.fault = unasked if unasked is not None and fault is faults.Fault.STOPPED else fault
    return error


def _told(ref: Ref, told: dict[str, Any], log: Path, unasked: faults.Fault | None) -> So8tError:
    """The child's error as its own type."""
    kind = getattr(errors, told["type"], StepFailed)
    if issubclass(kind, UserError):
        return kind(told["found"], told["wanted"], told["do"])
    if issubclass(kind, Interrupted) and unasked is not None:
        error = StepFailed(f"{ref}: a process of it was ended ({unasked}); {told['message']}; see {log}")
        error.fault = unasked
        return error
    if issubclass(kind, Interrupted):
        return Interrupted(told["message"], exit_code=told["exit_code"])
    return kind(f"{ref}: {told['message']}")


def describe_exit(code: int) -> str:
    """An exit code in words."""
    if code < 0:
        return f"signal {signal.Signals(-code).name}"
    return f"exit code {code}"


def leave_error(path: Path, error: BaseException) -> None:
    """Write it. Where the disk is so full that it refuses even that, end this process with the code that says so."""
    try:
        write_error(path, error)
    except (OSError, So8tError) as refusal:
        with contextlib.suppress(OSError):
            sys.stderr.write(f"so8t: {path} took no note of how the run ended: {refusal}\n")
        if faults.classify(error) is faults.Fault.DISK_FULL:
            # At once: the log is on that disk too, and output that cannot be flushed would change the code.
            os._exit(NO_ROOM)


def write_error(path: Path, error: BaseException) -> None:
    """What the child leaves for its parent."""
    told: dict[str, Any] = {
        "type": type(error).__name__, "fault": faults.classify(error),
        "message": faults.without_password(str(error)),
        "endpoint": "", "wait_s": 0.0, "place": "", **faults.evidence(error),
    }  # fmt: skip
    if isinstance(error, UserError):
        told |= {"found": faults.without_password(error.found), "wanted": error.wanted, "do": error.do}
    if isinstance(error, So8tError):
        told |= {"exit_code": error.exit_code}
    durable.write_json(path, told)


def die_with_stdin() -> None:
    """Stop this process when its parent is gone: SIGTERM first, so that it may save, then for good."""

    def stop() -> None:
        _thread.interrupt_main(signal.SIGTERM)
        time.sleep(STOP_GRACE_S)
        os._exit(143)

    lifeline.at_end(stop)
