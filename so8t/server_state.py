"""The home's Prefect server as anybody sees it: the process that the state file names, and its answer."""

import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import psutil

from so8t import durable
from so8t.births import birth

HOST = "127.0.0.1"
ANSWER_S = 2.0


def read(state_file: Path) -> dict[str, Any]:
    """Process id, its birth, port; empty where nothing can be read."""
    try:
        state: dict[str, Any] = durable.read_json(state_file)
    except (FileNotFoundError, ValueError):
        return {}
    return state


def lives(state: dict[str, Any]) -> bool:
    """Whether the process of the state still exists."""
    try:
        return bool(state) and birth(state["pid"]) == state.get("born")
    except psutil.NoSuchProcess:
        return False


def healthy(port: int) -> bool:
    """Whether a Prefect server answers on the port."""
    # The address is fixed to http on the loopback; proxies of the environment must not see it.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://{HOST}:{port}/api/health", timeout=ANSWER_S) as answer:
            return bool(answer.read().strip() == b"true")
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False
