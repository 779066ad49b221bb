"""Is the home's server up, ours, and closed to everybody else? Asked of the running server, not of its settings."""

import importlib.metadata
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from deployments.probe import TIMEOUT_S, VERSION, allowed_origin, answers, server_version, status
from deployments.server import auth_string, running_port
from so8t import durable
from so8t.preflight.finding import Finding
from so8t.server_state import HOST

if TYPE_CHECKING:
    from so8t.config import Config

STRANGER = "http://example.invalid"
WANTED = "a server that answers on the loopback alone, and only to this home's password"
DO = "stop it, and let `so8t up` or `so8t run` start a fresh one"


def check_server(config: "Config") -> Finding:
    """Not running is fine; running and open is not."""
    state = config.home() / "prefect" / "server.json"
    port = running_port(state)
    if not port:
        return _check_port(config.machine.server_port)
    auth = auth_string(config.home())
    if (found := holes(port, auth)) is None:
        return Finding("server", "not looked at", f"http://{HOST}:{port} is too busy to answer within {TIMEOUT_S:g} s")
    faults = found + _listens_elsewhere(state)
    if faults:
        return Finding("server", "fail", f"http://{HOST}:{port}: {'; '.join(faults)}", WANTED, DO)
    version, here = server_version(port, auth), importlib.metadata.version("prefect")
    if version is None:
        said = f"http://{HOST}:{port} refuses this home's password"
        return Finding("server", "fail", said, WANTED, DO)
    if version != here:
        said = f"http://{HOST}:{port} runs Prefect {version}, installed is {here}"
        return Finding("server", "warn", said, "one version", DO)
    return Finding(
        "server", "ok", f"http://{HOST}:{port}, Prefect {version}: loopback, password, CSRF token, no foreign origin"
    )


def _check_port(port: int) -> Finding:
    """Nothing runs: is the port free that it would take?"""
    if port and answers(port):
        return Finding(
            "server", "warn", f"not running, and another program has port {port}", f"port {port}, or another",
            "nothing: another port is taken then; machine.server_port chooses one for good",
        )  # fmt: skip
    return Finding("server", "not looked at", "not running; `so8t run` starts one, `so8t up` keeps one")


def holes(port: int, auth: str) -> list[str] | None:
    """What a stranger may do that he should not: read without a password, change without a token, call from a page.

    None where a question was not answered in time: silence is neither a hole nor a wall.
    """
    read, changed = status(port, "GET", VERSION), status(port, "POST", "/api/flow_runs/filter", auth)
    origin = allowed_origin(port, auth, STRANGER)
    if not read or not changed or origin is None:
        return None
    found = []
    if read != 401:
        found.append("it answers without a password")
    if changed != 403:
        found.append("it takes changes without a CSRF token")
    if origin in ("*", STRANGER):
        found.append("it lets pages of any site read its answers")
    return found


def _listens_elsewhere(state: Path) -> list[str]:
    """Addresses beside the loopback on which the server's process takes connections."""
    try:
        process = psutil.Process(int(durable.read_json(state)["pid"]))
        found = {one.laddr.ip for one in process.net_connections("inet") if one.status == psutil.CONN_LISTEN}
    except (psutil.Error, OSError, ValueError, KeyError):
        return ["which addresses it listens on could not be read"]
    return [f"it listens on {address}" for address in sorted(found - {HOST, "::1"})]
