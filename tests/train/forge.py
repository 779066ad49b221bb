"""Starts tiny trainings in processes of their own without importing everything each time.

One process imports and forks for each training; where there is no fork, each training imports for itself.
"""

import contextlib
import importlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}

IMPORTED = (
    "so8t.cli", "so8t.train.run", "transformers.models.llava.modeling_llava",
    "transformers.models.phi3.modeling_phi3", "transformers.models.siglip.modeling_siglip",
)  # fmt: skip


class Process:
    """A training that runs; `pid` and the exit code as subprocess gives them."""

    def __init__(self, home: Path) -> None:
        """Before it begins: what earlier ones said is passed over."""
        self.pid, self.home = 0, home
        self._progress = home / "progress.jsonl"
        self._offset = self._progress.stat().st_size if self._progress.exists() else 0
        self._code: int | None = None
        self._codes: queue.SimpleQueue[int] = queue.SimpleQueue()

    def began(self, pid: int) -> "Process":
        self.pid = pid
        return self

    def ended(self, code: int) -> None:
        self._codes.put(code)

    def poll(self) -> int | None:
        if self._code is None:
            with contextlib.suppress(queue.Empty):
                self._code = self._codes.get_nowait()
        return self._code

    def wait(self, timeout: float = 400.0) -> int:
        if self._code is None:
            self._code = self._codes.get(timeout=timeout)
        return self._code

    def wait_at_most(self, seconds: float) -> None:
        """Until it ends, or for so long."""
        end = time.monotonic() + seconds
        while self.poll() is None and time.monotonic() < end:
            time.sleep(0.001)

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def await_word(self, *words: str) -> str:
        """Which of the words this process said in a progress message; empty if it ended without."""
        while self.poll() is None:
            if self._progress.exists():
                said = self._progress.read_text(encoding="utf-8")[self._offset :]
                if found := next((word for word in words if word in said), ""):
                    return found
            time.sleep(0.001)
        return ""

    def stop_when(self, word: str, number: int) -> int:
        """Send the signal as soon as the word is said; the exit code."""
        if not self.await_word(word):
            log = (self.home / "log").read_text(encoding="utf-8")
            raise AssertionError(f"{word!r} never came, exit code {self.wait()}: {log[-2000:]}")
        self.send_signal(number)
        return self.wait()


class Forge:
    """Entered for as long as trainings are to be started; `module` has the `main` that each one runs."""

    def __init__(self, module: str = "tests.train.tiny") -> None:
        self._module = module

    def __enter__(self) -> "Forge":
        self._running: dict[int, Process] = {}
        if hasattr(os, "fork"):
            self._server = subprocess.Popen(
                [sys.executable, "-m", "tests.train.forge", self._module],
                cwd=ROOT, env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8",
            )  # fmt: skip
            self._pids: queue.SimpleQueue[int] = queue.SimpleQueue()
            threading.Thread(target=self._listen, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        if hasattr(os, "fork"):
            self._server.stdin.close()
            self._server.wait(100)

    def start(self, world: Path, home: Path, *more: object) -> Process:
        """Begin `python -m MODULE WORLD HOME ...`; its output goes to HOME/log."""
        home.mkdir(exist_ok=True)
        arguments = [str(one) for one in (world, home, *more)]
        process = Process(home)
        if not hasattr(os, "fork"):
            return self._plain(process, arguments)
        self._server.stdin.write(json.dumps(arguments) + "\n")
        self._server.stdin.flush()
        pid = self._pids.get(timeout=400)
        self._running[pid] = process.began(pid)
        return process

    def _plain(self, process: Process, arguments: list[str]) -> Process:
        with (process.home / "log").open("ab") as log:
            child = subprocess.Popen(
                [sys.executable, "-m", self._module, *arguments],
                cwd=ROOT,
                env=ENVIRONMENT,
                stdout=log,
                stderr=log,
            )
        process.began(child.pid)
        threading.Thread(target=lambda: process.ended(child.wait()), daemon=True).start()
        return process

    def _listen(self) -> None:
        for line in self._server.stdout:
            told = json.loads(line)
            if "code" not in told:
                self._pids.put(told["pid"])
                continue
            while told["pid"] not in self._running:
                time.sleep(0.001)
            self._running.pop(told["pid"]).ended(told["code"])


def _serve(module: str) -> None:
    program = importlib.import_module(module)
    for name in (*IMPORTED, *getattr(program, "IMPORTED", ())):
        importlib.import_module(name)
    # A training that is stopped before it has a handler of its own must end, not raise in some hook of the fork.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    talking = threading.Lock()

    def say(**told: int) -> None:
        with talking:
            sys.stdout.write(json.dumps(told) + "\n")
            sys.stdout.flush()

    def reap(pid: int) -> None:
        _, status = os.waitpid(pid, 0)
        say(pid=pid, code=os.waitstatus_to_exitcode(status))

    for line in sys.stdin:
        arguments = json.loads(line)
        with talking:
            pid = os.fork()
        if pid == 0:
            log = os.open(Path(arguments[1]) / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            nothing = os.open(os.devnull, os.O_RDONLY)
            os.dup2(nothing, 0)
            os.dup2(log, 1)
            os.dup2(log, 2)
            code = 1
            try:
                code = program.main(arguments)
            except BaseException:  # noqa: BLE001 - written to the log, as Python would at its end
                sys.excepthook(*sys.exc_info())
            finally:
                sys.stderr.flush()
                os._exit(code)
        say(pid=pid)
        threading.Thread(target=reap, args=(pid,), daemon=True).start()


if __name__ == "__main__":
    _serve(sys.argv[1])
