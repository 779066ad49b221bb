"""A whole run in a control group whose memory is too little for the config as it stands."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from so8t import recoveries
from tests.conftest import ROOT, TINY

GROUPS = (
    (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"),
    (Path("/sys/fs/cgroup"), "memory.max"),
)
LIMIT_BYTES = 3500 << 20
# 4.9 GiB by the plan, 2.7 with half the micro-batch.
BASE = ("--set", "base.hidden=256", "--set", "base.layers=4")
LARGE = (*BASE, "--set", "train.warmup.batch_text=128", "--set", "train.warmup.micro_batch=128")


@pytest.fixture
def group():
    """A control group of this limit; skipped where we may make none."""
    for mount, name in GROUPS:
        made = mount / f"so8t-test-{os.getpid()}"
        try:
            made.mkdir()
            (made / name).write_text(str(LIMIT_BYTES), encoding="ascii")
        except OSError:
            if made.is_dir():
                made.rmdir()
            continue
        yield made
        made.rmdir()
        return
    pytest.skip("no control group may be made here")


@pytest.mark.soak
def test_a_run_that_would_not_fit_takes_less_at_a_time_and_completes(group, tmp_path):
    home = tmp_path / "home"
    inside = f"import os, sys; open({str(group / 'cgroup.procs')!r}, 'w').write(str(os.getpid())); os.execv(sys.argv[1], sys.argv[1:])"
    command = [
        sys.executable,
        "-m",
        "deployments.command",
        "run",
        "--json",
        *TINY,
        *LARGE,
        "--set",
        "machine.server_port=0",
    ]
    done = subprocess.run(
        [sys.executable, "-c", inside, *command, "--home", str(home)],
        cwd=ROOT, check=False, capture_output=True, text=True, encoding="utf-8",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    taken = {"machine.micro_batch_max": 64.0}
    (run,) = (found for name, found in recoveries.overrides(home).items() if name.startswith("run-"))
    assert run == taken
    assert [(told.step, told.policy) for told in recoveries.read(home)] == [("preflight", "smaller profile")]
    facts = json.loads(done.stdout.splitlines()[-1])["steps"]["train"]
    assert facts["facts"]["metrics"]
