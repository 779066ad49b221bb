"""`so8t up`: server, self-resume, deployments and one worker, kept running in the foreground; autostart runs this."""

import argparse
import os
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from so8t.cli import add_config_arguments, raise_on_signals
from so8t.errors import So8tError

if TYPE_CHECKING:
    from deployments.keeper import Kept
    from flows.resume import Verdict
    from so8t.config import Config

PROJECT = Path(__file__).resolve().parent.parent
LOOK_S = 0.5
PAUSE_S, PAUSE_MAX_S = 1.0, 60.0
FAILURES_BEFORE_NOTICE = 3
WORTH_A_NOTICE = frozenset({"stopped", "refused", "confirm", "left"})


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_config_arguments(parser)


def main(options: argparse.Namespace) -> int:
    """Serve until a signal; everything below saves and is stopped first."""
    from filelock import FileLock, Timeout

    from deployments.server import auth_string
    from so8t import durable
    from so8t.config import load_config
    from so8t.errors import ResourceError

    raise_on_signals()
    config = load_config(options.config, options.overrides, options.home)
    home = config.home()
    auth_string(home)
    lock = FileLock(home / "prefect" / "up.lock", timeout=0)
    try:
        with durable.explain_full_disk(home), lock:
            Supervisor(config).run()
    except Timeout:
        raise ResourceError(
            f"`so8t up` already runs for {home}", "one instance a home", "use that one, or stop it first"
        ) from None
    return 0


class Supervisor:
    """Keeps everything alive and goes on with what a power cut interrupted."""

    def __init__(self, config: "Config") -> None:
        """Nothing is started yet."""
        from deployments.keeper import Output
        from deployments.server import Server
        from so8t import fence

        self.config, self.home = config, config.home()
        self.name = uuid.uuid4().hex
        logs = self.home / "logs"
        self.server = Server(config, logs / "server.log", Output(logs / "server.log"))
        self._output = Output(logs / "worker.log")
        self._began = time.monotonic()
        self._told: dict[str, tuple[str, str]] = {}
        self._failures = 0
        self._ending = threading.Event()
        os.environ[fence.SUPERVISOR_VARIABLE] = self.name

    def run(self) -> None:
        """Until an exception ends it; Interrupted is the usual one."""
        from deployments.watchman import Watchman
        from so8t.monitor.services import say_up

        worker = None
        try:
            say_up(self.home, self.name)
            self._boot()
            worker = self._worker()
            resumer = threading.Thread(target=self._resume_for_ever, name="resume", daemon=True)
            resumer.start()
            if self.config.monitor.enabled:
                Watchman(self.config, self._ending, self.say).start()
            while resumer.is_alive():
                if not self.server.serves():
                    worker = self._again(worker)
                worker.look()
                time.sleep(LOOK_S)
            raise So8tError("self-resume ended by an unforeseen error; its traceback is above")
        finally:
            # Whatever ends now is gone on with at the next start, not by a look in this moment.
            self._ending.set()
            if worker is not None:
                worker.stop()
            self.server.stop()

    def _boot(self) -> None:
        """Server, then reconciliation, and only then a worker: it would take newer runs first."""
        pause_s = PAUSE_S
        while True:
            self.server.ensure()
            os.environ.update(self.server.environment())
            self.say(f"server  {self.server.url}   home {self.home}")
            from prefect.client.orchestration import get_client

            from deployments import watchman
            from deployments.register import register
            from flows import FLOWS

            try:
                self._resume(at_boot=True)
                with get_client(sync_client=True) as client:
                    defaults = self.config.model_dump(mode="json", exclude={"machine": {"home"}})
                    register(client, {name: {"config": defaults} for name, _ in FLOWS.values()})
                    watchman.register(client, self.config)
            except self._failed() as error:
                self._complain(error, pause_s)
                time.sleep(pause_s)
                pause_s = min(pause_s * 2, PAUSE_MAX_S)
                continue
            self.say("ready   start a run in the UI (user and password: see <home>/prefect/auth), or with")
            self.say(f"        prefect deployment run so8t-pipeline/so8t   (PREFECT_HOME={self.home / 'prefect'})")
            return

    def _worker(self) -> "Kept":
        from deployments.keeper import Kept
        from deployments.register import POOL

        command = ["prefect", "worker", "start", "--pool", POOL, "--limit", "1"]
        worker = Kept("worker", command, PROJECT, dict(os.environ), self._output, self.say)
        worker.look()
        return worker

    def _again(self, worker: "Kept") -> "Kept":
        """The server is gone. Runs and worker bear that; they look for it at the port they know."""
        self.say(f"server  stopped; see {self.home / 'logs' / 'server.log'}; starting it again")
        port = self.server.port
        self.server.stop()
        self.server.ensure()
        self.say(f"server  {self.server.url}")
        if self.server.port == port:
            return worker
        os.environ.update(self.server.environment())
        worker.stop()
        return self._worker()

    def _resume_for_ever(self) -> None:
        from deployments.autostart import retire

        interval_s = self.config.machine.resume_interval_s
        while not self._ending.wait(interval_s):
            try:
                self._resume(at_boot=False)
                for line in retire(self.config, self.name):
                    self.say(f"autostart  {line}")
            except self._failed() as error:
                if not self._ending.is_set():
                    self._complain(error, interval_s)

    def _resume(self, *, at_boot: bool) -> None:
        from flows.resume import reconcile

        for verdict in reconcile(self.home, self.name, at_boot=at_boot):
            self._tell(verdict)
        self._failures = 0

    def _tell(self, verdict: "Verdict") -> None:
        """Each change once."""
        from so8t.notify import notify

        known = (verdict.action, verdict.why)
        if self._told.get(verdict.run_id) == known and verdict.action != "resumed":
            return
        self._told[verdict.run_id] = known
        self.say(f"resume  {verdict.action}: {verdict.name} ({verdict.run_id}): {verdict.why}")
        if verdict.action in WORTH_A_NOTICE:
            notify(self.home, "resume", f"so8t: run {verdict.name} {verdict.action}", verdict.why, self.config.notify)

    @staticmethod
    def _failed() -> tuple[type[Exception], ...]:
        """What a server that starts, stops or is overloaded makes its clients raise."""
        import httpx
        from prefect.exceptions import PrefectException

        return (httpx.HTTPError, PrefectException, OSError)

    def _complain(self, error: Exception, pause_s: float) -> None:
        from so8t.faults import without_password
        from so8t.notify import notify

        self._failures += 1
        told = without_password(f"{type(error).__name__}: {error}")
        self.say(f"resume  failed ({told}); again in {pause_s:g} s")
        if self._failures == FAILURES_BEFORE_NOTICE:
            notify(self.home, "resume", "so8t: self-resume fails", told, self.config.notify)

    def say(self, line: str) -> None:
        """One line, with the seconds since the start."""
        sys.stderr.write(f"{time.monotonic() - self._began:8.1f}  {line}\n")
        sys.stderr.flush()
