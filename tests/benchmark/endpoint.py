"""A small real OpenAI-compatible endpoint on this machine, for a judge to be asked through."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "sk-only-for-tests"


@dataclass
class Endpoint:
    """What was asked of it; `statuses` are given first, one a request (0 drops the connection)."""

    url: str = ""
    statuses: list[int] = field(default_factory=list)
    retry_after: str = ""  # of every answer but 200
    asked: list[dict[str, Any]] = field(default_factory=list)


@contextmanager
def endpoint(reply: Callable[[str], str]) -> Iterator[Endpoint]:
    """Serve `/v1/chat/completions`; `reply` makes the text from the question."""
    state = Endpoint()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            return

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status = state.statuses.pop(0) if state.statuses else 200
            if self.headers["Authorization"] != f"Bearer {KEY}":
                status = 401
            if self.path != "/v1/chat/completions":
                status = 404
            if status == 0:
                self.connection.close()
                return
            if status == 200:
                state.asked.append(body)
            text = reply(body["messages"][0]["content"])
            message = {"choices": [{"message": {"role": "assistant", "content": text}}]}
            data = json.dumps(message if status == 200 else {"error": "no"}).encode("utf-8")
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            if state.retry_after and status != 200:
                self.send_header("Retry-After", state.retry_after)
            self.end_headers()
            self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
