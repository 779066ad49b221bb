"""One look of the monitor, as a run in the UI: what it found, what it did, and who was told.

`so8t up` runs it in its own process by the deployment's schedule: a worker's only slot belongs to the runs that are
looked after, and a process for each look would cost a hundred times what the look does.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.context import FlowRunContext
from prefect.events import emit_event
from prefect.exceptions import PrefectHTTPStatusError

from so8t.config import Notify
from so8t.monitor.config import Monitor
from so8t.monitor.look import Report, look
from so8t.monitor.page import levels, page
from so8t.monitor.recover import recover
from so8t.notify import notify

KEY = "monitor"
ENDED = (StateType.COMPLETED, StateType.FAILED, StateType.CRASHED, StateType.CANCELLED)
UNFINISHED = (StateType.RUNNING, StateType.PENDING, StateType.CANCELLING)
# Deleted after one look; the rest waits for the next.
PAGE = 50
NOT_FOUND = 404


@flow(name="so8t-monitor", flow_run_name="look", persist_result=False, validate_parameters=True)
def so8t_monitor(home: str, pool: str, monitor: Monitor = Monitor(), notify: Notify = Notify()) -> dict[str, Any]:  # noqa: B008
    """Look once, act where `monitor.recover` allows, and tell what is new."""
    with get_client(sync_client=True) as client:
        report = look(Path(home), monitor, _heartbeat(client, pool))
        act(report, Path(home), monitor, notify)
        create_markdown_artifact(markdown=page(report), key=KEY, description=levels(report))
        _tell_prefect(report, home)
        run = FlowRunContext.get().flow_run  # type: ignore[union-attr]
        if run is not None and run.deployment_id is not None:
            _forget(client, run.deployment_id, monitor.keep_runs)
    return {"new": [finding.found for finding in report.new], "did": [action.outcome for action in report.actions]}


def _heartbeat(client: SyncPrefectClient, pool: str) -> str | None:
    """When a worker of the pool last told the server that it lives; None where none ever did, or the pool is gone."""
    try:
        seen = [worker.last_heartbeat_time for worker in client.read_workers_for_work_pool(pool)]
    except PrefectHTTPStatusError as error:
        if error.response.status_code != NOT_FOUND:
            raise
        return None
    times = [time for time in seen if time is not None]
    return max(times).isoformat() if times else None


def _tell_prefect(report: Report, home: str) -> None:
    """An event for each thing that begins and for each action: automations of the user's own may listen."""
    resource = {"prefect.resource.id": "so8t.monitor", "prefect.resource.name": home}
    for finding in report.new:
        emit_event(f"so8t.monitor.{finding.kind}", resource, payload=dict(vars(finding)))
    for action in report.actions:
        emit_event(f"so8t.recovery.{action.kind}", resource, payload=dict(vars(action)))


def act(report: Report, home: Path, settings: Monitor, told: Notify) -> None:
    """Do what may be done, and tell the user before the server, which may be gone: what was found is told once."""
    try:
        if settings.recover:
            recover(home, report, settings)
    finally:
        tell_user(report, home, told)


def tell_user(report: Report, home: Path, settings: Notify) -> None:
    """One notice for all that is new and wants an eye, and for all that was done."""
    wanted = [finding for finding in report.new if finding.severity == "warn"]
    lines = [f"{one.kind}: {one.found}" + (f"\n  do: {one.do}" if one.do else "") for one in wanted]
    lines += [f"{one.kind}: {one.subject}: {one.did}; {one.outcome}" for one in report.actions]
    if lines:
        notify(home, "monitor", f"so8t: {len(lines)} thing(s) to know", "\n".join(lines), settings)


def _forget(client: SyncPrefectClient, deployment: UUID, keep: int) -> None:
    """Delete older looks with their artifacts: a home is looked after for years."""
    _delete(client, _looks(client, deployment, ENDED, keep))


def forget_unfinished(client: SyncPrefectClient, deployment: UUID) -> None:
    """Delete looks that a power cut has ended; to be called while nobody looks."""
    _delete(client, _looks(client, deployment, UNFINISHED, 0))


def _looks(
    client: SyncPrefectClient, deployment: UUID, states: tuple[StateType, ...], offset: int
) -> list[FlowRun]:  # fmt: skip
    """The newest first, without the first `offset`."""
    wanted = FlowRunFilter(
        deployment_id=FlowRunFilterDeploymentId(any_=[deployment]),
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(states))),
    )
    return client.read_flow_runs(
        flow_run_filter=wanted, sort=FlowRunSort.START_TIME_DESC, limit=PAGE, offset=offset
    )  # fmt: skip


def _delete(client: SyncPrefectClient, old: list[FlowRun]) -> None:
    if not old:
        return
    made = client.read_artifacts(
        artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run.id for run in old]))
    )
    for artifact in made:
        client.delete_artifact(artifact.id)
    for run in old:
        client.delete_flow_run(run.id)


def due(client: SyncPrefectClient, deployment: UUID) -> list[Any]:
    """Runs whose hour has come, the newest last. Asking also tells the server that somebody serves the deployment."""
    found = client.get_scheduled_flow_runs_for_deployments([deployment], scheduled_before=datetime.now(UTC))
    return sorted(found, key=lambda run: run.expected_start_time or run.created)
