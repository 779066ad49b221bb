"""The Hub before a run, against a server that speaks its interface: reach, rights, licence, time."""

from datetime import UTC, datetime, timedelta

import pytest

from so8t.config import load_config
from so8t.errors import ResourceError
from so8t.preflight import clock, hub
from so8t.preflight.finding import demand
from so8t.preflight.look import LASTS
from so8t.preflight.scene import set_scene
from tests.conftest import ROOT
from tests.hub import READ_TOKEN, WRITE_TOKEN, HubServer

DEMO = ROOT / "configs" / "demo.yaml"
TO_HUB = "upload.target={kind: hub, repo_id: tester/model}"
CARD = b"---\nlicense: %s\n---\n# Base\n"


@pytest.fixture
def served(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    with HubServer(tmp_path / "hub") as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_TOKEN", WRITE_TOKEN)
        yield server


@pytest.fixture
def scene(tmp_path):
    return lambda *overrides: set_scene(load_config(DEMO, overrides, tmp_path / "home"), LASTS["pipeline"])


def token(scene, *overrides):
    made = scene(*overrides)
    return hub.check_token(made, hub.ask(made))


def test_a_demo_asks_nobody(served, scene):
    made = scene()
    answer = hub.ask(made)
    assert served.requests == []
    assert [check(made, answer).state for check in (hub.check_reached, hub.check_token)] == ["not looked at"] * 2
    assert hub.check_licence(made, answer).found.startswith("mit")


def test_rights_of_a_token(served, scene, monkeypatch):
    found = token(scene, TO_HUB)
    assert (found.state, "may write tester/model" in found.found) == ("ok", True)
    assert token(scene, "upload.target={kind: hub, repo_id: lab/model}").state == "ok"
    strange = token(scene, "upload.target={kind: hub, repo_id: someone/model}")
    assert (strange.state, "neither you nor" in strange.found) == ("fail", True)
    monkeypatch.setenv("HF_TOKEN", READ_TOKEN)
    assert "only reads" in token(scene, TO_HUB).found
    monkeypatch.setenv("HF_TOKEN", "made-up")
    assert "refuses it (status 401)" in token(scene, TO_HUB).found
    monkeypatch.delenv("HF_TOKEN")
    none = token(scene, TO_HUB)
    assert none.state == "fail"
    with pytest.raises(ResourceError, match="hf auth login"):
        demand([none])


@pytest.mark.parametrize(
    ("entity", "permissions", "state"),
    [
        ({"type": "user", "name": "tester"}, ["repo.content.read", "repo.write"], "ok"),
        ({"type": "user", "name": "tester"}, ["repo.content.read"], "fail"),
        ({"type": "model", "name": "tester/model"}, ["repo.write"], "ok"),
        ({"type": "model", "name": "tester/other"}, ["repo.write"], "fail"),
        ({"type": "org", "name": "lab"}, ["repo.write"], "fail"),
    ],
)
def test_scopes_of_a_fine_grained_token(served, scene, monkeypatch, entity, permissions, state):
    served.tokens["fine"] = "fineGrained"
    served.scopes["scoped"] = [{"entity": entity, "permissions": permissions}]
    monkeypatch.setenv("HF_TOKEN", "fine")
    assert token(scene, TO_HUB).state == state
    collected = token(scene, "upload.target={kind: hub, repo_id: tester/model, collection: ours}")
    assert collected.state == "fail", "a collection needs a right of its own"


def test_out_of_reach_does_not_stop_a_run(scene, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_TOKEN", WRITE_TOKEN)
    made = scene(TO_HUB)
    answer = hub.ask(made)
    reached = hub.check_reached(made, answer)
    assert (reached.state, reached.stops) == ("fail", False)
    assert hub.check_token(made, answer).state == "not looked at"
    demand([reached])


def test_a_mirror_s_password_is_not_shown(scene, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://me:secret@127.0.0.1:9")
    made = scene(TO_HUB)
    answer = hub.ask(made)
    reached = hub.check_reached(made, answer)
    assert "http://127.0.0.1:9 did not answer" in reached.found
    assert not [found for found in (reached, hub.check_token(made, answer)) if "secret" in str(found)]


def test_a_busy_hub_is_out_of_reach(served, scene):
    served.fail("whoami", 503)
    made = scene(TO_HUB)
    assert hub.check_reached(made, hub.ask(made)).passing


def commit(server, repo: str, licence: bytes) -> str:
    made = server.store.create("models", repo, private=False)
    return made.append("main", "card", {**made.tree("main"), "README.md": server.store.put_blob(CARD % licence)})


@pytest.mark.parametrize(
    ("licence", "state", "said"),
    [
        (b"mit", "ok", "mit"),
        (b"Apache-2.0", "ok", "apache-2.0"),
        (b"cc-by-nc-4.0", "warn", "cc-by-nc"),
        (b"", "fail", "unknown"),
    ],
)
def test_licence_of_a_base_on_the_hub(served, scene, licence, state, said):
    revision = commit(served, "lab/base", licence)
    base = f"base={{kind: hub, id: lab/base, revision: '{revision}'}}"
    made = scene(base)
    found = hub.check_licence(made, hub.ask(made))
    assert (found.state, said in found.found) == (state, True)
    assert hub.check_pins(made).state == "ok"


def test_a_base_that_is_not_there_or_not_pinned_stops_a_run(served, scene):
    missing = scene(f"base={{kind: hub, id: lab/none, revision: '{'0' * 40}'}}")
    assert hub.check_licence(missing, hub.ask(missing)).stops
    loose = scene("base={kind: hub, id: lab/base, revision: unpinned}")
    assert hub.check_pins(loose).stops
    assert hub.check_licence(loose, hub.ask(loose)).state == "not looked at"


def test_the_clock_is_held_against_the_hub_s(served, scene):
    made = scene(TO_HUB)
    told = hub.ask(made).time
    assert abs(datetime.now(UTC) - told) < timedelta(seconds=30)
    assert clock.check(made, told, None).state == "ok"
    assert clock.check(made, told - timedelta(hours=9), None).state == "warn"
    assert clock.check(made, None, None).state == "not looked at"
    assert [clock.check(made, None, word).state for word in (True, False)] == ["ok", "warn"]


def test_a_clock_behind_the_home_s_own_notes(scene, tmp_path):
    from so8t.session import Heartbeat, SessionFile

    file = SessionFile.open(tmp_path / "home", "train-1", "train")
    assert clock.check(scene(), None, True).state == "ok"
    later = (datetime.now(UTC) + timedelta(days=1)).isoformat(timespec="milliseconds")
    file.update(heartbeat=Heartbeat(time=later))
    assert "has notes of" in clock.check(scene(), None, True).found
