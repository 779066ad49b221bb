"""A run that dies again and again under one living `so8t up`: stopped at the limit, told, and begun again by hand."""

import contextlib
import json
import os
import signal
import time

import pytest

from tests.crash.test_supervisor import session, standin, until  # noqa: F401
from tests.crash.tree import Api

pytestmark = pytest.mark.soak
# By the attempts that cost something, and by the monitor, which counts every start.
LIMITS = {
    "attempts": (["resume.attempts_max=3", "monitor.interval_s=1000"], "3 attempts in a row ended without any progress"),
    "monitor": (["resume.attempts_max=99", "monitor.crash_loop_restarts=3", "monitor.interval_s=5"], "was started 3 times"),
}  # fmt: skip


@pytest.mark.timeout(1500)
@pytest.mark.parametrize("limit", LIMITS)
def test_a_crash_loop_ends_and_a_retry_by_hand_goes_on(standin, limit):  # noqa: F811
    settings, why = LIMITS[limit]
    home = standin.home
    chosen = [part for setting in ("resume.backoff_s=0", *settings) for part in ("--set", setting)]
    tree = standin.up(*chosen)
    api = Api(home)
    run_id = api.start()
    killed, began = [], time.monotonic()

    def dies() -> bool:
        """SIGKILL as soon as it is at its step; whether the run has been given up."""
        for pid in standin.entered()[len(killed) :]:
            killed.append(pid)
            with contextlib.suppress(ProcessLookupError):  # the monitor was first
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.5)
        return api.run(run_id)["state_type"] == "FAILED"

    until(dies, tree.said, 900)
    stopped_s = time.monotonic() - began
    run = api.run(run_id)
    assert why in run["state"]["message"]
    assert "then Retry it in the UI" in run["state"]["message"]
    assert 3 <= len(killed) <= 5
    attempts = session(home, run_id)["attempts"]
    assert session(home, run_id)["status"] == "failed"
    notices = [json.loads(line) for line in (home / "logs" / "notices.jsonl").read_text(encoding="utf-8").splitlines()]
    assert any(notice["title"] == f"so8t: run {run['name']} stopped" for notice in notices), notices
    time.sleep(8)  # four looks of the resumer
    assert len(standin.entered()) == len(killed), "it stays stopped"

    # As the UI's Retry does.
    again = {"type": "SCHEDULED", "name": "AwaitingRetry", "message": "Retry from the UI"}
    assert api.post(f"/flow_runs/{run_id}/set_state", state=again)["status"] == "ACCEPT"
    until(lambda: len(standin.entered()) > len(killed), tree.said)
    standin.go()
    api.wait(run_id, "Completed")
    assert session(home, run_id)["status"] == "completed"
    assert session(home, run_id)["attempts"] == attempts + 1
    assert tree.stop() == 143
    print(f"{len(killed)} attempts died, stopped after {stopped_s:.0f} s")  # noqa: T201
