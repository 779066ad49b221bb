"""One process a run: real processes at a real lock."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from so8t import fence
from tests.conftest import ROOT
from tests.flows.conftest import holder

RUN = "11111111-2222-4333-8444-555555555555"


def environment(home: Path, **more: str) -> dict[str, str]:
    return {**os.environ, "SO8T_HOME": str(home), "PREFECT__FLOW_RUN_ID": RUN, **more}


def python(home: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment(home, **more), check=False,
        capture_output=True, text=True, encoding="utf-8", timeout=120,
    )  # fmt: skip


def attempts(home: Path) -> int:
    session = json.loads((home / "sessions" / f"run-{RUN}" / "session.json").read_text(encoding="utf-8"))
    return int(session["attempts"])


def test_a_second_process_leaves_without_a_word_to_the_server(tmp_path):
    """Exit code 0, before anything heavy is loaded; the server hears nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server, holder(tmp_path, RUN):
        server.setblocking(False)
        url = f"http://127.0.0.1:{server.getsockname()[1]}/api"
        code = "import sys, atexit; atexit.register(print, 'never'); import flows.pipeline; print('never')"
        second = python(tmp_path, "-X", "importtime", "-c", code, PREFECT_API_URL=url)
        assert (second.returncode, second.stdout) == (0, "")
        assert "another process; this one leaves" in second.stderr
        loaded = {line.rpartition("|")[2].strip() for line in second.stderr.splitlines()}
        assert "so8t.fence" in loaded
        assert not loaded & {"prefect", "torch", "numpy", "tasks.steps"}
        with pytest.raises(BlockingIOError):
            server.accept()
    assert attempts(tmp_path) == 1
    assert not (tmp_path / "logs").exists()


def test_a_hook_process_passes(tmp_path):
    """Prefect runs hooks in processes with the same variables; they neither take the lock nor leave."""
    program = tmp_path / fence.HOOK_PROGRAM
    program.write_text("import flows\nprint('hook ran')\n", encoding="utf-8")
    with holder(tmp_path, RUN):
        hook = python(tmp_path, str(program), PYTHONPATH=str(ROOT))
    assert (hook.returncode, hook.stdout) == (0, "hook ran\n"), hook.stderr
    assert attempts(tmp_path) == 1


def test_who_only_looks_does_not_keep_it_out(tmp_path):
    """The probe of a reconciler holds the lock for an instant."""
    lock = fence.lock_of(tmp_path, RUN)
    with lock.acquire():
        code = "import sys; print('begins', flush=True); import flows; sys.exit(7)"
        process = subprocess.Popen(
            [sys.executable, "-c", code], cwd=ROOT, env=environment(tmp_path), stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(1.0)
        assert process.poll() is None
    assert process.wait(60) == 7
    process.stdout.close()


def test_the_lock_falls_with_its_process(tmp_path):
    """However it ends; and the file stays, for a second process could lock the inode of one that is gone."""
    assert fence.is_free(tmp_path, RUN)
    for how in (signal.SIGKILL, signal.SIGTERM) if os.name != "nt" else (signal.SIGTERM,):
        with holder(tmp_path, RUN) as process:
            assert not fence.is_free(tmp_path, RUN)
            assert fence.is_free(tmp_path, "22222222-2222-4333-8444-555555555555")
            process.send_signal(how)
            process.wait()
            assert fence.is_free(tmp_path, RUN)
    # Windows unlinks no file that somebody has open, so there it may go.
    assert os.name == "nt" or list((tmp_path / "locks").glob(f"run-{RUN.replace('-', '')}.lock"))


def test_a_run_of_this_process_is_not_free(tmp_path):
    code = (
        "import sys; from pathlib import Path; from so8t import fence; home = Path(sys.argv[1]);"
        " fence.hold(home, sys.argv[2]); print(fence.is_free(home, sys.argv[2]))"
    )
    assert python(tmp_path, "-c", code, str(tmp_path), RUN).stdout == "False\n"


def test_output_goes_to_the_attempt_and_outlives_the_reader(tmp_path):
    """The worker that reads the pipe may die; the next line must not kill the run."""
    code = (
        "import os, sys, time\nimport flows\nprint('one', flush=True)\nopen(sys.argv[1], 'w').close()\n"
        "while os.path.exists(sys.argv[1]):\n    time.sleep(0.05)\n"
        "print('two', flush=True)\nprint('three', file=sys.stderr, flush=True)\nos.system('echo from a child')\n"
    )
    flag = tmp_path / "reached"
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(flag)], cwd=ROOT, env=environment(tmp_path, SO8T_SUPERVISOR="S"),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    while not flag.exists():
        assert process.poll() is None
        time.sleep(0.05)
    assert process.stdout is not None
    process.stdout.close()
    flag.unlink()
    assert process.wait(60) == 0
    console = (tmp_path / "logs" / "attempt_1" / "console.log").read_text(encoding="utf-8")
    assert console.split() == ["one", "two", "three", "from", "a", "child"]
    session = fence.session_of(tmp_path, RUN).session
    assert (session.attempts, session.supervisor, session.status) == (1, "S", "running")
