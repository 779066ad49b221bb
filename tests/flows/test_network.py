"""A Hub that asks to be left alone, goes away and comes back, and one that refuses: `so8t run` to its end."""

import threading
from pathlib import Path

import pytest
import yaml

from so8t import recoveries
from so8t.session import sessions
from tests.collect.conftest import remote  # noqa: F401
from tests.conftest import ROOT, run
from tests.hub import HubServer, Request

pytestmark = pytest.mark.soak
ROWS = b'{"text": "How do I water roses in a dry summer garden?", "class": "ALLOW"}\n'
# Longer than all tries of the download itself.
AWAY_S = 60.0
QUICK = ("--set", "recovery.network_pause_s=1", "--set", "recovery.network_pause_max_s=4")


@pytest.fixture
def offered(remote, tmp_path, monkeypatch):  # noqa: F811
    """The server, and a config that reads a file of it; whoever is refused there has failed."""
    server, commit = remote
    whole = yaml.safe_load((ROOT / "configs" / "smoke.yaml").read_text(encoding="utf-8"))
    whole["collect"]["sources"].append({
        "kind": "hub", "name": "talk", "id": "lab/talk", "revision": commit("license: mit", {"data/1.jsonl": ROWS}),
        "files": ["data/*"], "language": "en", "columns": {"prompt": "text", "label": "class"}, "unavailable": "fail",
    })  # fmt: skip
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(whole), encoding="utf-8", newline="\n")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    return server, path


def of_run(home: Path) -> tuple[list[tuple[str, str, str]], dict[str, int], str]:
    """What recovery did in the run, the retries that were spent, and how its session ended."""
    (session,) = (session for session in sessions(home) if session.kind == "run")
    done = [(found.fault, found.policy, found.outcome) for found in recoveries.read(home, session.session_id)]
    return done, session.failures, session.status


def goes_away(server: HubServer, monkeypatch) -> threading.Event:
    """After its first 429 the server is gone for a while, and at its return it fails once more."""
    log, gone, back = server.log, threading.Event(), threading.Event()

    def leave() -> None:
        server.away(AWAY_S)
        back.set()

    def told(request: Request) -> None:
        log(request)
        if request.status == 429 and not gone.is_set():
            gone.set()
            threading.Thread(target=leave).start()

    monkeypatch.setattr(server, "log", told)
    return back


@pytest.mark.timeout(3600)
def test_the_hub_says_wait_and_is_gone_and_comes_back(offered, tmp_path, monkeypatch):
    server, path = offered
    server.fail("resolve", 429, skip=1, Retry_After="1")  # the card may be read
    server.fail("resolve", 500)
    back = goes_away(server, monkeypatch)
    ended = run("--config", str(path), *QUICK, home=tmp_path / "home")
    assert ended.code == 0, ended.err[-4000:]
    assert ended.json["state"] == "completed"
    assert back.is_set()
    assert {server.count("resolve", 429), server.count("resolve", 500)} == {1}
    done, failures, status = of_run(tmp_path / "home")
    assert done[0] == ("network", "wait", "waiting"), done
    assert done[-2:] == [("network", "wait", "went on"), ("network", "none any more", "completed")]
    assert (failures, status) == ({}, "completed"), "no retry was spent"
    assert "does not answer" in ended.err


def test_a_token_that_may_not_read_ends_the_run_with_what_to_do(offered, tmp_path):
    server, path = offered
    server.fail("resolve", 401, times=99, skip=1)
    ended = run("--config", str(path), *QUICK, home=tmp_path / "home")
    assert ended.code == 1, ended.err[-4000:]
    assert "collect.source[talk] stops (authentication)" in ended.err
    assert "set HF_TOKEN" in ended.err
    done, failures, status = of_run(tmp_path / "home")
    assert done == [("authentication", "stop", "stopped")]
    assert (failures, status) == ({}, "failed")
    assert server.count("resolve", 401) == 1, "a token that is refused once is not shown again"
