"""A disk that somebody fills while `so8t run` trains: it waits, says so, and completes once there is room again."""

import json
import os
import subprocess
import sys
import time

import pytest

from so8t import recoveries
from so8t.session import sessions
from tests.conftest import ROOT, TINY, command
from tests.test_bad_input import _fill, _mounted

pytestmark = pytest.mark.soak
WAIT_S = 1500
SETTINGS = [
    *TINY, "--set", "machine.server_port=0", "--set", "recovery.disk_check_s=2", "--set", "recovery.disk_room_mb=300",
]  # fmt: skip


def until(done, log):
    deadline = time.monotonic() + WAIT_S
    while not (found := done()):
        assert time.monotonic() < deadline, log.read_text(encoding="utf-8")[-4000:]
        time.sleep(0.1)
    return found


@pytest.mark.timeout(3600)
def test_a_run_waits_for_room_and_completes(tmp_path):
    """Of the home's own, what a killed writer left goes; a file of the user's stays."""
    log = tmp_path / "log"
    with _mounted(tmp_path / "small", "size=1g") as small:
        home = small / "home"
        left = home / "artifacts" / "preprocess" / f"{'e' * 64}.partial" / "half.1a2b3c4d.tmp"
        with log.open("w", encoding="utf-8") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "deployments.command", "run", "--json", "--home", str(home), *SETTINGS],
                stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, cwd=ROOT, env=os.environ,
            )  # fmt: skip
        try:
            (said,) = until(lambda: list(home.glob("logs/*/train.progress.jsonl")), log)
            until(lambda: '"warmup 1/4"' in said.read_text(encoding="utf-8"), log)
            left.parent.mkdir(parents=True)
            left.write_bytes(bytes(1 << 20))
            (home / "mine.tmp").write_bytes(b"mine")
            _fill(small)
            until(lambda: "the disk is full: waiting until" in log.read_text(encoding="utf-8"), log)
            assert not left.exists()
            time.sleep(20)
            assert process.poll() is None, log.read_text(encoding="utf-8")[-4000:]
            (small / "filler").unlink()
            assert process.wait(WAIT_S) == 0, log.read_text(encoding="utf-8")[-6000:]
        finally:
            process.kill()
            process.wait()
        summary = json.loads(log.read_text(encoding="utf-8").splitlines()[-1])
        assert summary["state"] == "completed"
        assert (home / "mine.tmp").read_bytes() == b"mine"
        (run,) = (session for session in sessions(home) if session.kind == "run")
        assert (run.status, run.failures, run.attempts) == ("completed", {}, 1), "no retry was spent"
        done = [(found.fault, found.policy, found.outcome) for found in recoveries.read(home, run.session_id)]
        assert {fault for fault, _, _ in done} == {"disk-full"}
        told = [(policy, outcome) for _, policy, outcome in done]
        assert ("free-and-wait", "tried again") in told
        assert told[-2:] == [("wait for room", "went on"), ("none any more", "completed")]
        assert command("verify", home=home).code == 0
    print(f"{len(done)} lines of recovery")  # noqa: T201
