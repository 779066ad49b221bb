"""A source on the Hub whose server fails: the real step against the test Hub, with what recovery does about it."""

import time

import pytest

from so8t import recoveries
from so8t.artifacts import Store
from so8t.collect import download
from so8t.config import check
from so8t.errors import GivenUp
from so8t.faults import Fault, classify
from so8t.recovery.attempts import Attempts
from so8t.step import Ref, execute, plan
from tests.collect.conftest import remote  # noqa: F401 - a fixture

REF = Ref("collect.source", "talk")
ROWS = b'{"text": "a b c", "class": "DENY"}\n{"text": "d e f", "class": null}\n'


@pytest.fixture
def gathered(remote, tmp_path):  # noqa: F811
    """Gathers two rows of the Hub; gives the server and a function."""
    server, commit = remote
    source = {
        "kind": "hub", "name": "talk", "id": "lab/talk", "revision": commit("license: mit", {"data/1.jsonl": ROWS}),
        "files": ["data/*"], "language": "en", "columns": {"prompt": "text", "label": "class"}, "unavailable": "fail",
    }  # fmt: skip
    recovery = {"network_pause_s": 0.05, "network_pause_max_s": 0.1, "network_wait_max_s": 20}
    settings = {"base": {"kind": "demo"}, "collect": {"sources": [source]}, "recovery": recovery}
    config = check({**settings, "machine": {"home": str(tmp_path / "home")}}, "test")
    store = Store(config.home())

    def gather():
        tries = Attempts(REF, plan(REF, config, store).key, config, store, lambda text: None)
        return tries.make(lambda now: execute(REF, now, store))

    return server, gather, lambda: [(r.fault, r.policy, r.outcome) for r in recoveries.read(config.home())]


@pytest.mark.parametrize("how", ["500", "cut"])
def test_it_waits_for_a_hub_that_fails(gathered, how):
    server, gather, done = gathered
    server.fail("info", 500) if how == "500" else server.drop("info")
    assert gather().manifest.facts["rows"] == 2
    assert done() == [
        ("network", "wait", "waiting"), ("network", "wait", "went on"), ("network", "none any more", "completed"),
    ]  # fmt: skip


def test_it_leaves_a_hub_alone_that_asks_for_it(gathered, monkeypatch):
    server, gather, done = gathered
    monkeypatch.setattr(download, "FRUITLESS_TRIES", 1)
    server.fail("resolve", 429, Retry_After="1")
    started = time.monotonic()
    assert gather().manifest.facts["rows"] == 2
    assert time.monotonic() - started >= 1
    assert done()[0] == ("rate-limit", "wait", "waiting")


def test_a_token_that_may_not_read_stops_at_once(gathered):
    server, gather, done = gathered
    server.fail("resolve", 401, skip=1)  # the card may be read
    with pytest.raises(GivenUp, match="set HF_TOKEN") as ended:
        gather()
    assert classify(ended.value) is Fault.AUTHENTICATION
    assert server.count("resolve") == 2
    assert done() == [("authentication", "stop", "stopped")]
