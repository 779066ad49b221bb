"""Looks at a real home: what is told once, what stands, what is forecast, and what is done about it."""

import contextlib
import errno
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import uuid

import psutil
import pytest

from so8t import attempt, durable, fence, recoveries, resumption
from so8t.births import birth
from so8t.errors import StepFailed
from so8t.monitor import crash_loop, leftovers, machine, services, stalls
from so8t.monitor.clock import Moment, jumped_s, moment, watched_s
from so8t.monitor.config import Monitor
from so8t.monitor.forecast import hours_left
from so8t.monitor.look import look
from so8t.monitor.page import page
from so8t.monitor.recover import WOULD, recover
from so8t.monitor.state import State, read
from so8t.session import SessionFile
from tests.flows.conftest import holder

# Levels of this machine never warn.
CALM = Monitor(disk_free_min_gib=0, memory_free_min_percent=0, gpu_temperature_max_c=120, forecast_hours=1e-9)
GIB = 1 << 30


@pytest.fixture
def home(tmp_path):
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def kinds(report):
    return [finding.kind for finding in report.findings]


def standing(report):
    return {(one.kind, one.subject) for one in report.findings}


def failed(home, number, message="no"):
    logs = home / "logs" / f"attempt_{number}"
    logs.mkdir(parents=True, exist_ok=True)
    attempt.log_error(logs, StepFailed(message), "run-1")
    return logs / "errors.jsonl"


def test_a_fault_is_told_once_and_an_old_one_never(home):
    old = failed(home, 1, "long over")
    assert kinds(look(home, CALM)) == [], "what was there before the first look is old"
    new = failed(home, 2, "just now")
    report = look(home, CALM)
    assert [(one.kind, one.severity) for one in report.new] == [("fault", "warn")]
    assert "unknown of run-1: just now (attempt_2/errors.jsonl)" in report.findings[0].found
    assert report.bad
    assert kinds(look(home, CALM)) == []

    # The same lines elsewhere and again: restored, copied, appended by a log that is shipped twice.
    (home / "logs" / "attempt_3").mkdir()
    shutil.copy(new, home / "logs" / "attempt_3" / "errors.jsonl")
    with new.open("ab") as file:
        file.write(old.read_bytes() + new.read_bytes() + b'{"torn": ')
    assert kinds(look(home, CALM)) == []
    failed(home, 3, "just now")
    assert kinds(look(home, CALM)) == ["fault"], "the same fault at another time is another one"


def test_what_stands_is_told_when_it_begins_and_again_after_it_was_over(home):
    low = CALM.model_copy(update={"disk_free_min_gib": 1e9})
    assert [one.subject for one in look(home, low).new] == ["low"]
    again = look(home, low)
    assert (again.new, kinds(again), again.over) == ([], ["disk"], [])
    assert look(home, CALM).over == ["disk: low"]
    assert [one.subject for one in look(home, low).new] == ["low"]
    assert "1 thing(s) want an eye" in page(look(home, low))


def test_forecasts_need_a_sure_fall():
    minutes = [60.0 * n for n in range(20)]
    falling = [100.0 - n for n in range(20)]
    assert hours_left(minutes, falling, 6) == pytest.approx(81 / 60)  # units: 1 a minute, 81 are left
    assert hours_left(minutes[:5], falling[:5], 6) is None, "too few looks"
    assert hours_left(minutes, [1000.0 + level for level in falling], 6) is None, "too far away"
    assert hours_left(minutes, [50.0] * 20, 6) is None
    assert hours_left(minutes, [50.0 + n for n in range(20)], 6) is None
    # One download that is over, and a level that goes up and down.
    assert hours_left(minutes, [100.0] * 10 + [60.0] * 10, 6) is None
    assert hours_left(minutes, [50.0 + 5 * (-1) ** n for n in range(20)], 6) is None
    assert hours_left([1.0] * 6, falling[:6], 6) is None


def test_samples_of_another_boot_say_nothing():
    state, reading = State(), {"disk_free_bytes": 5, "memory_available_bytes": 5}
    for boot, running_s in (("a", 1.0), ("a", 2.0), ("b", 1.0)):
        at = Moment(boot, running_s, running_s, 0.0)
        machine.sample(state, at, reading)
        state.last = at
    assert [taken.running_s for taken in state.samples] == [1.0]


@pytest.mark.skipif(os.name == "nt" or os.geteuid() != 0, reason="others cannot mount")
def test_a_disk_that_runs_full(tmp_path):
    """A real small file system that is filled at a steady rate."""
    home = tmp_path / "home"
    home.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "none", str(home)], check=False)
    if done.returncode:
        pytest.skip("this machine lets nobody mount")
    try:
        settings = CALM.model_copy(update={"forecast_hours": 1.0, "forecast_samples": 5})
        with (home / "ballast").open("wb", buffering=0) as file:
            for _ in range(4):
                file.write(bytes(1 << 20))
                assert "forecast" not in [one.subject for one in look(home, settings).findings if one.kind == "disk"]
                time.sleep(0.2)
            file.write(bytes(1 << 20))
        report = look(home, settings)
        (finding,) = [one for one in report.findings if one.kind == "disk"]
        assert finding.subject == "forecast"
        assert "disk: full in 0 minutes at this rate (0.01 GiB are free)" in finding.found
        assert "disk" not in kinds(look(home, settings.model_copy(update={"forecast_samples": 48})))
    finally:
        subprocess.run(["umount", str(home)], check=True)


def test_time_that_nobody_saw_is_no_stall():
    """Not across a boot, not more than two intervals of sleep or of a monitor that was off."""
    before = Moment("a", 1000.0, 1000.0, 5000.0)
    assert watched_s(None, before, 600) == 0
    assert watched_s(before, Moment("b", 9000.0, 9000.0, 9000.0), 600) == 0
    assert watched_s(before, Moment("a", 1300.0, 1300.0, 5300.0), 600) == 300
    assert watched_s(before, Moment("a", 90000.0, 90000.0, 90000.0), 600) == 600
    state = State()
    for sign, seen_s, idle_s in (("1", 0, 0), ("1", 60, 60), ("1", 60, 120), ("2", 60, 0), ("2", 60, 60)):
        stalls.note(state, [("unit", sign)], seen_s)
        assert state.watched["unit"].idle_s == idle_s
    stalls.note(state, [], 60)
    assert state.watched == {}


def test_a_clock_that_is_set_is_told_from_a_machine_that_slept():
    before = Moment("a", 1000.0, 1000.0, 5000.0)
    assert jumped_s(before, Moment("a", 1300.0, 8300.0, 12300.0)) == 0, "it slept"
    assert jumped_s(before, Moment("a", 1300.0, 1300.0, 8900.0)) == 3600
    assert jumped_s(before, Moment("a", 1300.0, 1300.0, 1700.0)) == -3600
    assert jumped_s(before, Moment("b", 1300.0, 1300.0, 8900.0)) == 0
    assert jumped_s(moment(), moment()) == 0


def test_the_gpu_is_null_and_said_where_there_is_none(home):
    report = look(home, CALM)
    assert report.readings["gpus"] or report.readings["gpus_absent"]
    hot = {**report.readings, "gpus": [{"index": 0, "name": "A", "temperature_c": 91.0, "used_bytes": None}]}
    settings = CALM.model_copy(update={"gpu_temperature_max_c": 90.0})
    (finding,) = machine.look(State(), moment(), hot, settings)
    assert "A has 91.0 degrees Celsius" in finding.found


def test_own_leftovers_go_when_the_disk_is_low_and_nothing_else(home):
    folder, outside = home / "sessions" / "train-1", home.parent / "outside"
    folder.mkdir(parents=True)
    outside.mkdir()
    (home / "prefect").mkdir()
    ours, fresh = folder / "session.json.0123abcd.tmp", folder / "session.json.4567abcd.tmp"
    theirs = [home / "prefect" / "x.tmp", home / "mine.tmp", outside / "y.tmp", folder / "notes.txt"]
    for path in (ours, fresh, *theirs):
        path.write_bytes(b"x" * 10)
    for path in (ours, *theirs):
        os.utime(path, (time.time() - 2 * leftovers.IDLE_S,) * 2)
    (folder / "link").symlink_to(outside)

    assert recover(home, look(home, CALM), CALM) == [], "no need to"
    low = CALM.model_copy(update={"disk_free_min_gib": 1e9})
    (planned,) = recover(home, look(home, low), low, dry_run=True)
    assert (planned.did, planned.outcome, ours.exists()) == ("remove 1 files of 0.00 GiB", WOULD, True)
    (done,) = recover(home, look(home, low), low)
    assert done.did == "removed 1 of 1 files"
    assert not ours.exists()
    assert all(path.exists() for path in (fresh, *theirs))


@pytest.mark.skipif(os.name == "nt", reason="there an open file refuses to go")
def test_a_file_that_is_being_written_stays_however_old_it_looks(home):
    """The machine slept for a night in the middle of a write: by the clock the file is old."""
    ours = home / "sessions" / "train-1" / "session.json.0123abcd.tmp"
    ours.parent.mkdir(parents=True)
    low = CALM.model_copy(update={"disk_free_min_gib": 1e9})
    with ours.open("wb") as file:
        file.write(b"x")
        file.flush()
        os.utime(ours, (time.time() - 9 * 3600,) * 2)
        assert [one.did for one in recover(home, look(home, low), low)] == ["removed 0 of 1 files"]
        assert ours.exists()
    assert [one.did for one in recover(home, look(home, low), low)] == ["removed 1 of 1 files"]


def test_starts_that_a_clock_noted_which_was_set_back_count_no_more(home):
    settings, run, state = CALM.model_copy(update={"crash_loop_restarts": 3}), str(uuid.uuid4()), State()
    for wall_s in (100_000.0, 100_060.0, 10_000.0, 10_060.0):
        SessionFile.open(home, fence.session_id(run), "run")
        crash_loop.note(home, state, wall_s, settings)
    assert [start.wall_s for start in state.starts[run]] == [10_000.0, 10_060.0]
    assert list(crash_loop.look(state, settings)) == []


def test_a_crash_loop_is_stopped_whatever_ended_its_attempts(home):
    """Each attempt under another supervisor, as after power cuts: `so8t up` would go on for ever."""
    settings, run = CALM.model_copy(update={"crash_loop_restarts": 3}), str(uuid.uuid4())

    def begins():
        file = SessionFile.open(home, fence.session_id(run), "run")
        file.update(supervisor=uuid.uuid4().hex)
        return look(home, settings)

    for _ in range(2):
        assert "crash-loop" not in kinds(begins())
    train = SessionFile.open(home, "train-1", "train")
    train.update(current_step=5, checkpoints=["rolling-5"])
    for _ in range(3):
        assert "crash-loop" not in kinds(begins()), "it got further after the second"
    report = begins()
    assert "was started 3 times in" in next(one.found for one in report.findings if one.kind == "crash-loop")
    assert [one.outcome for one in recover(home, report, settings, dry_run=True)] == [WOULD]
    assert resumption.asked_to_stop(home, run) == ""
    assert [one.did for one in recover(home, report, settings)] == ["stopped the run"]
    assert [(one.policy, one.outcome) for one in recoveries.read(home, run)] == [("stop and tell", "stopped")]

    file = fence.session_of(home, run)
    marks, policy = resumption.marks_now(home), resumption.policy_of({})
    why = resumption.asked_to_stop(home, run)
    decision = resumption.decide(file.session, policy, marks, "S", 100.0, stop=why)
    assert (decision.action, decision.why) == ("stop", why)
    assert resumption.decide(file.session, policy, marks, "S", 100.0, stop=why, asked=True).action == "resume"
    resumption.note(file, marks, decision, "S")
    assert resumption.asked_to_stop(home, run) == "", "whoever starts it again by hand has mended the cause"
    for _ in range(3):
        assert "crash-loop" not in kinds(begins()), "it has all its starts, though no look has seen it stopped"
    assert "crash-loop" in kinds(begins())


def test_a_run_at_work_and_one_that_was_interrupted(home):
    run = str(uuid.uuid4())
    with holder(home, run) as process:
        report = look(home, CALM)
        assert [(unit.run, unit.step, unit.pid) for unit in report.units] == [(run, "", process.pid)]
        assert kinds(report) == []
        assert not report.units[0].attended, "no `so8t up` has started it"
    report = look(home, CALM)
    assert (report.units, kinds(report), report.bad) == ([], ["interrupted"], False)


def test_a_silent_run_is_ended_only_where_somebody_begins_it_again(home, monkeypatch):
    """The process of a run without a step's process; its stacks are written beside its session."""
    monkeypatch.setattr(stalls, "BETWEEN_MIN_S", 0.0)
    settings = CALM.model_copy(update={"stall_minutes": 1e-9, "stall_grace_s": 5.0})
    for supervisor, ended in (("", False), ("S", True)):
        run = str(uuid.uuid4())
        with holder(home, run, SO8T_SUPERVISOR=supervisor) as process:
            look(home, settings)
            time.sleep(0.01)
            report = look(home, settings)
            assert "stall" in [one.kind for one in report.new]
            actions = recover(home, report, settings)
            assert [action.kind for action in actions] == ["stall"] * ended
            assert (process.poll() is not None) == ended
        if ended:
            (stacks,) = (home / "sessions" / f"run-{run}").glob("process.stacks-*.txt")
            assert "<string>" in stacks.read_text(encoding="utf-8")
            assert [one.fault for one in recoveries.read(home, run)] == ["hang"]


WORKER = "import time; print('on', flush=True); time.sleep(60)"


def test_two_workers_of_one_home(home, monkeypatch):
    """Processes with a worker's command line; the one that `so8t up` has not started is ended."""
    monkeypatch.setattr("so8t.monitor.look.SERVICE_S", 0.0)
    environment = {**os.environ, "PREFECT_HOME": str(home / "prefect")}
    command = [sys.executable, "-c", WORKER, "prefect", "worker", "start", "--pool", "so8t"]
    up = f"import subprocess, sys; sys.exit(subprocess.run({command!r}).returncode)"
    starter = subprocess.Popen(
        [sys.executable, "-c", up, "up"], env=environment, stdout=subprocess.PIPE, start_new_session=True
    )
    stray = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE)
    elsewhere = subprocess.Popen(command, env={**environment, "PREFECT_HOME": "/other"}, stdout=subprocess.PIPE)
    try:
        for process in (starter, stray, elsewhere):
            assert process.stdout.readline() == b"on\n"
        said = {"pid": starter.pid, "boot_id": services.boot_id(), "supervisor": "S"}
        (home / "prefect").mkdir()
        (home / "prefect" / services.UP).write_text(json.dumps(said), encoding="utf-8")
        own = psutil.Process(starter.pid).children()[0]
        settings = CALM.model_copy(update={"interval_s": 0.01})
        for _ in range(4):
            report = look(home, settings)
            time.sleep(0.02)
        assert sorted(report.services.workers) == sorted([own.pid, stray.pid])
        assert {("worker", "several"), ("server", "silent")} <= standing(report)
        assert [one.subject for one in recover(home, report, settings) if one.kind == "worker"] == [
            f"process {stray.pid}"
        ]
        assert stray.wait(10) != 0
        assert own.is_running()
        assert elsewhere.poll() is None

        for beat in (1, 2, 3, 3):  # it tells the server that it lives, and then no more
            assert ("worker", "silent") not in standing(look(home, settings, f"12:0{beat}"))
            time.sleep(0.02)
        for _ in range(2):
            report = look(home, settings, "12:03")
            time.sleep(0.02)
        assert ("worker", "silent") in standing(report)
        assert [one.subject for one in recover(home, report, settings)] == [f"process {own.pid}"]
        starter.wait(10)
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(starter.pid).children():
                child.kill()
        for process in (starter, stray, elsewhere):
            process.kill()
            process.wait()
            process.stdout.close()


def test_a_launcher_and_the_worker_below_it_are_one(home):
    """As on Windows, where a virtual environment's python.exe starts the real one with the same command line."""
    below = f"import subprocess, sys; sys.exit(subprocess.run([sys.executable, '-c', {WORKER!r}, *sys.argv[1:]]).returncode)"
    command = [sys.executable, "-c", below, "prefect", "worker", "start"]
    environment = {**os.environ, "PREFECT_HOME": str(home / "prefect")}
    launcher = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE)
    try:
        assert launcher.stdout.readline() == b"on\n"
        assert services.running(home).workers == [launcher.pid]
    finally:
        for process in (*psutil.Process(launcher.pid).children(), launcher):
            process.kill()
        launcher.wait()
        launcher.stdout.close()


def test_a_full_disk_is_told_once_all_the_same(home, monkeypatch, capsys):
    """No state can be written: what was told is remembered by the process that looks."""
    low = CALM.model_copy(update={"disk_free_min_gib": 1e9})
    look(home, CALM)

    def full(path, value):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("so8t.durable.write_json", full)
        assert [one.kind for one in look(home, low).new] == ["disk"]
        assert "took no note" in capsys.readouterr().err
        assert look(home, low).new == []
    assert read(home).looks == 1
    assert look(home, low).new == []
    assert read(home).looks == 4


def test_a_server_that_is_there_and_silent_is_ended(home, monkeypatch):
    """Its process lives and nothing answers: `so8t up` would never notice."""
    monkeypatch.setattr("so8t.monitor.look.SERVICE_S", 0.0)
    settings = CALM.model_copy(update={"interval_s": 0.01})
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    with subprocess.Popen(command) as server, subprocess.Popen([*command, "up"]) as up, socket.socket() as bound:
        try:
            bound.bind(("127.0.0.1", 0))
            durable.write_json(
                home / "prefect" / services.SERVER,
                {"pid": server.pid, "born": birth(server.pid), "port": bound.getsockname()[1]},
            )
            said = {"pid": up.pid, "boot_id": services.boot_id(), "supervisor": "S"}
            durable.write_json(home / "prefect" / services.UP, said)
            assert ("server", "silent") not in standing(look(home, settings)), "it may be starting"
            for _ in range(3):
                time.sleep(0.02)
                report = look(home, settings)
            assert ("server", "silent") in standing(report)
            assert [one.subject for one in recover(home, report, settings)] == [f"process {server.pid}"]
            assert server.wait(10) != 0
        finally:
            server.kill()
            up.kill()


def test_a_state_that_cannot_be_read_is_begun_anew(home):
    look(home, CALM)
    path = home / "monitor" / "state.json"
    path.write_text("{", encoding="utf-8")
    assert read(home).looks == 0
    look(home, CALM)
    assert read(home).looks == 1
