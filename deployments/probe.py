"""Questions to the server on the loopback, without Prefect's client: it needs settings, and takes a second to load."""

import base64
import json
import socket
import urllib.error
import urllib.request
from http.client import HTTPException, HTTPResponse

from so8t.server_state import HOST

TIMEOUT_S = 3.0
VERSION = "/api/admin/version"


def server_version(port: int, auth: str) -> str | None:
    """Prefect's version as the server tells it to who knows its password; None where it refuses or is no Prefect."""
    try:
        with ask(port, "GET", VERSION, auth) as answer:
            told = json.loads(answer.read())
    except (OSError, HTTPException, ValueError):
        return None
    return told if isinstance(told, str) else None


def status(port: int, method: str, path: str, auth: str = "") -> int:
    """The status of an answer; 0 without one."""
    try:
        with ask(port, method, path, auth) as answer:
            return answer.status
    except urllib.error.HTTPError as refused:
        return refused.code
    except (OSError, HTTPException):
        return 0


def allowed_origin(port: int, auth: str, origin: str) -> str | None:
    """What a page of that origin is told about reading the answer; "" for nothing, None without an answer."""
    try:
        with ask(port, "GET", VERSION, auth, Origin=origin) as answer:
            return answer.headers.get("Access-Control-Allow-Origin", "")
    except urllib.error.HTTPError as refused:
        return refused.headers.get("Access-Control-Allow-Origin", "")
    except (OSError, HTTPException):
        return None


def answers(port: int) -> bool:
    """Whether any program takes connections there."""
    with socket.socket() as probe:
        probe.settimeout(TIMEOUT_S)
        return probe.connect_ex((HOST, port)) == 0


def ask(port: int, method: str, path: str, auth: str = "", **headers: str) -> HTTPResponse:
    """One request; URLError and its kin where nobody answers, HTTPError for a refusal."""
    if auth:
        headers["Authorization"] = "Basic " + base64.b64encode(auth.encode()).decode("ascii")
    data = b"{}" if method == "POST" else None
    # The address is fixed to http on the loopback; proxies of the environment must not see it.
    request = urllib.request.Request(
        f"http://{HOST}:{port}{path}", data, {"Content-Type": "application/json", **headers}, method=method
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    answer: HTTPResponse = opener.open(request, timeout=TIMEOUT_S)
    return answer
