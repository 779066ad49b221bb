"""A run's page and its recovery events on a real server."""

import time

from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.events.worker import EventsWorker
from prefect.states import Running

from so8t import fence, recoveries
from so8t.config import load_config
from so8t.session import SessionFile
from tasks.overview import KEY, RunOverview
from tests.conftest import ROOT

EVENTS_S = 30


def pages(world, run_id):
    wanted = ArtifactFilter(key=ArtifactFilterKey(any_=[KEY]))
    return [one for one in world.client.read_artifacts(artifact_filter=wanted) if one.flow_run_id == run_id]


def events(world):
    wanted = {"event": {"prefix": ["so8t.recovery.", "prefect.artifact."]}}
    answer = world.client.request("POST", "/events/filter", json={"filter": wanted})
    return answer.json()["events"]


def recovered(found, run):
    """Its own: other modules' runs have been on this server."""
    name = f"prefect.flow-run.{run.id}"
    about = [one for one in found if name in [other["prefect.resource.id"] for other in one["related"]]]
    return [one for one in about if one["event"].startswith("so8t.recovery.")]


def test_a_run_has_one_page_that_is_kept_up_to_date_and_an_event_for_each_recovery(world):
    run = world.run(Running())
    config = load_config(ROOT / "configs" / "smoke.yaml", [], world.home)
    session = SessionFile.open(world.home, fence.session_id(str(run.id)), "run").session.session_id
    page = RunOverview(config, run.id)
    page.show()
    (first,) = pages(world, run.id)
    assert first.data.startswith("# Run: running\n")
    assert "None: nothing went wrong" in first.data
    made = recoveries.record(world.home, session, step="train", fault="HANG", policy="started anew", outcome="went on")
    page.show()
    page.show("completed", "All is well.")
    (last,) = pages(world, run.id)
    assert last.id == first.id
    assert last.data.startswith("# Run: completed\n")
    assert "All is well." in last.data
    assert "| train | HANG | started anew |" in last.data
    # As a run does at its end: the server is stopped after the tests.
    EventsWorker.drain_all(timeout=EVENTS_S)
    deadline = time.monotonic() + EVENTS_S
    while not (found := recovered(events(world), run)) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert [(one["event"], one["resource"]["prefect.resource.name"]) for one in found] == [
        ("so8t.recovery.HANG", "train")
    ]
    assert found[0]["payload"]["at"] == made.at
    assert found[0]["related"][0]["prefect.resource.id"] == f"prefect.flow-run.{run.id}"
    # An update's event would hold the whole page, and is sent before that of the recovery.
    about = [one["event"] for one in events(world) if one["resource"]["prefect.resource.id"].endswith(str(first.id))]
    assert about == ["prefect.artifact.created"]


def test_a_resumed_run_goes_on_with_its_page(world):
    run = world.run(Running())
    config = load_config(ROOT / "configs" / "smoke.yaml", [], world.home)
    RunOverview(config, run.id).show("interrupted")
    (first,) = pages(world, run.id)
    RunOverview(config, run.id).show()
    (then,) = pages(world, run.id)
    assert then.id == first.id
    assert then.data.startswith("# Run: running\n")
    other = world.run(Running())
    RunOverview(config, other.id).show()
    assert len(pages(world, other.id)) == 1
    assert pages(world, run.id)[0].data == then.data


def test_a_page_that_cannot_be_sent_is_left_for_the_next_look(world, monkeypatch, caplog):
    config = load_config(ROOT / "configs" / "smoke.yaml", [], world.home)
    page = RunOverview(config, world.run(Running()).id)
    with monkeypatch.context() as gone:
        gone.setattr(page, "_publish", lambda *given: world.client.raise_for_absence())
        gone.setattr(type(world.client), "raise_for_absence", _refused, raising=False)
        page.show()
    assert "the run's overview was not updated" in caplog.text
    page.show()
    assert pages(world, page._run_id)


def _refused(client):
    client.request("GET", "/flow_runs/not-there").raise_for_status()
