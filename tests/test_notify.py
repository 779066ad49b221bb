"""Notices reach a real address; one that fails is told of, never raised, and never named."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from so8t.notify import URLS_VARIABLE, notify

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
    notify(tmp_path, "停電", "The run goes on.")
    assert [(body["title"], body["message"]) for body in received] == [("停電", "The run goes on.")] * 2
    assert notices(tmp_path) == [("停電", "The run goes on.")]


def test_without_addresses_it_is_written_down(tmp_path, monkeypatch):
    monkeypatch.delenv(URLS_VARIABLE, raising=False)
    notify(tmp_path, "a", "1")
    notify(tmp_path, "b", "2")
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
    notify(tmp_path, "title", "text")
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
    notify(tmp_path, "disk full", "mend it")
    assert [body["title"] for body in received] == ["disk full"]
    assert "disk full: mend it" in capsys.readouterr().err
