"""The thread of `so8t up` that serves the monitor's deployment: it takes the scheduled looks and runs them here.

No work pool and no worker: the one worker's only slot belongs to the runs that are looked after. The schedule is the
deployment's, so the UI shows what is to come, pauses it, and starts a look at once. Where the server does not answer the
look is made all the same, and told without it.
"""

import gc
import logging
import threading
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

    from so8t.config import Config

NAME = "so8t"
POLL_S = 10.0
# After as many intervals without a scheduled look one is made.
LATE = 1.5


def register(client: "SyncPrefectClient", config: "Config") -> UUID:
    """Create or update the deployment, before its looks are served; a schedule that somebody has paused stays paused."""
    from prefect.client.schemas.actions import DeploymentScheduleCreate
    from prefect.client.schemas.schedules import IntervalSchedule
    from prefect.exceptions import ObjectNotFound
    from prefect.utilities.callables import parameter_schema

    from deployments.register import POOL
    from flows.monitor import forget_unfinished, so8t_monitor

    every = IntervalSchedule(interval=timedelta(seconds=config.monitor.interval_s))
    try:
        known = client.read_deployment_by_name(f"{so8t_monitor.name}/{NAME}").schedules
    except ObjectNotFound:
        known = []
    # What is not said again is deleted.
    plans = [DeploymentScheduleCreate(schedule=plan.schedule, active=plan.active) for plan in known]
    if [getattr(plan.schedule, "interval", None) for plan in plans] != [every.interval]:
        plans = [DeploymentScheduleCreate(schedule=every, active=True)]
    made = client.create_deployment(
        flow_id=client.create_flow(so8t_monitor),
        name=NAME,
        entrypoint="flows.monitor.so8t_monitor",
        description="Looks for what hangs, fails or runs full, and does what may be done; `so8t up` runs it itself",
        parameters={
            "home": str(config.home()),
            "pool": POOL,
            "monitor": config.monitor.model_dump(mode="json"),
            "notify": config.notify.model_dump(mode="json"),
        },
        parameter_openapi_schema=parameter_schema(so8t_monitor).model_dump_for_openapi(),
        enforce_parameter_schema=True,
        paused=not config.monitor.enabled,
        schedules=plans,
    )
    forget_unfinished(client, made)
    return made


class Watchman:
    """Serves the deployment until it is told to end."""

    def __init__(self, config: "Config", ending: threading.Event, say: Callable[[str], None]) -> None:
        self.config, self._ending, self._say = config, ending, say
        self._looked_at = time.monotonic()

    def start(self) -> None:
        """In a thread that ends with the process."""
        # The engine's own lines about every look would fill the server's database and the terminal.
        logging.getLogger("prefect.flow_runs").setLevel(logging.ERROR)
        threading.Thread(target=self._run, name="monitor", daemon=True).start()

    def _run(self) -> None:
        while not self._ending.wait(min(POLL_S, self.config.monitor.interval_s / 2)):
            try:
                self._serve()
            except Exception:  # noqa: BLE001 - whoever looks after runs must not end them by an error of his own
                if not self._ending.is_set():
                    self._say(f"monitor  failed:\n{traceback.format_exc()}")

    def _serve(self) -> None:
        """Run the newest look that is due; older ones were missed while the machine was off, and are deleted."""
        import httpx
        from prefect.client.orchestration import get_client
        from prefect.exceptions import PrefectException
        from prefect.flow_engine import run_flow

        from flows.monitor import due, so8t_monitor

        try:
            with get_client(sync_client=True) as client:
                deployment = client.read_deployment_by_name(f"{so8t_monitor.name}/{NAME}")
                found = due(client, deployment.id)
                for entry in found[:-1]:
                    client.delete_flow_run(entry.id)
                if not found and self._overdue() and any(plan.active for plan in deployment.schedules):
                    found = [client.create_flow_run_from_deployment(deployment.id, name="late look")]
        except (httpx.HTTPError, PrefectException, OSError) as error:
            self._alone(error)
            return
        if not found:
            return
        self._looked_at = time.monotonic()
        run = found[-1]
        state: Any = run_flow(so8t_monitor, flow_run=run, parameters=run.parameters, return_type="state")
        # A look leaves cycles that Python would let pile up: 0.18 MB each (benchmarks/monitor_look.py).
        gc.collect()
        if not state.is_completed():
            self._say(f"monitor  {state.name}: {state.message}")
            return
        for line in state.result()["new"] + state.result()["did"]:
            self._say(f"monitor  {line}")

    def _overdue(self) -> bool:
        """The server's own scheduler may lag, or not work at all."""
        return time.monotonic() - self._looked_at > LATE * self.config.monitor.interval_s

    def _alone(self, error: Exception) -> None:
        """The server may be the very thing that is wrong."""
        if time.monotonic() - self._looked_at < self.config.monitor.interval_s:
            return
        from flows.monitor import act
        from so8t.monitor.look import look

        self._looked_at = time.monotonic()
        self._say(f"monitor  looks without the server ({type(error).__name__})")
        home: Path = self.config.home()
        act(look(home, self.config.monitor), home, self.config.monitor, self.config.notify)
