"""Running the real command, as a user would."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import hypothesis
import psutil
import pytest
from filelock import FileLock

from so8t import durable

# Before anybody loads torch: the processes of a test run share the cores, and what they compute is small.
os.environ.setdefault("OMP_NUM_THREADS", "1")
LOOK_S = 1.0
ROOT = Path(__file__).resolve().parent.parent
# The same examples for the same code, and none is wrong for being slow on a busy machine. New ones are sought by
# `pytest --hypothesis-profile=search`, which prints how to repeat what it finds.
hypothesis.settings.register_profile("same", derandomize=True, deadline=None)
hypothesis.settings.register_profile("search", max_examples=1000, deadline=None, print_blob=True)
hypothesis.settings.load_profile("same")


# The same pipeline with hardly any training: the promise under test does not depend on how well it learns.
TINY = ["--config", str(ROOT / "configs" / "smoke.yaml")]


# The files that take minutes, longest first: whoever began one of them last would work alone in the end. While the first of
# them makes the hardly trained home, those that need none are at work.
LONGEST = (
    "test_pipeline.py",
    "test_campaign.py",
    "test_gpu_benchmark.py",
    "test_lane.py",
    "test_search_stopped.py",
    "test_ranks.py",
    "test_supervisor.py",
    "test_up.py",
    "test_every_write.py",
    "test_second_run.py",
    "test_four_class.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files in the order in which they are dealt out; a file's tests stay in theirs."""
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


@dataclass(frozen=True)
class Ended:
    """What a command left: exit code, output, its JSON line, time and the peak memory of its process tree."""

    code: int
    out: str
    err: str
    seconds: float
    peak_bytes: int

    @property
    def json(self) -> dict[str, Any]:
        return json.loads(self.out.splitlines()[-1])


def _tree_bytes(process: psutil.Process) -> int:
    total = 0
    for member in [process, *process.children(recursive=True)]:
        try:
            total += member.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total


def listeners(pid: int) -> set[str]:
    """Addresses on which a process or one below it takes connections just now."""
    found = set()
    with contextlib.suppress(psutil.NoSuchProcess):
        for member in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                connections = member.net_connections("inet")
                found |= {one.laddr.ip for one in connections if one.status == psutil.CONN_LISTEN}
    return found


def command(*arguments: str, home: Path, environment: dict[str, str] | None = None) -> Ended:
    """Run `so8t ARGUMENTS --home HOME` to its end."""
    started = time.monotonic()
    with tempfile.TemporaryFile("w+", encoding="utf-8") as out, tempfile.TemporaryFile("w+", encoding="utf-8") as err:
        process = subprocess.Popen(
            [sys.executable, "-m", "deployments.command", *arguments, "--home", str(home)],
            stdout=out, stderr=err, stdin=subprocess.DEVNULL, cwd=ROOT, env={**os.environ, **(environment or {})},
        )  # fmt: skip
        peak, watched = 0, psutil.Process(process.pid)
        while process.poll() is None:
            try:
                peak = max(peak, _tree_bytes(watched))
            except psutil.NoSuchProcess:
                break
            with contextlib.suppress(subprocess.TimeoutExpired):
                # A look goes through all processes of the machine; what a step holds it holds for longer.
                process.wait(LOOK_S)
        code = process.wait()
        out.seek(0)
        err.seek(0)
        return Ended(code, out.read(), err.read(), time.monotonic() - started, peak)


def run(*arguments: str, home: Path, environment: dict[str, str] | None = None) -> Ended:
    """`so8t run --json` on a free port."""
    return command("run", "--json", "--set", "machine.server_port=0", *arguments, home=home, environment=environment)


@pytest.fixture(scope="session")
def demo_home(tmp_path_factory) -> Path:
    """The home of the embedded default's run."""
    return tmp_path_factory.mktemp("demo") / "home with space"


@pytest.fixture(scope="session")
def demo(demo_home) -> Ended:
    """One real run of the embedded default, shared by all tests that look at what it made."""
    ended = run(home=demo_home)
    assert ended.code == 0, ended.err[-4000:]
    return ended


@pytest.fixture(scope="session")
def tiny_home(tmp_path_factory) -> Path:
    """The home of the run with hardly any training, for all processes of a test run: nobody changes it."""
    place = tmp_path_factory.getbasetemp()
    return (place.parent if "PYTEST_XDIST_WORKER" in os.environ else place) / "tiny" / "home"


@pytest.fixture(scope="session")
def tiny(tiny_home) -> Ended:
    """One whole run with hardly any training, made by the process that needs it first."""
    told = tiny_home.with_name("ended.json")
    told.parent.mkdir(exist_ok=True)
    with FileLock(told.with_suffix(".lock")):
        if not told.exists():
            ended = run(*TINY, home=tiny_home)
            assert ended.code == 0, ended.err[-4000:]
            durable.write_json(told, asdict(ended))
    return Ended(**durable.read_json(told))
