"""What a missed gate leaves in a real server, what that server refuses, and what it does not."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

from deployments.hardened import check_server
from deployments.probe import server_version
from deployments.server import Server, auth_string
from flows.pipeline import DEMO
from so8t.artifacts import Store
from so8t.bake.gate import Gate, write_gates
from so8t.errors import GateFailed, ResourceError
from so8t.step import Ref
from tasks.show import show_refused
from tests.crash.tree import Api
from tests.flows.conftest import until


def test_table_of_a_missed_gate_is_shown(world):
    store = Store(world.home)
    for limit in (1.0, 2.0):
        with store.working("bake", "ab12") as partial:
            with pytest.raises(GateFailed, match="missed by"):
                write_gates(partial, [Gate("mean KL", 3.0, limit), Gate("top-1", 0.99, 0.9, ">=")])
            store.set_aside(partial)
    kept = store.set_aside_of("bake", "ab12")
    assert [folder.name for folder in kept] == ["ab12.damaged-1", "ab12.damaged-2"]
    show_refused(Ref("bake"), kept[-1])
    wanted = ArtifactFilter(key=ArtifactFilterKey(any_=["bake-gates"]))
    (shown,) = world.client.read_artifacts(artifact_filter=wanted)
    assert "| mean KL | 3 | <= 2 | MISSED |" in shown.data
    assert "1 of 2 passed." in shown.data


def test_the_server_is_closed_to_strangers_and_says_so(served):
    _, _, database = served
    home = database.parents[1]
    config = DEMO.model_copy(update={"machine": DEMO.machine.model_copy(update={"home": home})})
    found = check_server(config)
    assert found.state == "ok", found.found
    auth, server = home / "prefect" / "auth", Server(config, home / "logs" / "server.log")
    ours = auth.read_bytes()
    server.ensure()
    assert server_version(server.port, "so8t:wrong") is None
    auth.unlink()
    try:
        assert auth_string(home)
        assert check_server(config).state == "fail"
        with pytest.raises(ResourceError, match="refuses the password"):
            server.ensure()
    finally:
        auth.write_bytes(ours)


def test_a_run_is_taken_while_another_writes(served):
    """As a browser submits it, which asks once."""
    _, deployment, database = served
    home, ended = database.parents[1], threading.Event()
    line = {"name": "so8t", "level": 20, "message": "at work", "timestamp": "2026-01-01T00:00:00Z"}
    with ThreadPoolExecutor() as pool:
        writing = pool.submit(until, ended, lambda: Api(home).client.post("/logs/", json=[line]).status_code)
        try:
            told = [Api(home).client.post(f"/deployments/{deployment}/create_flow_run", json={}) for _ in range(3)]
        finally:
            ended.set()
    assert [answer.status_code for answer in told] == [201] * 3, [answer.text for answer in told]
    assert set(writing.result()) == {201}
