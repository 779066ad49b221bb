"""Self-resume: finds runs whose process is gone and schedules the same flow run again.

Only the operating-system lock of a run says whether somebody works on it; Prefect's states can be lost and
are written here, not believed. The order of the state changes matters: a forced Crashed frees what the run
held, and only the unforced AwaitingRetry after it clears a retry that was waiting inside the dead process.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from filelock import Timeout
from prefect import flow
from prefect.artifacts import create_table_artifact
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterId,
    FlowRunFilterStartTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.client.schemas.responses import SetStateStatus
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelled, Crashed, Failed

from so8t import fence, resumption
from so8t.resumption import Decision, Marks
from so8t.session import sessions

TAG = "so8t"
OPEN = (StateType.RUNNING, StateType.PENDING, StateType.SCHEDULED, StateType.CRASHED, StateType.CANCELLING)
PAGE = 200
# The worker reports a crash a second time up to some seconds later and would overwrite what was set meanwhile.
SETTLE_S = 20.0
# A submitted process on a cold disk may need this long to reach its lock.
SUBMIT_S = 120.0


@dataclass(frozen=True)
class Verdict:
    """What became of one run."""

    run_id: str
    name: str
    action: str  # resumed, waiting, confirm, stopped, left, superseded, cancelled, refused
    why: str


def reconcile(home: Path, supervisor: str, *, at_boot: bool, asked: Iterable[str] = ()) -> list[Verdict]:
    """Look at every opted-in run once; `at_boot`: no worker of ours runs yet, so nothing is still settling."""
    asked = set(asked)
    with get_client(sync_client=True) as client:
        marks = resumption.marks_now(home)
        decided = [
            (run, _decide(client, run, home, marks, supervisor, asked))
            for run in _open_runs(client)
            if _is_orphan(run, home, at_boot, str(run.id) in asked)
        ]
        verdicts = _carry_out(client, home, marks, supervisor, decided)
        _close_sessions(client, home, {verdict.run_id for verdict in verdicts if verdict.action == "superseded"})
        return verdicts


def _close_sessions(client: SyncPrefectClient, home: Path, superseded: set[str]) -> None:
    """A run that was cancelled, replaced or deleted never comes back: its session must not look as if it did."""
    for session in sessions(home):
        run_id = fence.run_of(session)
        if run_id is None or session.status in ("completed", "failed") or not fence.is_free(home, run_id):
            continue
        try:
            state = client.read_flow_run(UUID(run_id)).state_type
        except ObjectNotFound:
            state = StateType.CANCELLED
        if run_id in superseded or state in (StateType.CANCELLED, StateType.FAILED, StateType.COMPLETED):
            fence.session_of(home, run_id).end("completed" if state == StateType.COMPLETED else "failed")


@flow(name="so8t-resume", persist_result=False)
def so8t_resume(home: str) -> list[dict[str, str]]:
    """Look once, by hand, from the UI; `so8t up` does the same by itself."""
    verdicts = [vars(verdict) for verdict in reconcile(Path(home), "", at_boot=False)]
    create_table_artifact(table=verdicts, key="resume", description="runs without a process")
    return verdicts


def _open_runs(client: SyncPrefectClient) -> list[FlowRun]:
    wanted = FlowRunFilter(
        tags=FlowRunFilterTags(all_=[TAG]), state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(OPEN)))
    )
    return _pages(client, wanted)


def _pages(client: SyncPrefectClient, wanted: FlowRunFilter) -> list[FlowRun]:
    runs: list[FlowRun] = []
    while True:
        page = client.read_flow_runs(
            flow_run_filter=wanted, sort=FlowRunSort.EXPECTED_START_TIME_ASC, limit=PAGE, offset=len(runs)
        )
        runs += page
        if len(page) < PAGE:
            return runs


def _is_orphan(run: FlowRun, home: Path, at_boot: bool, asked: bool) -> bool:
    """Whether this run should have a process and has none."""
    state = run.state
    if state is None or run.deployment_id is None:
        return False  # without a deployment no worker could take it
    if state.type == StateType.SCHEDULED and not (_waits_in_a_dead_process(run) or _of_the_future(run)):
        return False
    # A negative age is a clock that was set back.
    age_s = (datetime.now(UTC) - state.timestamp).total_seconds()
    pending = state.type == StateType.PENDING
    # A word of the user does not end a process that is on its way to its lock.
    if not at_boot and not (asked and not pending) and 0 <= age_s < (SUBMIT_S if pending else SETTLE_S):
        return False
    return fence.is_free(home, str(run.id))


def _waits_in_a_dead_process(run: FlowRun) -> bool:
    """No worker ever sees a run that waits for a retry inside its process."""
    state, policy = run.state, run.empirical_policy
    return (
        state is not None and state.name == "AwaitingRetry" and policy is not None and policy.retry_type == "in_process"
    )


def _of_the_future(run: FlowRun) -> bool:
    """Scheduled by a clock that has been set back since: no worker would take it before that hour."""
    soon = datetime.now(UTC) + timedelta(seconds=SUBMIT_S)
    return run.state is not None and run.state.timestamp > soon and not run.auto_scheduled


def _decide(
    client: SyncPrefectClient, run: FlowRun, home: Path, marks: Marks, supervisor: str, asked: set[str]
) -> Decision:
    assert run.state is not None
    if run.state.type == StateType.CANCELLING:
        return Decision("cancel", "it was being cancelled when its process ended")
    if str(run.id) not in asked and (later := _later_run(client, run)) is not None:
        return Decision("supersede", f"by the later run {later.name} ({later.id}) of the same config")
    idle_s = (datetime.now(UTC) - run.state.timestamp).total_seconds()
    session = fence.session_of(home, str(run.id)).session
    policy = resumption.policy_of(run.parameters)
    stop = resumption.asked_to_stop(home, str(run.id))
    return resumption.decide(session, policy, marks, supervisor, abs(idle_s), asked=str(run.id) in asked, stop=stop)


def _later_run(client: SyncPrefectClient, run: FlowRun) -> FlowRun | None:
    """A run of the same deployment and parameters that began its work after this one."""
    if run.start_time is None or run.deployment_id is None:
        return None
    wanted = FlowRunFilter(
        deployment_id=FlowRunFilterDeploymentId(any_=[run.deployment_id]),
        start_time=FlowRunFilterStartTime(after_=run.start_time),
    )
    for other in _pages(client, wanted):
        cancelled = other.state_type in (StateType.CANCELLED, StateType.CANCELLING)
        later = other.start_time is not None and other.start_time > run.start_time
        if later and not cancelled and other.parameters == run.parameters:
            return other
    return None


def _carry_out(
    client: SyncPrefectClient, home: Path, marks: Marks, supervisor: str, decided: list[tuple[FlowRun, Decision]]
) -> list[Verdict]:
    """Highest priority first, then newest progress; the order becomes the order of their scheduled times."""
    going = [run for run, decision in decided if decision.action == "resume"]
    early = min([datetime.now(UTC), *(run.expected_start_time for run in going if run.expected_start_time)])

    def rank(entry: tuple[FlowRun, Decision]) -> tuple[int, str]:
        session = fence.session_of(home, str(entry[0].id)).session
        return resumption.policy_of(entry[0].parameters).priority, session.last_progress_time or session.start_time

    verdicts = []
    for place, (run, decision) in enumerate(sorted(decided, key=rank, reverse=True)):
        with _taken(client, home, run) as ours:
            if not ours:
                continue
            if decision.action in ("resume", "stop"):
                resumption.note(fence.session_of(home, str(run.id)), marks, decision, supervisor)
            verdicts.append(_apply(client, run, decision, early + timedelta(milliseconds=place)))
    return verdicts


@contextmanager
def _taken(client: SyncPrefectClient, home: Path, run: FlowRun) -> Iterator[bool]:
    """Whether the run is ours to change: no process has it, and nobody else has looked after it meanwhile."""
    lock = fence.lock_of(home, str(run.id))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    try:
        yield client.read_flow_run(run.id).state_id == run.state_id
    finally:
        lock.release()


def _apply(client: SyncPrefectClient, run: FlowRun, decision: Decision, when: datetime) -> Verdict:
    assert run.state is not None
    if decision.action == "resume":
        return _resume(client, run, decision, when)
    if decision.action == "stop":
        return _stop(client, run, decision)
    if decision.action == "cancel":
        client.set_flow_run_state(run.id, Cancelled(message=decision.why), force=True)
        return _verdict(run, "cancelled", decision.why)
    # It stays where it is; the UI says that it does not run, and why it does not go on.
    if run.state.type != StateType.CRASHED or run.state.message != decision.why:
        _mark_dead(client, run, decision.why)
    names = {"leave": "left", "wait": "waiting", "supersede": "superseded"}
    return _verdict(run, names.get(decision.action, decision.action), decision.why)


def _mark_dead(client: SyncPrefectClient, run: FlowRun, why: str) -> None:
    """Crashed, with its ghosts: forced, because Running cannot be left otherwise."""
    assert run.state is not None
    client.set_flow_run_state(run.id, Crashed(message=why), force=True)
    wanted = FlowRunFilter(id=FlowRunFilterId(any_=[run.id]))
    offset = 0
    while page := client.read_task_runs(flow_run_filter=wanted, limit=PAGE, offset=offset):
        for task_run in page:
            if task_run.state_type in (StateType.RUNNING, StateType.PENDING):
                client.set_task_run_state(task_run.id, Crashed(message="its process is gone"), force=True)
        offset += len(page)


def _resume(client: SyncPrefectClient, run: FlowRun, decision: Decision, when: datetime) -> Verdict:
    _mark_dead(client, run, decision.why)
    again = State[Any](
        type=StateType.SCHEDULED, name="AwaitingRetry", message=f"resumed: {decision.why}",
        state_details={"scheduled_time": when},
    )  # fmt: skip
    answer = client.set_flow_run_state(run.id, again, force=False)
    if answer.status != SetStateStatus.ACCEPT:
        return _verdict(run, "refused", f"the server did not take it: {answer.details}")
    return _verdict(run, "resumed", decision.why)


def _stop(client: SyncPrefectClient, run: FlowRun, decision: Decision) -> Verdict:
    why = f"{decision.why}; see its logs, mend the cause, then Retry it in the UI"
    _mark_dead(client, run, why)
    client.set_flow_run_state(run.id, Failed(message=why), force=True)
    return _verdict(run, "stopped", why)


def _verdict(run: FlowRun, action: str, why: str) -> Verdict:
    return Verdict(str(run.id), run.name, action, why)


def find_run(client: SyncPrefectClient, name: str) -> UUID | None:
    """Id of an opted-in open run by id, beginning of the id, or name."""
    for run in _open_runs(client):
        if name == run.name or str(run.id).startswith(name):
            return run.id
    return None


def settles_in_s(client: SyncPrefectClient, run_id: UUID) -> float:
    """How long a worker may still overwrite the state of a run that has just crashed."""
    state = client.read_flow_run(run_id).state
    if state is None or state.type != StateType.CRASHED:
        return 0.0
    age_s = (datetime.now(UTC) - state.timestamp).total_seconds()
    return SETTLE_S - age_s if 0 <= age_s < SETTLE_S else 0.0
