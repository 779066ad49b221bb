"""`so8t status --watch` as a user runs it."""

import os
import signal
import subprocess
import sys
import time

import pytest

from so8t.session import SessionFile
from tests.conftest import ROOT, TINY, command

ENTER, LEAVE = b"\x1b[?1049h", b"\x1b[?1049l"
WAIT_S = 60


def start(home, **streams):
    return subprocess.Popen(
        [sys.executable, "-m", "deployments.command", "status", "--watch", "--every", "0.3", *TINY, "--home", str(home)],
        cwd=ROOT, **streams,
    )  # fmt: skip


def test_into_a_pipe_it_writes_a_line_where_something_changed_and_ends_with_the_run(tmp_path):
    run = SessionFile.open(tmp_path, "run-00000000-0000-0000-0000-000000000001", "run")
    process = start(tmp_path, stdout=subprocess.PIPE, text=True, encoding="utf-8")
    first = process.stdout.readline()
    assert " running 0/" in first
    run.end("failed")
    out, _ = process.communicate(timeout=WAIT_S)
    assert process.returncode == 0
    # Looks at which nothing had changed wrote nothing.
    assert [line.split(" ", 1)[1].split("/")[0] for line in out.splitlines()] == ["failed 0"]


@pytest.mark.skipif(os.name == "nt", reason="needs a pseudo-terminal")
def test_on_a_terminal_it_stays_in_place_and_ctrl_c_leaves_it_clean(tmp_path):
    import pty

    ours, theirs = pty.openpty()
    process = start(tmp_path, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
    os.close(theirs)
    seen, deadline = b"", time.monotonic() + WAIT_S
    # The home is drawn at least twice: it is refreshed.
    while seen.count(b"disk") < 2 and time.monotonic() < deadline:
        seen += os.read(ours, 65536)
    process.send_signal(signal.SIGINT)
    while True:
        try:
            data = os.read(ours, 65536)
        except OSError:  # closed at the other end
            break
        if not data:
            break
        seen += data
    os.close(ours)
    assert process.wait(WAIT_S) == 0
    assert b"Traceback" not in seen
    assert seen.count(ENTER) == seen.count(LEAVE) == 1
    # Redrawn over itself: no clearing between two pictures, which would flicker.
    inside = seen.partition(ENTER)[2].partition(LEAVE)[0]
    assert inside.count(b"\x1b[2J") <= 1
    assert b"nothing has run yet" in seen.partition(LEAVE)[2]


def test_what_cannot_be_watched_is_refused(tmp_path):
    for given in (["--json"], ["--every", "0"]):
        ended = command("status", "--watch", *given, *TINY, home=tmp_path)
        assert ended.code == 2
        assert "--every SECONDS above 0" in ended.err
