"""`so8t up` with a training that is halted: the monitor finds it by itself, and the run ends under its own id."""

import json
import os
import signal
import time

import psutil
import pytest

from so8t import recoveries
from so8t.monitor import processes
from so8t.progress import lines_of
from tests.conftest import TINY
from tests.crash.tree import Api, Tree

SETTINGS = [
    *TINY, "--set", "machine.server_port=0", "--set", "machine.resume_interval_s=2", "--set", "train.warmup.steps=60",
    "--set", "recovery.fresh_process_delay_s=1", "--set", "recovery.retry_delay_s=1",
    "--set", "monitor.interval_s=10", "--set", "monitor.stall_minutes=3",
]  # fmt: skip
WAIT_S = 900


def until(done, why):
    deadline = time.monotonic() + WAIT_S
    while not (found := done()):
        assert time.monotonic() < deadline, why()
        time.sleep(0.1)
    return found


@pytest.fixture
def tree(tmp_path):
    started = Tree(tmp_path / "home", *SETTINGS)
    yield started
    started.stop()


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_a_halted_training_is_found_and_goes_on(tree):
    home = tree.home
    tree.wait_for("worker  started")
    run_id = Api(home).start()
    (said,) = until(lambda: list(home.glob("logs/*/train.progress.jsonl")), tree.said)
    until(lambda: '"warmup 20/60"' in said.read_text(encoding="utf-8"), tree.said)
    (unit,) = [unit for unit in processes.units(home) if unit.step == "train"]
    os.kill(unit.pid, signal.SIGSTOP)
    began = time.monotonic()
    reached = lines_of(said)[-1]["done"]

    until(lambda: "monitor  train of run" in tree.said(), tree.said)
    found_s = time.monotonic() - began
    assert 3 * 60 <= found_s < 3 * 60 + 90
    Api(home).wait(run_id, "Completed", timeout_s=1800)
    ended_s = time.monotonic() - began
    assert not psutil.pid_exists(unit.pid)
    session = json.loads((home / "sessions" / f"run-{run_id}" / "session.json").read_text(encoding="utf-8"))
    assert session["attempts"] == 1, "the run's own process went on"
    train = next(json.loads(path.read_text(encoding="utf-8")) for path in home.glob("sessions/train-*/session.json"))
    assert train["resumes"][-1]["step"] >= reached, "it was woken, and saved before it ended"
    assert train["status"] == "completed"
    taken = recoveries.read(home, run_id)
    assert {(one.step, one.fault) for one in taken} == {("train", "hang")}
    # The monitor and the run's process each write a line in the same moment.
    details = {one.policy: one.detail for one in taken}
    assert sorted(details) == ["end it, and go on from the newest checkpoint", "fresh-process", "none any more"]
    assert (len(taken), taken[-1].policy) == (3, "none any more")
    assert "stopped by a signal" in details["end it, and go on from the newest checkpoint"]
    (stacks,) = home.glob("logs/*/train.progress.jsonl.stacks-*.txt")
    assert "so8t/loop/trainer.py" in stacks.read_text(encoding="utf-8")
    pages = [one for one in Api(home).post("/artifacts/filter", limit=200) if one["key"] == "monitor"]
    assert any("ended process" in page["data"] for page in pages)
    notices = (home / "logs" / "notices.jsonl").read_text(encoding="utf-8")
    assert "has reported nothing for" in notices
    assert tree.stop() == 143
    print(f"found after {found_s:.0f} s, completed {ended_s - found_s:.0f} s later")  # noqa: T201
