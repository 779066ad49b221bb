"""Faults of a training in the real flow: the child meets them, the policy acts, and the run completes or says why not."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL

from so8t import recoveries
from so8t.artifacts import Store
from so8t.session import read
from so8t.step import Ref, execute, parts_of, steps
from tests.conftest import ROOT
from tests.faults.walk import config_of

pytestmark = [pytest.mark.soak, pytest.mark.skipif(os.name == "nt", reason="signals and control groups")]
RUN = "0f7c1f1e-0000-4000-8000-00000000000f"
STANDIN = ROOT / "tests" / "faults" / "standin"
BEFORE = ("collect.base", "collect.source", "collect", "preprocess.shard", "preprocess")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """All that `train` needs."""
    home = tmp_path_factory.mktemp("prepared") / "home"
    config = config_of(home, [])
    for name in BEFORE:
        for part in parts_of(steps()[name], config, Store(home)):
            execute(Ref(name, part), config, Store(home))
    return home


@pytest.fixture
def trained(prepared, served, tmp_path):
    """Walks with a fault; gives exit code, error output and home."""
    home = tmp_path / "home"
    shutil.copytree(prepared / "artifacts", home / "artifacts")

    def walk(fault: str, *settings: str) -> tuple[int, str, Path]:
        environment = {
            **os.environ, "SO8T_FAULT": fault, "PYTHONPATH": os.pathsep.join([str(STANDIN), str(ROOT)]),
            "PREFECT_API_URL": PREFECT_API_URL.value(), "PREFECT_API_AUTH_STRING": PREFECT_API_AUTH_STRING.value(),
            "PREFECT_HOME": str(tmp_path / "prefect"), "SO8T_LOGS": "",
        }  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-m", "tests.faults.walk", str(home), RUN, *settings], cwd=ROOT, check=False,
            capture_output=True, text=True, encoding="utf-8", env=environment, timeout=800,
        )  # fmt: skip
        return done.returncode, done.stderr[-6000:], home

    return walk


@pytest.fixture
def group():
    """A control group of its own, whose memory the kernel counts and limits."""
    folder = Path("/sys/fs/cgroup/memory") / f"so8t-test-{os.getpid()}"
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"no control group of version 1 can be made here: {error}")
    yield folder
    folder.rmdir()


def done(home: Path) -> list[tuple[str, str, str]]:
    return [(found.fault, found.policy, found.outcome) for found in recoveries.read(home, RUN)]


def facts_of(home: Path) -> dict:
    (folder,) = (path for path in (home / "artifacts" / "train").iterdir() if len(path.name) == 64)
    return json.loads((folder / "manifest.json").read_text(encoding="utf-8"))


def facts(home: Path) -> dict:
    return facts_of(home)["facts"]


def spent(home: Path) -> dict[str, int]:
    return read(home / "sessions" / f"run-{RUN}").failures


def test_the_kernel_kills_for_memory_and_half_the_micro_batch_completes(trained, group):
    code, told, home = trained(f"memory:{group}")
    assert code == 0, told
    assert done(home)[0] == ("host-memory", "smaller", "tried again"), told
    assert ("host-memory", "none any more", "completed") in done(home)
    obeyed = [found.detail for found in recoveries.read(home, RUN) if found.outcome == "obeyed"]
    assert any("warmup.micro_batch is 5" in line and "effective batch stays 19" in line for line in obeyed), obeyed
    assert facts(home)["overrides"]["halvings"] == 1.0
    assert spent(home) == {}
    history = next(home.glob("artifacts/train/*/history.jsonl")).read_text(encoding="utf-8")
    rows = [json.loads(line) for line in history.splitlines()]
    assert [
        (r["micro_batch"], r["effective_batch"]) for r in rows if r["phase"] == "warmup" and "micro_batch" in r
    ] == [(5.0, 19.0)]


def test_a_loss_that_is_nan_goes_on_at_half_the_rate(trained):
    code, told, home = trained("nan:")
    assert code == 0, told
    assert done(home) == [("not-finite", "lower-rate", "tried again"), ("not-finite", "none any more", "completed")]
    assert facts(home)["overrides"]["rate"] == 0.5
    assert spent(home) == {}


def test_a_loss_that_stays_nan_stops_with_what_to_do(trained):
    code, told, home = trained("nan:", "recovery.divergences_max=0")
    assert code == 1
    assert "train stops (not-finite)" in told
    assert "lower the learning rate" in told
    assert done(home) == [("not-finite", "stop", "stopped")]
    assert read(home / "sessions" / f"run-{RUN}").status == "failed"


def test_a_gpu_that_is_lost_gets_a_fresh_process(trained, tmp_path):
    code, told, home = trained(f"gpu:{tmp_path / 'once'}")
    assert code == 0, told
    assert done(home) == [("gpu-lost", "fresh-process", "tried again"), ("gpu-lost", "none any more", "completed")]


def test_a_kill_costs_one_retry_and_is_made_good(trained, tmp_path):
    code, told, home = trained(f"kill:{tmp_path / 'once'}")
    assert code == 0, told
    assert list(spent(home).values()) == [1]
    assert len(facts(home)["resumes"]) == 1


def test_a_missing_package_stops_and_names_the_extra(trained):
    code, told, home = trained("package:")
    assert code == 1
    assert 'pip install -c constraints.txt "so8t[nf4]"' in told
    assert done(home) == [("missing-package", "stop", "stopped")]


def test_a_damaged_input_is_made_again_and_nothing_is_tried_in_vain(trained):
    code, told, home = trained("none:")
    assert code == 0, told
    content = facts_of(home)["content"]
    shutil.rmtree(home / "artifacts" / "train")
    shutil.rmtree(next(home.glob("sessions/train-*")))
    data = next(home.glob("artifacts/preprocess/*/train.parquet"))
    raw = bytearray(data.read_bytes())
    raw[len(raw) // 2 :] = bytes(len(raw) - len(raw) // 2)
    data.write_bytes(raw)
    code, told, home = trained("none:")
    assert code == 0, told
    assert done(home) == [("damaged", "remake", "to be made again")]
    assert spent(home) == {f"remade preprocess {data.parent.name[:12]}": 1}
    assert list(home.glob("artifacts/preprocess/*.damaged-1"))
    assert facts_of(home)["content"] == content
