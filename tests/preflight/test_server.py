"""The server's walls, asked of a running one; and another's server on the port that ours would take."""

import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from deployments import server as served
from deployments.hardened import check_server, holes
from deployments.server import Server
from so8t.config import load_config
from so8t.errors import ResourceError
from tests.conftest import ROOT


class Stranger(BaseHTTPRequestHandler):
    """Healthy, and knows nobody's password; or lets everybody in."""

    open, silent = False, False

    def do_GET(self):
        if self.silent and self.path != "/api/health":
            return  # the connection is closed without a word, as by one that dies or is too busy
        health = self.path == "/api/health"
        self.send_response(200 if health or self.open else 401)
        self.send_header("Access-Control-Allow-Origin", "*")
        self.end_headers()
        self.wfile.write(b"true" if health else b'"1.0"' if self.open else b"")

    def do_POST(self):
        self.send_response(200)
        self.end_headers()

    def log_message(self, *arguments):
        """Say nothing."""


@pytest.fixture
def stranger():
    made = ThreadingHTTPServer(("127.0.0.1", 0), Stranger)
    threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    yield made.server_address[1]
    made.shutdown()
    made.server_close()


def config_of(home, port=0):
    return load_config(ROOT / "configs" / "demo.yaml", [f"machine.server_port={port}"], home)


def test_another_s_server_on_our_port_is_said_to_be_one(tmp_path, stranger, monkeypatch):
    """Two that start at once both find the port free; the slower one's clients were only told 401."""
    monkeypatch.setattr(served, "_free_port", lambda wanted: stranger)
    # Ours ends at once, as one that cannot have its port does.
    monkeypatch.setattr(served.sys, "executable", shutil.which("true"))
    (tmp_path / "logs").mkdir()
    with pytest.raises(ResourceError) as refused, Server(config_of(tmp_path), tmp_path / "logs" / "server.log"):
        pass
    assert f"127.0.0.1:{stranger}" in refused.value.found
    assert "server_port" in refused.value.do
    assert not (tmp_path / "prefect" / "server.json").exists()


def test_a_port_that_others_have_is_told(tmp_path, stranger):
    assert "another program has port" in check_server(config_of(tmp_path, stranger)).found
    assert check_server(config_of(tmp_path)).state == "not looked at"


def test_silence_is_neither_a_hole_nor_a_wall(tmp_path, stranger, monkeypatch):
    monkeypatch.setattr(Stranger, "silent", True)
    monkeypatch.setattr("deployments.hardened.running_port", lambda state: stranger)
    found = check_server(config_of(tmp_path))
    assert (found.state, "answer" in found.found) == ("not looked at", True)


def test_holes_are_found_where_they_are(stranger, monkeypatch):
    monkeypatch.setattr(Stranger, "open", True)
    found = " ".join(holes(stranger, "so8t:x"))
    assert all(word in found for word in ("without a password", "without a CSRF token", "pages of any site"))
