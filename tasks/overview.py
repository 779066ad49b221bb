"""The page of a run in the Prefect UI: one artifact that is kept up to date, and an event for each recovery."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

import httpx
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactCreate
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, ArtifactFilterKey
from prefect.context import FlowRunContext
from prefect.events import emit_event
from prefect.exceptions import PrefectHTTPStatusError

from so8t.benchmark.page import markdown
from so8t.config import Config
from so8t.errors import So8tError
from so8t.faults import without_password
from so8t.overview.gather import gather
from so8t.overview.page import blocks, pictures
from so8t.overview.training import Checked
from so8t.recoveries import Recovery
from so8t.session import now
from tasks.pace import Pace
from tasks.show import embed
from tasks.updates import update_in_place

KEY = "overview"
STOP_S = 30.0
# The server is away, or the disk changes under the look: the next look tells it.
PASSING = (httpx.HTTPError, PrefectHTTPStatusError, OSError, So8tError)
logger = logging.getLogger(__name__)


class RunOverview:
    """The artifact `overview` of one flow run."""

    def __init__(self, config: Config, run_id: UUID) -> None:
        self._config, self._run_id, self._checked = config, run_id, Checked()
        self._artifact: UUID | None = None
        self._told, self._since = set[Recovery](), now()

    def show(self, state: str = "running", note: str = "") -> None:
        """Look, and show what is seen; what passes by itself is left for the next look."""
        try:
            seen = gather(self._config, self._checked, str(self._run_id))
            drawn = pictures(seen)
            self._publish(
                embed(markdown(blocks(seen, state, note)), drawn.get), f"{seen.done} of {len(seen.steps)} done"
            )
        except PASSING as error:
            logger.warning("the run's overview was not updated: %s", error)
            return
        except Exception:
            # Such as a file that the disk has damaged: the page shows how a run goes, it must not decide how it ends.
            logger.exception("the run's overview was not updated")
            return
        for recovery in seen.recoveries:
            if recovery.at >= self._since and recovery not in self._told:
                self._told.add(recovery)
                self._emit(recovery)

    def _publish(self, data: str, description: str) -> None:
        if self._artifact is None:
            self._artifact = self._of_an_earlier_attempt()
        if self._artifact is not None:
            update_in_place(self._artifact, data=data, description=description)
            return
        made = ArtifactCreate(key=KEY, type="markdown", data=data, description=description, flow_run_id=self._run_id)
        with get_client(sync_client=True) as client:
            self._artifact = client.create_artifact(made).id

    def _of_an_earlier_attempt(self) -> UUID | None:
        """A resumed run goes on with its page: an open one follows it."""
        wanted = ArtifactFilter(
            key=ArtifactFilterKey(any_=[KEY]), flow_run_id=ArtifactFilterFlowRunId(any_=[self._run_id])
        )
        with get_client(sync_client=True) as client:
            return next((one.id for one in client.read_artifacts(artifact_filter=wanted)), None)

    def _emit(self, recovery: Recovery) -> None:
        emit_event(
            event=f"so8t.recovery.{recovery.fault}",
            resource={"prefect.resource.id": f"so8t.step.{recovery.step}", "prefect.resource.name": recovery.step},
            related=[{"prefect.resource.id": f"prefect.flow-run.{self._run_id}", "prefect.resource.role": "flow-run"}],
            payload=recovery.model_dump(),
        )


@contextmanager
def shown(config: Config) -> Iterator[None]:
    """Keep the run's page up to date while the body runs; it says in the end how that ended."""
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        yield
        return
    page, ended = RunOverview(config, context.flow_run.id), threading.Event()
    pace = Pace(config.machine.progress_log_interval_s)

    def keep() -> None:
        page.show()
        while not ended.wait(pace.pause_s):
            with pace.measured():
                page.show()

    thread = threading.Thread(target=keep, name="overview", daemon=True)
    thread.start()
    state, note = "completed", ""
    try:
        yield
    except BaseException as error:
        state = "failed" if isinstance(error, Exception) else "interrupted"
        note = f"It ended with: {without_password(str(error))}"
        raise
    finally:
        ended.set()
        # A look that hangs must not hold up the run's end.
        thread.join(STOP_S)
        if not thread.is_alive():
            page.show(state, note)
