"""A publication that is killed at one request after another, with other faults in between, until it ends by itself.

The server kills: it sees each request before it carries it out and after. A process dies at the first moments that no
process has died at before (or only at every `stride`-th of them), so the moments are enumerated and not drawn. Each
process meets another fault besides. What was imported once is forked, so a process costs a fraction of a second.
"""

import itertools
import multiprocessing
import multiprocessing.connection
import os
import re
import signal
from dataclasses import dataclass, field
from pathlib import Path

from so8t.upload.config import Upload
from tests.hub import HubServer, Request

WAIT_S = 120.0
DISTURBED = ("commit", "lfs-put", "preupload", "branch", "tree", "lfs-batch", "create", "refs", "tag", "lfs-complete")
KINDS = ("429", "500", "stalled", "lost request", "lost answer")
STALL_S = 0.4
CLIENT_PATIENCE_S = 0.2


@dataclass
class Campaign:
    """What happened: the moments at which processes were killed, in order, and how often each fault was met."""

    kills: list[str] = field(default_factory=list)
    faults: dict[str, int] = field(default_factory=dict)


class Killer:
    """Kills the client at the `stride`-th moment that is new."""

    def __init__(self, stride: int) -> None:
        self.stride, self.seen, self.pid, self.passed = stride, set[str](), 0, 0
        self.died_at = ""
        self._times: dict[str, int] = {}

    def aim(self, pid: int) -> None:
        """The next client."""
        self.pid, self.passed, self.died_at, self._times = pid, 0, "", {}

    def __call__(self, request: Request, moment: str) -> None:
        """One moment of a request."""
        path = re.sub(r"[0-9a-f]{40}(?![0-9a-f])", "OID", request.path.split("?")[0])
        key = f"{request.method} {path} {moment}"
        self._times[key] = self._times.get(key, 0) + 1
        name = f"{key} {self._times[key]}"
        if self.died_at or name in self.seen or not self.pid:
            return
        self.seen.add(name)
        self.passed += 1
        if self.passed >= self.stride:
            self.died_at = name
            os.kill(self.pid, signal.SIGKILL)


def run_campaign(hub: HubServer, home: Path, config: Upload, environment: dict[str, str], stride: int) -> Campaign:
    """Kill and disturb until a process ends by itself; that one must end well."""
    found, killer = Campaign(), Killer(stride)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["tests.upload.campaign", "tests.upload.made", "so8t.upload.hub", "so8t.upload.collection"]
    )
    hub.witness = killer
    for number in itertools.count():
        disturb(hub, number)
        # The client waits for a word, so that the server knows whom to kill.
        ready, go = context.Pipe(duplex=False)
        client = context.Process(target=publish_once, args=(ready, home, config.model_dump_json(), environment))
        client.start()
        assert client.pid
        killer.aim(client.pid)
        go.send("go")
        client.join(WAIT_S)
        for kind, fault in zip(KINDS, hub.faults, strict=True):
            found.faults[kind] = found.faults.get(kind, 0) + (fault.times == 0)
        hub.faults.clear()
        if client.exitcode != -signal.SIGKILL:
            break
        found.kills.append(killer.died_at)
    hub.witness = lambda request, moment: None
    assert client.exitcode == 0, f"process {number} ended with {client.exitcode}"
    return found


def disturb(hub: HubServer, number: int) -> None:
    """Arm one fault of each kind for a process, on other routes than for the one before."""
    for place, kind in enumerate(KINDS):
        route = DISTURBED[(number + 2 * place) % len(DISTURBED)]
        if kind.isdecimal():
            hub.fail(route, int(kind), Retry_After="0")
        elif kind == "stalled":
            hub.stall(route, STALL_S, applied=number % 2 == 0)
        else:
            hub.drop(route, applied=kind == "lost answer")


def publish_once(
    ready: "multiprocessing.connection.Connection", home: Path, config: str, environment: dict[str, str]
) -> None:
    """In a process of its own: publish what lies under `home`, with short pauses and little patience."""
    import httpx2
    from huggingface_hub import constants
    from huggingface_hub.utils import _http

    from so8t import durable
    from so8t.upload import client, publication
    from so8t.upload.retry import Backoff
    from tests.upload.made import load_inputs, publish

    os.environ.update(environment)
    durable._flush = lambda fd: None  # a killed process loses nothing that the kernel has
    constants.HF_HUB_DISABLE_XET = True
    client.TIMEOUT = httpx2.Timeout(CLIENT_PATIENCE_S, connect=30.0)
    # The client's own six tries pause for seconds; ours come after them.
    _http.time.sleep = lambda seconds: None  # type: ignore[attr-defined]
    publication.Backoff = lambda: Backoff(first_s=0.01, longest_s=0.05, patience_s=60.0)  # type: ignore
    ready.recv()
    publish(home, load_inputs(home), Upload.model_validate_json(config))
