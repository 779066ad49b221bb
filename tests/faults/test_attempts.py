"""What is done about each fault: injected for real where a test can, the state afterwards, and the words of the end."""

import errno
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import pytest
import torch

from so8t import recoveries
from so8t.artifacts import check_hashes
from so8t.child import stopping
from so8t.errors import GivenUp, Interrupted, NotFinite, ResourceError, StepFailed
from so8t.faults import Fault, classify
from so8t.session import SessionFile, read
from so8t.step import execute, plan
from tasks import steps
from tasks.run import remaking
from tests.faults.steps import FIRST, SECOND, Walk, declare
from tests.test_attempt import _fill, small  # noqa: F401 - a fixture


def done(walk) -> list[tuple[str, str, str]]:
    return [(found.fault, found.policy, found.outcome) for found in recoveries.read(walk.store.home)]


def failing(*errors):
    """A step that fails with one error after the other, then is made."""
    left = list(errors)

    def act(machine, out):
        (out / "x").write_text("made", encoding="utf-8")
        if left:
            raise left.pop(0)
        return {}

    return act


class Site:
    """Answers each request with the next status, the last one for ever; `requests` are the paths."""

    def __init__(self) -> None:
        self.statuses, self.requests, self.headers = [200], [], {}
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                site.requests.append((self.path, time.monotonic()))
                status = site.statuses.pop(0) if len(site.statuses) > 1 else site.statuses[0]
                self.send_response(status)
                for name, value in site.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *arguments):
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def site():
    made = Site()
    yield made
    made.close()


def asking(site, *paths):
    """A step that asks the site, as often as it is tried."""

    def act(machine, out):
        httpx.get(f"{site.url}/data", trust_env=False).raise_for_status()
        return {}

    return act


@pytest.mark.parametrize("status", [500, 503, 408])
def test_it_waits_until_the_server_answers_and_spends_no_retry(status, site, tmp_path, monkeypatch):
    ran = declare(monkeypatch, asking(site))
    walk = Walk(tmp_path)
    site.statuses = [status, status, status, 200]
    walk.second()
    assert ran == ["first", "second", "second"]
    # The step's own, two looks at the root that find nothing new, one that does, the step's.
    assert [path for path, _ in site.requests] == ["/data", "/", "/", "/", "/data"]
    assert done(walk)[0] == ("network", "wait", "waiting")
    assert done(walk)[1:] == [("network", "wait", "went on"), ("network", "none any more", "completed")]
    assert walk.run.session.failures == {}
    assert site.url in recoveries.read(tmp_path)[0].detail


def test_a_rate_limit_is_left_alone_as_long_as_it_asks(site, tmp_path, monkeypatch):
    declare(monkeypatch, asking(site))
    walk = Walk(tmp_path)
    site.statuses, site.headers = [429, 200], {"Retry-After": "1"}
    walk.second()
    first, second = (at for _, at in site.requests[:2])
    assert second - first >= 1
    assert done(walk)[0] == ("rate-limit", "wait", "waiting")


def test_a_server_that_never_answers_ends_the_wait(site, tmp_path, monkeypatch):
    declare(monkeypatch, asking(site))
    walk = Walk(tmp_path, "recovery.network_wait_max_s=0.5")
    site.close()
    with pytest.raises(GivenUp, match=r"second stops \(network\)") as ended:
        walk.second()
    assert "wanted: an answer of http://127.0.0.1" in str(ended.value)
    assert "goes on from here" in str(ended.value)
    assert classify(ended.value) is Fault.NETWORK
    assert done(walk)[-1] == ("network", "stop", "stopped")


def test_a_stop_ends_a_wait_at_once(site, tmp_path, monkeypatch):
    declare(monkeypatch, asking(site))
    walk = Walk(tmp_path, "recovery.network_pause_s=1000", "recovery.network_pause_max_s=1000")
    site.statuses, site.headers = [429], {"Retry-After": "900"}
    threading.Timer(0.3, stopping.set).start()
    try:
        with pytest.raises(Interrupted, match="while it waited"):
            walk.second()
    finally:
        stopping.clear()


def test_a_token_that_may_not_stops_at_once(site, tmp_path, monkeypatch):
    ran = declare(monkeypatch, asking(site))
    walk = Walk(tmp_path)
    site.statuses = [401]
    with pytest.raises(GivenUp, match="do:     set HF_TOKEN"):
        walk.second()
    assert ran.count("second") == 1
    assert done(walk) == [("authentication", "stop", "stopped")]


def test_a_password_in_an_address_is_told_to_nobody(site, tmp_path, monkeypatch):
    def act(machine, out):
        httpx.get(site.url.replace("//", "//me:hushhush@") + "/data", trust_env=False).raise_for_status()
        return {}

    declare(monkeypatch, act)
    walk = Walk(tmp_path)
    site.statuses = [503, 200]
    walk.second()
    assert "hushhush" not in json.dumps([found.model_dump() for found in recoveries.read(tmp_path)]) + str(walk.said)


def test_a_sink_that_is_away_ends_no_wait(tmp_path):
    """A page of a server that is starting, a session on the full disk: the others are told."""
    heard = []

    class Sink:
        def __init__(self, refusal=None):
            self.refusal = refusal

        def report(self, step, done, total, message, metrics):
            if self.refusal:
                raise self.refusal
            heard.append(message)

    refusals = [httpx.ConnectError("refused"), ResourceError("the disk is full", "room", "free some")]
    sinks = [Sink(), Sink(refusals[0]), Sink(refusals[1]), Sink()]
    assert list(steps._told(sinks, "second", "waiting")) == refusals
    assert heard == ["waiting", "waiting"]


def test_a_missing_package_names_its_extra_and_nothing_is_installed(tmp_path, monkeypatch):
    def act(machine, out):
        raise ModuleNotFoundError("No module named 'trafilatura'", name="trafilatura")

    declare(monkeypatch, act)
    with pytest.raises(GivenUp, match=r'so8t\[web\]"; nothing is installed by itself') as ended:
        Walk(tmp_path).second()
    assert classify(ended.value) is Fault.MISSING_PACKAGE


def test_a_step_without_a_micro_batch_is_tried_once_with_half_the_threads(tmp_path, monkeypatch):
    threads = []

    def act(machine, out):
        threads.append(machine.threads)
        if len(threads) < 2:
            torch.empty(1 << 60)
        return {}

    declare(monkeypatch, act)
    walk = Walk(tmp_path, "machine.threads=8")
    walk.second()
    assert threads == [8, 4]
    assert done(walk)[0] == ("host-memory", "fewer threads", "tried again")


def test_and_not_a_second_time_even_by_another_process(tmp_path, monkeypatch):
    declare(monkeypatch, lambda machine, out: torch.empty(1 << 60))
    with pytest.raises(GivenUp, match="a config that fits this machine"):
        Walk(tmp_path, "machine.threads=8").second()
    again = Walk(tmp_path, "machine.threads=8")
    with pytest.raises(GivenUp):
        again.second()
    assert [policy for _, policy, _ in done(again)] == ["fewer threads", "stop", "stop"]


def test_a_gpu_that_is_lost_gets_two_fresh_tries(tmp_path, monkeypatch):
    lost = torch.AcceleratorError("CUDA error: unspecified launch failure")
    ran = declare(monkeypatch, failing(lost, lost))
    walk = Walk(tmp_path)
    walk.second()
    assert ran.count("second") == 3
    declare(monkeypatch, failing(*[lost] * 9))
    other = Walk(tmp_path / "other")
    with pytest.raises(GivenUp, match="driver, power supply and heat"):
        other.second()
    assert [policy for _, policy, _ in done(other)] == ["fresh-process", "fresh-process", "stop"]


def test_what_no_rule_knows_is_left_to_the_retries(tmp_path, monkeypatch):
    declare(monkeypatch, failing(StepFailed("as always")))
    walk = Walk(tmp_path)
    with pytest.raises(StepFailed, match="as always"):
        walk.second()
    assert done(walk) == []
    declare(monkeypatch, failing(NotFinite("of a step that trains nothing")))
    with pytest.raises(NotFinite):
        Walk(tmp_path / "other").second()


class Steps:
    """Walks `first`, which is damaged after so many walks, and `second`."""

    def __init__(self, walk: Walk, damage, times: int) -> None:
        self.walk, self.damage, self.left, self.made = walk, damage, times, []

    def __call__(self) -> None:
        artifact = execute(FIRST, self.walk.config, self.walk.store)
        self.made.append(artifact.path.name)
        if self.left:
            self.left -= 1
            self.damage(artifact.path / "data")
        self.walk.second()


def flipped(path) -> None:
    path.write_bytes(b"tHe same each time")


def test_a_damaged_input_is_made_again_by_its_own_step_and_no_try_is_in_vain(tmp_path, monkeypatch):
    ran = declare(monkeypatch, failing(StepFailed("of bytes that make no sense")))
    walk = Walk(tmp_path)
    steps = Steps(walk, flipped, 1)
    remaking(steps, steps.made)
    assert ran == ["first", "second", "first", "second"]
    assert len(steps.made) == 1
    assert [folder.name.partition(".")[2] for folder in tmp_path.glob("artifacts/first/*.damaged-*")] == ["damaged-1"]
    assert done(walk) == [("damaged", "remake", "to be made again")]


def test_an_input_of_which_a_file_is_gone_is_made_again(tmp_path, monkeypatch):
    ran = declare(monkeypatch, failing())
    steps = Steps(Walk(tmp_path), Path.unlink, 1)
    remaking(steps, steps.made)
    assert ran == ["first", "first", "second"]


def test_damaged_twice_is_no_accident(tmp_path, monkeypatch):
    ran = declare(monkeypatch, failing(*[StepFailed("of bytes that make no sense")] * 9))
    walk = Walk(tmp_path)

    with pytest.raises(GivenUp, match="test disk and memory"):
        remaking(Steps(walk, flipped, 9), [])
    assert ran == ["first", "second", "first", "second"]
    assert check_hashes(next(tmp_path.glob("artifacts/first/" + "?" * 64)))


class Freeing(list):
    """Somebody reads that it waits, and makes room."""

    def __init__(self, filler: Path) -> None:
        super().__init__()
        self.filler = filler

    def append(self, text: str) -> None:
        super().append(text)
        if "waiting until" in text:
            self.filler.unlink(missing_ok=True)


def test_a_full_disk_is_emptied_of_our_own_and_waited_for(small, monkeypatch):  # noqa: F811
    """A tmpfs of 256 kB: killed writers' files go, a user's file stays, and the step goes on when there is room."""
    home = small / "home"

    def act(machine, out):
        with (out / "big").open("wb") as file:
            file.write(bytes(70_000))
        return {}

    ran = declare(monkeypatch, act)
    walk = Walk(home)
    left = home / "artifacts" / "third" / ("e" * 64 + ".partial")
    left.mkdir(parents=True)
    (left / "half.1a2b3c4d.tmp").write_bytes(bytes(16_000))
    (left / "whole").write_bytes(b"kept")
    _fill(small)
    walk.said = Freeing(small / "filler")
    walk.second()
    assert ran.count("second") == 3
    assert sorted(path.name for path in left.iterdir()) == ["whole"]
    assert [(policy, outcome) for _, policy, outcome in done(walk)] == [
        ("free-and-wait", "tried again"), ("wait for room", "waiting"), ("wait for room", "went on"),
        ("none any more", "completed"),
    ]  # fmt: skip
    assert walk.run.session.failures == {}


def test_a_session_on_a_full_disk_hides_no_error_and_undoes_no_artifact(small, monkeypatch):  # noqa: F811
    declare(monkeypatch, lambda machine, out: {})
    walk = Walk(small / "home")
    made = execute(FIRST, walk.config, walk.store)
    monkeypatch.setattr(steps.fence, "current", lambda: walk.run)
    _fill(small)

    def fails():
        raise StepFailed("its own")

    with pytest.raises(StepFailed, match="its own"):
        steps._counted(FIRST, "k" * 64, fails)
    assert steps._counted(FIRST, "k" * 64, lambda: made) is made
    (small / "filler").unlink()
    walk.run.update()
    assert list(read(walk.run.folder).failures.values()) == [1], "it is written with the next change"


def test_a_disk_that_stays_full_stops_with_what_to_do(small, monkeypatch):  # noqa: F811
    def act(machine, out):
        raise OSError(errno.ENOSPC, "No space left on device", str(out / "big"))

    declare(monkeypatch, act)
    walk = Walk(small / "home", "recovery.disk_wait_max_s=0.2", "recovery.disk_room_mb=1000")
    with pytest.raises(GivenUp, match=r"1000 MB free at .*found 0") as ended:
        walk.second()
    assert "free some space" in str(ended.value)
    assert classify(ended.value) is Fault.DISK_FULL


@pytest.mark.parametrize(
    ("setting", "error", "raised"),
    [
        ("recovery.network=stop", httpx.ConnectError("refused"), GivenUp),
        ("recovery.network=again", httpx.ConnectError("refused"), httpx.ConnectError),
        ("recovery.memory=stop", MemoryError("x"), GivenUp),
        ("recovery.memory=again", MemoryError("x"), MemoryError),
        ("recovery.lost=stop", RuntimeError("CUDA error: uncorrectable ECC error encountered"), GivenUp),
        ("recovery.lost=again", RuntimeError("CUDA error: uncorrectable ECC error encountered"), RuntimeError),
        ("recovery.disk=stop", OSError(errno.ENOSPC, "full"), GivenUp),
    ],
)
def test_a_rule_may_be_another(setting, error, raised, tmp_path, monkeypatch):
    declare(monkeypatch, failing(error))
    with pytest.raises(raised):
        Walk(tmp_path, setting).second()


def test_a_config_that_is_wrong_is_nobodys_fault_but_its_own(tmp_path, monkeypatch):
    declare(monkeypatch, failing(ResourceError("too little", "more", "buy some")))
    walk = Walk(tmp_path)
    with pytest.raises(ResourceError, match="buy some"):
        walk.second()
    assert done(walk) == []


def test_a_lost_gpu_of_long_ago_counts_no_more(tmp_path, monkeypatch):
    """Two weeks of training may lose it every few days; a step that is lost at one place again and again stops."""
    lost = torch.AcceleratorError("CUDA error: unspecified launch failure")
    clock = {"s": 1e9}
    monkeypatch.setattr("so8t.recovery.fresh.time.time", lambda: clock["s"])
    declare(monkeypatch, lambda machine, out: {})
    walk = Walk(tmp_path)
    key = plan(SECOND, walk.config, walk.store).key
    own = SessionFile.open(tmp_path, recoveries.session_of("second", key), "second")

    def lose(times: int, hours: float, further: int) -> None:
        """So often, each time after so many hours and steps."""
        left = [lost] * times

        def act(machine, out):
            clock["s"] += hours * 3600
            own.update(current_step=own.session.current_step + further)
            if left:
                raise left.pop()
            raise StepFailed("enough")

        declare(monkeypatch, act)
        # Each time as another process, which knows the session alone.
        Walk(tmp_path, "recovery.fresh_process_delay_s=0", "recovery.fresh_processes_hours=24").second()

    with pytest.raises(StepFailed, match="enough"):
        lose(9, hours=13, further=1)
    assert all(policy == "fresh-process" for _, policy, _ in done(walk))
    kept = read(walk.run.folder).fresh_starts
    assert [len(starts) for starts in kept.values()] == [2], "the others are forgotten"

    clock["s"] += 100 * 3600
    with pytest.raises(GivenUp, match="driver, power supply and heat"):
        lose(9, hours=100, further=0)
    assert [policy for _, policy, _ in done(walk)][9:] == ["fresh-process", "fresh-process", "stop"]

    own.update(current_step=own.session.current_step + 1)
    clock["s"] -= 1000 * 3600  # set back: nothing is known to be over
    with pytest.raises(GivenUp):
        lose(9, hours=1, further=1)
    assert [policy for _, policy, _ in done(walk)][12:] == ["stop"]
