"""Notices reach a real address; one that fails is told of, never raised, and never named."""

import json
import socket
import threading
from datetime import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from so8t import cli
from so8t.attempt import LOGS_VARIABLE, recorded
from so8t.config import Notify
from so8t.notify import URLS_VARIABLE, is_quiet, notify

SILENT = Notify(sound=False)
SECRET = "s3cret-in-the-address"


class Receiver(BaseHTTPRequestHandler):
    """Keeps what is posted to it; refuses everything below /refused."""

    received: list[dict]

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.received.append(json.loads(body))
        self.send_response(403 if self.path.startswith("/refused") else 200)
        self.end_headers()

    def log_message(self, *arguments):
        """Nothing on stderr."""


@pytest.fixture
def receiver():
    handler = type("Handler", (Receiver,), {"received": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"json://127.0.0.1:{server.server_port}", handler.received
    server.shutdown()
    thread.join()
    server.server_close()


def notices(home):
    lines = (home / "logs" / "notices.jsonl").read_text(encoding="utf-8").splitlines()
    return [(line["title"], line["text"]) for line in map(json.loads, lines)]


def test_a_notice_arrives(receiver, tmp_path, monkeypatch):
    address, received = receiver
    monkeypatch.setenv(URLS_VARIABLE, f"{address}/one {address}/two")
    notify(tmp_path, "failed", "停電", "The run goes on.", SILENT)
    assert [(body["title"], body["message"]) for body in received] == [("停電", "The run goes on.")] * 2
    assert notices(tmp_path) == [("停電", "The run goes on.")]


def test_no_address_within_a_notice_keeps_its_password(receiver, tmp_path, monkeypatch):
    address, received = receiver
    monkeypatch.setenv(URLS_VARIABLE, address)
    notify(
        tmp_path,
        "resume",
        "so8t: https://me:hushhush@a.example",
        "no answer of https://me:hushhush@b.example",
        Notify(sound=False),
    )
    assert "hushhush" not in str(received)
    assert "b.example" in str(received)
    assert "hushhush" not in (tmp_path / "logs" / "notices.jsonl").read_text(encoding="utf-8")


def test_without_addresses_it_is_written_down(tmp_path, monkeypatch):
    monkeypatch.delenv(URLS_VARIABLE, raising=False)
    notify(tmp_path, "failed", "a", "1", SILENT)
    notify(tmp_path, "failed", "b", "2", SILENT)
    assert notices(tmp_path) == [("a", "1"), ("b", "2")]


@pytest.mark.parametrize(
    ("address", "complaint"),
    [
        (f"nonsense://user:{SECRET}@host", "is not an Apprise address"),
        (SECRET, "is not an Apprise address"),
        # Nothing listens on port 9 of this machine, and so the connection is refused.
        (f"json://user:{SECRET}@127.0.0.1:9", "did not take it"),
        ("refused", "did not take it"),
    ],
)
def test_a_failing_address_is_told_of_and_not_named(address, complaint, receiver, tmp_path, monkeypatch, capfd, caplog):
    working, received = receiver
    if address == "refused":
        address = f"{working.replace('//', f'//user:{SECRET}@')}/refused"
    monkeypatch.setenv(URLS_VARIABLE, f"{address} {working}")
    notify(tmp_path, "failed", "title", "text", SILENT)
    assert notices(tmp_path) == [
        ("title", "text"), ("notification failed", f"address 1 of {URLS_VARIABLE} {complaint}")
    ]  # fmt: skip
    assert received[-1]["title"] == "title", "the next address is still told"
    assert SECRET not in (tmp_path / "logs" / "notices.jsonl").read_text(encoding="utf-8")
    printed = capfd.readouterr()
    assert SECRET not in printed.out + printed.err + caplog.text


def test_where_nothing_can_be_written_the_other_channels_still_tell(receiver, tmp_path, monkeypatch, capsys):
    address, received = receiver
    monkeypatch.setenv(URLS_VARIABLE, address)
    (tmp_path / "logs").write_bytes(b"a file where the folder should be")
    notify(tmp_path, "failed", "disk full", "mend it", SILENT)
    assert [body["title"] for body in received] == ["disk full"]
    assert "disk full: mend it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("hours", "at", "quiet"),
    [
        ("", "03:00", False),
        ("22:00-07:00", "21:59", False), ("22:00-07:00", "22:00", True), ("22:00-07:00", "06:59", True),
        ("22:00-07:00", "07:00", False), ("12:00-13:30", "13:00", True), ("12:00-13:30", "23:00", False),
    ],
)  # fmt: skip
def test_quiet_hours(hours, at, quiet):
    Notify(quiet_hours=hours)
    assert is_quiet(hours, time.fromisoformat(at)) == quiet


@pytest.mark.parametrize("hours", ["22-7", "24:00-07:00", "22:00", "22:00 - 07:00"])
def test_hours_that_are_none_are_refused(hours):
    with pytest.raises(ValueError, match="quiet_hours"):
        Notify(quiet_hours=hours)


def test_in_quiet_hours_only_what_went_wrong_is_told(receiver, tmp_path, monkeypatch):
    address, received = receiver
    monkeypatch.setenv(URLS_VARIABLE, address)
    monkeypatch.setattr("so8t.notify.is_quiet", lambda hours, at: True)
    monkeypatch.setattr("so8t.sound.play", lambda home, kind: pytest.fail("a sound"))
    notify(tmp_path, "completed", "good", "", Notify())
    notify(tmp_path, "failed", "bad", "", Notify())
    assert [body["title"] for body in received] == ["bad"]
    assert [title for title, _ in notices(tmp_path)] == ["good", "bad"], "written down is everything"


def test_what_is_not_asked_for_is_only_written_down(receiver, tmp_path, monkeypatch):
    address, received = receiver
    monkeypatch.setenv(URLS_VARIABLE, address)
    assert notify(tmp_path, "completed", "good", "", Notify(on=("failed",))) == []
    assert (received, notices(tmp_path)) == ([], [("good", "")])


def test_an_address_that_never_answers_is_waited_for_no_longer_than_the_limit(tmp_path, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv(URLS_VARIABLE, f"json://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setattr("so8t.notify.REMOTE_TIMEOUT_S", 0.2)
        (outcome,) = notify(tmp_path, "failed", "title", "", SILENT)
    assert outcome.problem == "did not answer within 0.2 s"


def test_a_run_that_completed_tells_so_and_no_channel_fails_it(receiver, tmp_path, monkeypatch):
    address, received = receiver
    monkeypatch.setenv(URLS_VARIABLE, f"{address}/refused {address}")
    monkeypatch.setenv(LOGS_VARIABLE, "")
    with recorded(tmp_path, None, SILENT):
        pass
    assert {body["title"] for body in received} == {"so8t: the run completed"}


def test_the_command_says_what_became_of_each_channel(receiver, tmp_path, monkeypatch, capsys):
    address, received = receiver
    told = ("--home", str(tmp_path), "--set", "notify.sound=false", "--set", "notify.quiet_hours=00:00-23:59")
    monkeypatch.setenv(URLS_VARIABLE, f"{address}/refused {address}")
    assert cli.main(["notify", "test", *told]) == 1
    out = capsys.readouterr().out
    assert f"address 1 of {URLS_VARIABLE}: did not take it\n" in out
    assert f"address 2 of {URLS_VARIABLE}: taken\n" in out
    assert "sound: off" in out
    assert len(received) == 2
    monkeypatch.delenv(URLS_VARIABLE)
    assert cli.main(["notify", "test", *told]) == 0
    assert "names no address" in capsys.readouterr().out
