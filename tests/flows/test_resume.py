"""What becomes of each run whose process is gone: a real server, real states, real locks, no worker."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from datetime import UTC, datetime
from uuid import UUID

import pytest
from prefect.client.schemas.actions import DeploymentUpdate
from prefect.client.schemas.objects import FlowRunPolicy, StateType
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL
from prefect.states import AwaitingRetry, Cancelled, Cancelling, Completed, Crashed, Failed, Pending, Running, Scheduled

from deployments.register import register
from deployments.up import Supervisor
from flows.pipeline import DEMO, so8t_pipeline
from flows.resume import TAG, find_run
from so8t import fence
from so8t.session import SessionFile
from tasks.steps import run_step
from tests.conftest import ROOT
from tests.flows.conftest import DAY_S, holder


def resumed(world, run_id: UUID) -> bool:
    """AwaitingRetry, due now, where a worker finds it, and the lock is free for that worker's process."""
    run = world.read(run_id)
    return (
        (run.state_type, run.state_name) == (StateType.SCHEDULED, "AwaitingRetry")
        and run.state.state_details.scheduled_time <= datetime.now(UTC)
        and run_id in world.queue()
        and fence.is_free(world.home, str(run_id))
    )


def untouched(world, before) -> bool:
    """By us: the server itself calls a run that no worker took late."""
    after = world.read(before.id)
    return after.state_id == before.state_id or (before.state_name, after.state_name) == ("Scheduled", "Late")


# State at the cut; is it resumed by a look at boot, and by one of a supervisor that has been up for long?
@pytest.mark.parametrize(
    ("states", "idle_s", "at_boot", "later"),
    [
        pytest.param([Running()], 100, True, True, id="running, process dead"),
        pytest.param([Running()], 2, True, False, id="running since just now"),
        pytest.param([Running(), Crashed()], 100, True, True, id="crashed"),
        pytest.param([Running(), Crashed()], 5, True, False, id="crashed: the worker has not said its last word"),
        pytest.param([Running(), Crashed()], 21, True, True, id="crashed for 21 s"),
        pytest.param([Pending()], 130, True, True, id="pending for long"),
        pytest.param([Pending()], 60, True, False, id="pending: the process may still come"),
        pytest.param([Scheduled()], 100, False, False, id="waits for a worker"),
        pytest.param([Running(), AwaitingRetry()], 100, False, False, id="resumed already"),
        pytest.param([Running(), Completed()], 100, False, False, id="completed"),
        pytest.param([Running(), Failed()], 100, False, False, id="failed"),
        pytest.param([Running(), Cancelled()], 100, False, False, id="cancelled"),
    ],
)
def test_what_goes_on(world, states, idle_s, at_boot, later):
    for boot, wanted in ((False, later), (True, at_boot)):
        run = world.run(*states, idle_s=idle_s)
        verdicts = world.look(at_boot=boot)
        assert (run.id in verdicts, untouched(world, run)) == (wanted, not wanted), verdicts
        if wanted:
            assert verdicts[run.id].action == "resumed"
            assert resumed(world, run.id)


def test_a_resumed_run_is_the_same_run_and_its_ghosts_are_crashed(world):
    run = world.run(Running(), Running())
    ghosts = [world.client.create_task_run(run_step, run.id, f"{n}", state=Running()) for n in range(2)]
    waits = world.client.create_task_run(run_step, run.id, "2", state=Pending())
    done = world.client.create_task_run(run_step, run.id, "3", state=Completed())
    assert world.look()[run.id].action == "resumed"
    assert resumed(world, run.id)
    found = {task.id: task.state_type for task in world.tasks(run.id)}
    assert found == {
        **{ghost.id: StateType.CRASHED for ghost in [*ghosts, waits]},
        done.id: StateType.COMPLETED,
    }
    history = [state.name for state in world.client.read_flow_run_states(run.id)]
    assert history[-2:] == ["Crashed", "AwaitingRetry"]


def test_a_living_process_is_left_alone_whatever_prefect_thinks(world):
    runs = [world.run(Running()), world.run(Running(), Crashed()), world.run(Pending(), idle_s=1000)]
    runs.append(world.run(Running(), Cancelling()))
    with holder(world.home, *(str(run.id) for run in runs)):
        assert world.look(at_boot=True) == world.look(asked=[run.id for run in runs]) == {}
        assert all(untouched(world, run) for run in runs)
    assert {verdict.action for verdict in world.look().values()} == {"resumed", "cancelled"}


def test_a_retry_that_waited_inside_the_dead_process(world):
    """No worker would ever see it: the server must forget that the retry belongs to a process."""
    run = world.run(Scheduled())
    policy = FlowRunPolicy(retries=3, retry_delay=3600)
    world.client.update_flow_run(run.id, empirical_policy=policy)
    for state in (Pending(), Running(), Failed(message="the first try")):
        world.client.set_flow_run_state(run.id, state, force=False)
    world.shift(run.id, -100)
    waiting = world.read(run.id)
    assert (waiting.state_name, waiting.empirical_policy.retry_type) == ("AwaitingRetry", "in_process")
    assert world.look()[run.id].action == "resumed"
    assert resumed(world, run.id)
    assert world.read(run.id).empirical_policy.retry_type == "reschedule"


def test_cancelling_ends_cancelled(world):
    run = world.run(Running(), Cancelling())
    assert world.look()[run.id].action == "cancelled"
    assert world.read(run.id).state_type == StateType.CANCELLED
    assert world.look() == {}


@pytest.mark.parametrize("state", [Running(), Crashed()], ids=["running", "crashed"])
def test_a_later_run_of_the_same_config_supersedes(world, state):
    same = world.parameters()
    earlier = world.run(Running(), state, parameters=same, idle_s=300)
    later = world.run(Running(), Completed(), parameters=same, idle_s=200)
    verdict = world.look()[earlier.id]
    assert verdict.action == "superseded"
    assert str(later.id) in verdict.why
    assert world.read(earlier.id).state_type == StateType.CRASHED
    assert world.queue() == []


@pytest.mark.parametrize(
    "states", [[Scheduled()], [Running(), Cancelled()]], ids=["has not started", "was cancelled itself"]
)
def test_a_later_run_that_did_no_work_supersedes_nothing(world, states):
    same = world.parameters()
    earlier = world.run(Running(), Crashed(), parameters=same, idle_s=300)
    world.run(*states, parameters=same)
    assert world.look()[earlier.id].action == "resumed"


def test_of_two_interrupted_runs_of_the_same_config_the_later_goes_on(world):
    same = world.parameters()
    earlier = world.run(Running(), parameters=same, idle_s=300)
    later = world.run(Running(), parameters=same, idle_s=200)
    assert {i: v.action for i, v in world.look(at_boot=True).items()} == {
        earlier.id: "superseded", later.id: "resumed",
    }  # fmt: skip
    assert world.queue() == [later.id]


@pytest.mark.parametrize(
    ("states", "status"),
    [([Running(), Cancelled()], "failed"), ([Running(), Completed()], "completed"), ([Running()], "interrupted")],
    ids=["cancelled", "completed", "goes on"],
)
def test_the_session_of_a_run_that_never_comes_back_is_closed(world, states, status):
    run = world.run(*states)
    fence.session_of(world.home, str(run.id)).update(status="interrupted")
    world.look()
    assert fence.session_of(world.home, str(run.id)).session.status == status


def test_sessions_of_runs_that_never_come_back_are_closed(world):
    cancelled, deleted, done, waits, alive = (world.run(Running()) for _ in range(5))
    for run in (cancelled, deleted, done, waits, alive):
        world.attempt(run.id, "S")
    world.client.set_flow_run_state(cancelled.id, Cancelled(), force=True)
    world.client.set_flow_run_state(done.id, Completed(), force=True)
    world.client.set_flow_run_state(alive.id, Completed(), force=True)  # its process still writes its last words
    world.client.delete_flow_run(deleted.id)
    with holder(world.home, str(alive.id)):
        world.look()
        found = {run.id: fence.session_of(world.home, str(run.id)).session.status for run in (cancelled, deleted, done)}
        assert found == {cancelled.id: "failed", deleted.id: "failed", done.id: "completed"}
        assert fence.session_of(world.home, str(alive.id)).session.status == "running"
        assert fence.session_of(world.home, str(waits.id)).session.status == "interrupted"


def test_runs_that_nobody_opted_in(world):
    by_hand = world.client.create_flow_run(so8t_pipeline, parameters={}, tags=[TAG], state=Running())
    untagged = world.run(Running())
    world.client.update_flow_run(untagged.id, tags=["other"])
    world.shift(by_hand.id, -100)
    assert world.look(at_boot=True) == {}
    assert world.read(by_hand.id).state_type == world.read(untagged.id).state_type == StateType.RUNNING


@pytest.mark.parametrize(("policy", "action"), [({"auto": False}, "left"), ({"confirm": True}, "confirm")])
def test_runs_that_wait_for_the_user(world, policy, action):
    run = world.run(Running(), parameters=world.parameters(**policy))
    assert world.look(at_boot=True)[run.id].action == action
    left = world.read(run.id)
    assert (left.state_type, left.state.message) == (StateType.CRASHED, world.look(at_boot=True)[run.id].why)
    assert untouched(world, left), "it is said once"
    assert find_run(world.client, run.name) == find_run(world.client, str(run.id)[:8]) == run.id
    world.shift(run.id, -100)
    assert world.look("", asked=[run.id])[run.id].action == "resumed"
    assert resumed(world, run.id)


def test_expiry_counts_from_the_last_progress(world):
    old = world.run(Running(), parameters=world.parameters(expiry_days=2), idle_s=9 * DAY_S)
    busy = world.run(Running(), parameters=world.parameters(expiry_days=2), idle_s=9 * DAY_S)
    days_ago = {n: datetime.fromtimestamp(datetime.now(UTC).timestamp() - n * DAY_S, UTC).isoformat() for n in (1, 3)}
    for run, progress in ((old, days_ago[3]), (busy, days_ago[1])):
        file = world.attempt(run.id, "S")
        begun = file.session.heartbeat.model_copy(update={"time": days_ago[3]})
        file.update(start_time=days_ago[3], last_progress_time=progress, heartbeat=begun)
    verdicts = world.look(at_boot=True)
    assert (verdicts[old.id].action, verdicts[busy.id].action) == ("left", "resumed")
    assert "expiry_days = 2" in verdicts[old.id].why
    message = world.read(old.id).state.message
    world.shift(old.id, -DAY_S / 2)
    assert world.look(at_boot=True)[old.id].why == message, "the same words each time, or there is a notice each time"


def test_priority_first_then_the_newest_progress(world):
    runs = {}
    for name, priority, progress in (("old", 0, "10"), ("new", 0, "12"), ("high", 5, "09"), ("low", -1, "13")):
        runs[name] = world.run(Running(), parameters=world.parameters(priority=priority, expiry_days=1e6))
        world.attempt(runs[name].id, "before the cut").update(last_progress_time=f"2026-01-01T{progress}:00:00+00:00")
    fresh = world.run(Scheduled(), idle_s=3)
    world.look(at_boot=True)
    assert world.queue() == [runs[name].id for name in ("high", "new", "old", "low")] + [fresh.id]


def test_crashes_without_progress_end_in_failed(world):
    run = world.run(Pending(), parameters=world.parameters(attempts_max=3, backoff_s=0))
    actions = []
    while len(actions) < 8 and "stopped" not in actions:
        world.crash(run.id, "S")
        actions.append(world.look("S")[run.id].action)
    assert actions == ["resumed", "resumed", "stopped"]
    stopped = world.read(run.id)
    assert stopped.state_type == StateType.FAILED
    assert "3 attempts in a row" in stopped.state.message
    assert world.look("S") == world.look("S", at_boot=True) == {}


def test_the_user_is_told_once(world, monkeypatch):
    """In `logs/notices.jsonl`: of a run that is given up and of one that waits for him, not of one that goes on."""
    monkeypatch.setenv(fence.SUPERVISOR_VARIABLE, "restored after the test")
    config = DEMO.model_copy(update={"machine": DEMO.machine.model_copy(update={"home": world.home})})
    supervisor = Supervisor(config)
    waits = world.run(Running(), parameters=world.parameters(confirm=True))
    given_up = world.run(Pending(), parameters=world.parameters(attempts_max=1))
    world.crash(given_up.id, supervisor.name)
    goes_on = world.run(Running())
    for _ in range(3):
        supervisor._resume(at_boot=False)
        world.shift(waits.id, -100)
    assert resumed(world, goes_on.id)
    titles = {f"so8t: run {waits.name} confirm", f"so8t: run {given_up.name} stopped"}
    assert {notice["title"] for notice in world.notices()} == titles
    assert len(world.notices()) == 2


def test_a_run_that_never_gets_as_far_as_its_lock_is_limited_too(world):
    """A broken interpreter or pull step: no session is written and Prefect's run_count stays 0."""
    run = world.run(Crashed(), parameters=world.parameters(attempts_max=3, backoff_s=0))
    actions = []
    while len(actions) < 8 and "stopped" not in actions:
        actions.append(world.look("S")[run.id].action)
        for state in (Pending(), Crashed()) if actions[-1] == "resumed" else ():
            world.client.set_flow_run_state(run.id, state, force=True)
        world.shift(run.id, -100)
    assert world.read(run.id).run_count == 0
    # The first attempt was not this supervisor's to watch.
    assert actions == ["resumed"] * 3 + ["stopped"]


def test_progress_gives_all_attempts_back(world):
    run = world.run(Pending(), parameters=world.parameters(attempts_max=2, backoff_s=0))
    training = SessionFile.open(world.home, "train-1", "train")
    for step in range(1, 6):
        world.crash(run.id, "S")
        training.update(current_step=step)
        assert world.look("S")[run.id].action == "resumed"
    for step in (2, 5):  # gone over again, but no further than ever
        world.crash(run.id, "S")
        training.update(current_step=step)
        last = world.look("S")[run.id].action
    assert last == "stopped"


def test_power_cuts_cost_nothing(world):
    run = world.run(Pending(), parameters=world.parameters(attempts_max=1))
    for cut in range(5):
        world.client.set_flow_run_state(run.id, Running(), force=True)
        world.attempt(run.id, f"boot {cut}")
        assert world.look(f"boot {cut + 1}", at_boot=True)[run.id].action == "resumed"
    assert fence.session_of(world.home, str(run.id)).session.stalled == 0


def test_backoff(world):
    run = world.run(Pending(), parameters=world.parameters(attempts_max=9, backoff_s=40))
    for pause_s in (0, 40, 80, 160):
        world.crash(run.id, "S", idle_s=21)
        if pause_s:
            assert world.look("S")[run.id].action == "waiting"
            world.shift(run.id, 4 - pause_s)
            assert world.look("S")[run.id].action == "waiting"
            world.shift(run.id, -4)
        assert world.look("S")[run.id].action == "resumed"


def test_a_clock_set_back_a_day(world):
    """All that happened lies in the future then: it goes on now, not when the clock comes there again."""
    policy = {"expiry_days": 0.5}
    running = world.run(Running(), parameters=world.parameters(**policy), idle_s=0)
    crashed = world.run(Running(), Crashed(), parameters=world.parameters(**policy), idle_s=0)
    waiting = world.run(Scheduled(), parameters=world.parameters(**policy), idle_s=0)
    again = world.run(Running(), AwaitingRetry(), parameters=world.parameters(**policy), idle_s=DAY_S)
    world.client.set_flow_run_state(again.id, AwaitingRetry(), force=True)
    runs = (running, crashed, waiting, again)
    for run in runs:
        tomorrow = world.attempt(run.id, "S")
        beat = tomorrow.session.heartbeat.model_copy(update={"time": datetime.fromtimestamp(
            datetime.now(UTC).timestamp() + DAY_S, UTC).isoformat()})  # fmt: skip
        tomorrow.update(heartbeat=beat, last_progress_time=beat.time)
        world.shift(run.id, DAY_S)
    assert {verdict.action for verdict in world.look("T", at_boot=True).values()} == {"resumed"}
    assert all(resumed(world, run.id) for run in runs)


def test_a_run_that_is_meant_for_tomorrow_waits(world):
    tomorrow = datetime.fromtimestamp(datetime.now(UTC).timestamp() + DAY_S, UTC)
    run = world.run(Scheduled(scheduled_time=tomorrow), idle_s=0)
    assert world.look(at_boot=True) == {}
    assert untouched(world, run)


def test_two_that_look_at_once_reschedule_once(world):
    """`so8t resume` beside the look of `so8t up`, or twice."""
    runs = [world.run(Running()) for _ in range(8)]
    looks = 3
    with ThreadPoolExecutor(looks) as pool:
        contexts = [copy_context() for _ in range(looks)]
        found = list(pool.map(lambda context: context.run(world.look), contexts))
    told = [run_id for verdicts in found for run_id, verdict in verdicts.items() if verdict.action == "resumed"]
    assert sorted(told) == sorted(run.id for run in runs)
    for run in runs:
        history = [state.name for state in world.client.read_flow_run_states(run.id)]
        assert history.count("AwaitingRetry") == 1


def test_the_users_word_ends_no_process_on_its_way(world):
    """`so8t resume RUN` said twice: the second finds a process that has not reached its lock yet."""
    run = world.run(Running(), Crashed(), parameters=world.parameters(confirm=True))
    assert world.look("", asked=[run.id])[run.id].action == "resumed"
    world.client.set_flow_run_state(run.id, Pending(), force=True)
    taken = world.read(run.id)
    assert world.look("", asked=[run.id]) == {}
    assert untouched(world, taken)


FLAKY = """
import os, sys
from pathlib import Path
from prefect import flow
from so8t import fence
from so8t.config import load_config
from so8t.errors import StepFailed
from so8t.section import Section
from so8t.step import Ref, Step
from so8t.wiring import STEPS
from tasks.steps import submit

home, run_id, dies_at = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])

def run(config, inputs, out, progress):
    with (home / "made").open("a", encoding="utf-8") as file:
        file.write(f"{os.getpid()}\\n")
    if (home / "made").read_text(encoding="utf-8").count("\\n") == dies_at:
        os._exit(9)
    raise StepFailed("as always")

sys.modules["flaky"] = type(sys)("flaky")
sys.modules["flaky"].run = run
STEPS["flaky"] = Step("flaky", "flaky", 1, lambda config, part: Section(), lambda config, part: {})

@flow
def walk():
    submit(Ref("flaky"), load_config(Path("configs/smoke.yaml"), ["recovery.retries=3", "recovery.retry_delay_s=0"], home)).result()

fence.hold(home, run_id)
walk()
"""


def test_retries_that_are_spent_stay_spent(world):
    """A step fails, is retried, fails, and its process dies in the third try: two retries of three are left."""
    run_id = "0f7c1f1e-0000-4000-8000-000000000000"
    world.home.mkdir()
    made = world.home / "made"
    settings = {"PREFECT_API_URL": PREFECT_API_URL.value(), "PREFECT_API_AUTH_STRING": PREFECT_API_AUTH_STRING.value()}
    for dies_at, wanted in ((3, [3]), (0, [3, 2])):
        ended = subprocess.run(
            [sys.executable, "-c", FLAKY, str(world.home), run_id, str(dies_at)], cwd=ROOT, check=False,
            env={**os.environ, **settings, "PREFECT_HOME": str(world.home / "prefect")},
            capture_output=True, text=True, encoding="utf-8",
        )  # fmt: skip
        pids = made.read_text(encoding="utf-8").split()
        assert [pids.count(pid) for pid in dict.fromkeys(pids)] == wanted, ended.stderr[-3000:]
    failures = fence.session_of(world.home, run_id).session.failures
    assert list(failures.values()) == [4]


def test_a_new_key_of_the_config_reaches_a_deployment_that_is_kept(served):
    """A home that an older version has used: `so8t run` keeps the defaults of `so8t up`, but not the old schema."""
    client, deployment, _ = served
    now = client.read_deployment(deployment)
    assert now.parameter_openapi_schema["definitions"]["Upload"]["properties"].pop("licence")
    client.update_deployment(deployment, DeploymentUpdate(
        parameter_openapi_schema=now.parameter_openapi_schema, parameters={"config": {"machine": {"threads": 1}}},
    ))  # fmt: skip
    ids = register(client, {}, keep=True)
    after = client.read_deployment(deployment)
    assert deployment in ids.values()
    assert "licence" in after.parameter_openapi_schema["definitions"]["Upload"]["properties"]
    assert after.parameters == {"config": {"machine": {"threads": 1}}}
    # The other way round: this version has dropped a key that the kept defaults name.
    schema = after.parameter_openapi_schema
    schema["definitions"]["Machine"]["properties"]["no_longer_there"] = {"type": "integer"}
    client.update_deployment(deployment, DeploymentUpdate(
        parameter_openapi_schema=schema, parameters={"config": {"machine": {"no_longer_there": 1}}},
    ))  # fmt: skip
    assert client.read_deployment(deployment).parameters
    assert deployment in register(client, {}, keep=True).values()
    assert client.read_deployment(deployment).parameters == {}
