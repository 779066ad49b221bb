"""The monitor's looks as runs in the UI, against a real server; `so8t monitor` as a command."""

import json
import os
import threading
import time
import uuid

import httpx
import pytest
from prefect.client.schemas.objects import State, StateType
from prefect.events.worker import EventsWorker
from prefect.settings import temporary_settings

from deployments import watchman
from deployments.watchman import Watchman
from flows.monitor import due
from flows.pipeline import DEMO
from so8t import fence, resumption
from so8t.monitor.config import Monitor
from so8t.session import SessionFile
from tests.conftest import command

LOW = Monitor(disk_free_min_gib=1e9, memory_free_min_percent=0, forecast_hours=1e-9, keep_runs=2, interval_s=3600)


@pytest.fixture
def watched(world):
    """Deployment, server of the looks, and what it said."""
    world.home.mkdir()
    machine = DEMO.machine.model_copy(update={"home": world.home})
    quiet = DEMO.notify.model_copy(update={"sound": False})
    config = DEMO.model_copy(update={"machine": machine, "monitor": LOW, "notify": quiet})
    said = []
    deployment = watchman.register(world.client, config)
    yield deployment, Watchman(config, threading.Event(), said.append), said, config
    world.client.delete_deployment(deployment)


def looks(world, deployment, *states):
    found = [run for run in world.client.read_flow_runs() if run.deployment_id == deployment]
    return [run for run in found if not states or run.state_type in states]


def events(world):
    seen = world.client.request("POST", "/events/filter", json={"filter": {"event": {"prefix": ["so8t.monitor."]}}})
    return [event["event"] for event in seen.json()["events"]]


def artifacts(world):
    return [one for one in world.client.read_artifacts() if one.key == "monitor"]


def test_looks_are_runs_with_a_page_an_event_and_a_notice(world, watched):
    deployment, man, said, config = watched
    cut = world.client.create_flow_run_from_deployment(deployment, state=State(type=StateType.RUNNING))
    assert watchman.register(world.client, config) == deployment
    assert cut.id not in [run.id for run in looks(world, deployment)], "the power failed in the middle of a look"
    for _ in range(3):  # missed while the machine was off
        world.client.create_flow_run_from_deployment(deployment)
    man._serve()
    (run,) = looks(world, deployment, StateType.COMPLETED)
    assert due(world.client, deployment) == []
    assert run.work_pool_name is None, "a worker's slot is not spent on it"
    (page,) = artifacts(world)
    assert page.flow_run_id == run.id
    assert "1 thing(s) want an eye" in page.data
    assert "| warn | disk |" in page.data
    assert len(said) == 1
    assert "GiB are free (monitor.disk_free_min_gib = 1e+09)" in said[0]
    assert [notice["title"] for notice in world.notices()] == ["so8t: 1 thing(s) to know"]
    EventsWorker.drain_all(timeout=30)
    deadline = time.monotonic() + 60  # the server writes events down in batches
    while "so8t.monitor.disk" not in events(world):
        assert time.monotonic() < deadline
        time.sleep(0.2)

    man._serve()
    assert len(looks(world, deployment, StateType.COMPLETED)) == 1, "nothing is due"
    for pool in ("so8t", "deleted", "so8t"):  # somebody may delete a pool in the UI; a look needs none
        world.client.create_flow_run_from_deployment(deployment, parameters={"pool": pool})
        man._serve()
    assert len(said) == 1, "it stands, and was told"
    assert len(world.notices()) == 1
    left = looks(world, deployment, StateType.COMPLETED)
    assert len(left) <= LOW.keep_runs + 1
    assert {one.flow_run_id for one in artifacts(world)} == {run.id for run in left}


def test_what_somebody_pauses_in_the_ui_stays_paused(world, watched):
    deployment, man, said, config = watched
    (schedule,) = world.client.read_deployment(deployment).schedules
    assert schedule.schedule.interval.total_seconds() == LOW.interval_s
    world.client.update_deployment_schedule(deployment, schedule.id, active=False)
    for run in looks(world, deployment):
        world.client.delete_flow_run(run.id)
    assert watchman.register(world.client, config) == deployment
    assert [one.active for one in world.client.read_deployment(deployment).schedules] == [False]
    man._looked_at -= 10 * LOW.interval_s
    man._serve()
    assert looks(world, deployment) == []
    assert said == []
    (schedule,) = world.client.read_deployment(deployment).schedules
    world.client.update_deployment_schedule(deployment, schedule.id, active=True)
    for run in looks(world, deployment):
        world.client.delete_flow_run(run.id)
    man._serve()
    assert len(looks(world, deployment, StateType.COMPLETED)) == 1, "none was scheduled, and one is overdue"


def test_without_a_server_it_looks_all_the_same(world, watched):
    _, man, said, _ = watched
    with temporary_settings({"api.url": "http://127.0.0.1:9/api", "client.max_retries": 0}):
        man._serve()
        assert said == [], "it is not time"
        man._looked_at -= 2 * LOW.interval_s
        man._serve()
    assert "looks without the server" in said[0]
    assert [notice["title"] for notice in world.notices()] == ["so8t: 1 thing(s) to know"]


def test_what_was_found_is_told_also_where_the_server_takes_no_page(world, watched, monkeypatch):
    deployment, man, said, _ = watched
    world.client.create_flow_run_from_deployment(deployment)

    def refuse(**page):
        raise httpx.ConnectError("All connection attempts failed")

    with monkeypatch.context() as gone:
        gone.setattr("flows.monitor.create_markdown_artifact", refuse)
        man._serve()
    assert "ConnectError" in said[0]
    assert [notice["title"] for notice in world.notices()] == ["so8t: 1 thing(s) to know"], "no look tells it again"


def test_a_run_that_is_to_stop_is_not_resumed(world):
    run = world.run(State(type=StateType.RUNNING))
    world.attempt(run.id, "another")
    resumption.ask_to_stop(world.home, str(run.id), "it was started 10 times")
    assert world.look(at_boot=True)[run.id].action == "stopped"
    assert world.read(run.id).state_type == StateType.FAILED
    assert world.look(at_boot=True) == {}
    assert fence.session_of(world.home, str(run.id)).session.status == "failed"


CALM = ["--set", "monitor.disk_free_min_gib=0", "--set", "monitor.memory_free_min_percent=0",
        "--set", "monitor.forecast_hours=1e-9"]  # fmt: skip


def test_the_command(tmp_path):
    home = tmp_path / "home"
    assert command("monitor", "scan", home=home).code == 2, "a typing error must not make a home"
    file = SessionFile.open(home, fence.session_id(str(uuid.uuid4())), "run")
    file.end("interrupted")
    calm = command("monitor", "scan", *CALM, home=home)
    assert calm.code == 0, calm.out + calm.err
    assert "note  interrupted  run " in calm.out
    told = command(
        "monitor", "recover", "--dry-run", "--json", *CALM, "--set", "monitor.disk_free_min_gib=1e9", home=home
    )
    assert told.code == 1
    assert [one["kind"] for one in told.json["findings"]] == ["disk", "interrupted"]
    assert [one["new"] for one in told.json["findings"]] == [True, False]
    assert told.json["actions"][0]["outcome"].startswith("nothing: no `so8t up` runs")


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_watch_ends_cleanly(tmp_path):
    import signal
    import subprocess
    import sys

    from tests.conftest import ROOT

    (tmp_path / "home").mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "deployments.command", "monitor", "watch", *CALM, "--home", str(tmp_path / "home")],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8", cwd=ROOT,
    )  # fmt: skip
    assert "watching" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert "Traceback" not in err
    assert json.loads((tmp_path / "home" / "monitor" / "state.json").read_text(encoding="utf-8"))["looks"] == 1
