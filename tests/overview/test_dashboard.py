"""`so8t dashboard` as a user runs it: the numbers of a training, on 127.0.0.1 alone."""

import signal
import subprocess
import sys

import httpx
import pytest

from tests.conftest import ROOT, TINY, command, listeners

WAIT_S = 60
# Where each says what it has, and what stands there.
ASKED = {"tensorboard": ("data/runs", "train-1"), "trackio": ("", "<html")}


@pytest.mark.soak
@pytest.mark.parametrize("kind", ["tensorboard", "trackio"])
def test_it_serves_what_a_training_wrote(tmp_path, kind):
    pytest.importorskip(kind)
    write = (
        "import sys; from pathlib import Path; from so8t.loop.trackers import Trackers;"
        "t = Trackers((sys.argv[2],), Path(sys.argv[1]), 'train-1');"
        "[t.row({'phase': 'ppo', 'position': n, 'step': n, 'reward': n / 10}) for n in range(3)]; t.close()"
    )
    # A process of its own: trackio keeps its folder for as long as it is loaded.
    subprocess.run([sys.executable, "-c", write, str(tmp_path / "progress_logs"), kind], cwd=ROOT, check=True)
    process = subprocess.Popen(
        [sys.executable, "-m", "deployments.command", "dashboard", "--with", kind, *TINY, "--home", str(tmp_path)],
        cwd=ROOT, stdout=subprocess.PIPE, text=True, encoding="utf-8",
    )  # fmt: skip
    try:
        url = process.stdout.readline().rpartition(" ")[2].strip()
        assert url.startswith("http://127.0.0.1:")
        assert listeners(process.pid) == {"127.0.0.1"}
        path, wanted = ASKED[kind]
        answer = httpx.get(url.partition("?")[0] + path, trust_env=False, timeout=WAIT_S, follow_redirects=True)
        assert wanted in answer.text
    finally:
        process.send_signal(signal.SIGINT)
        process.stdout.close()
        code = process.wait(WAIT_S)
    assert code == 0


def test_without_numbers_it_says_what_to_do(tmp_path):
    ended = command("dashboard", *TINY, home=tmp_path)
    assert ended.code == 2
    assert "no training has written numbers for tensorboard or trackio" in ended.err
    assert "machine.trackers=[tensorboard]" in ended.err
