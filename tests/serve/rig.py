"""The whole server in this process, but for the socket; with a writer that writes what it is told, or the tiny model."""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx

from so8t.serve.answer import Answering
from so8t.serve.api import Served
from so8t.serve.audit import AuditLog, Key
from so8t.serve.config import Serve
from so8t.serve.desk import Desk
from so8t.serve.model import Count, Sampling, Writer
from so8t.serve.prompt import Turn
from so8t.serve.server import callers, guarded
from tests.serve.adversary import cut

CONFIG = Serve(queue_s=5, reply_s=5)


class Scripted:
    """A writer whose next reply is set from outside, cut anywhere: no model could be made to write these."""

    def __init__(self, seed: int = 0) -> None:
        self.reply, self._draw = "", random.Random(seed)  # noqa: S311

    def write(
        self, turns: Sequence[Turn], image: bytes, sampling: Sampling, count: Count, check: Callable[[], None]
    ) -> Iterator[str]:
        check()
        yield from cut(self._draw, self.reply)


class Rig:
    """One server and a client of it."""

    def __init__(self, writer: Writer, folder: Path, config: Serve, key: str, image_size: int, classifier) -> None:
        folder.mkdir(exist_ok=True)
        self.audit = AuditLog(folder / "audit" / "1.jsonl", Key(folder / "audit.key"), 1 << 26, 2)
        self.answering = Answering(writer, self.audit, {"model": "tiny", "model_sha256": "0" * 64}, classifier)
        self.desk = Desk(self.answering, config.queue, config.queue_s, config.reply_s)
        served = Served("tiny", 1, 512, image_size)
        self.app = guarded(self.desk, served, config, callers(config, key)[1], key)

    def client(self, host: str = "127.0.0.1:4280", **headers: str) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        return httpx.AsyncClient(transport=transport, base_url=f"http://{host}", headers=headers)

    def log(self) -> bytes:
        return b"".join(path.read_bytes() for path in sorted(self.audit.path.parent.glob("*.jsonl*")))


@contextmanager
def rig(
    writer: Writer, folder: Path, config: Serve = CONFIG, key: str = "", image_size: int = 0, classifier=None
) -> Iterator[Rig]:
    made = Rig(writer, folder, config, key, image_size, classifier)
    try:
        yield made
    finally:
        made.desk.stop(0)
        made.desk.close()
        made.audit.close()


def streamed(text: str) -> tuple[str, list[dict]]:
    """The answer put together from a stream of events, and its events."""
    import json

    assert text.endswith("data: [DONE]\n\n")
    events = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
    pieces = []
    for event in events:
        delta = event["choices"][0]["delta"] if event.get("choices") else {}
        pieces.append(event.get("final") or delta.get("content") or "")
    return "".join(pieces), events
