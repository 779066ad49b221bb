"""System-call faults in a save: the newest acknowledged item stands, the next start goes on, the message is clear.

pytest -m soak tests/crash/test_syscalls.py -s      every call x every fault
"""

import collections
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.crash import powercut_strict
from tests.crash.powercut_writer import SCENARIOS
from tests.crash.syscalls import CALLS, FAULTS, Saver

pytestmark = pytest.mark.skipif(bool(powercut_strict.why_not()), reason=powercut_strict.why_not() or "-")
FIRST = 6  # so many items are there before; the save that is tried prunes too
EXPLAINED = {"ENOSPC": "the disk is full", "EIO": "the disk failed", "EACCES": "cannot write", "EINTR": "interrupted"}


class Rig:
    """Cases of one scenario, each in a fresh copy of a home that holds `FIRST` items."""

    def __init__(self, scenario, place):
        self.scenario, self.place, self.cases = scenario, place, 0
        self.ends = collections.Counter()
        items = SCENARIOS[scenario](place / "template")
        for number in range(FIRST):
            items.write(number)

    def fresh(self):
        home = self.place / "home"
        shutil.rmtree(home, ignore_errors=True)
        shutil.copytree(self.place / "template", home)
        return home

    def case(self, saver, call, nth, fault):
        """Give what is wrong; "" if nothing is."""
        home = self.fresh()
        ended = saver.save(
            home, FIRST, ["-e", f"trace={call}", "-e", f"inject={call}:{fault}:when={nth}", "-o", "/dev/null"]
        )
        self.cases += 1
        name = f"{call} {nth} {fault}"
        try:
            wrong = SCENARIOS[self.scenario].check(home, FIRST if ended.acknowledged else FIRST - 1)
        except Exception as error:  # noqa: BLE001 - whatever the next start raises is a failed resume
            wrong = f"failed: {error!r}"
        if wrong:
            return f"{name}: {wrong}"
        if fault == "signal=KILL":
            self.ends["killed"] += 1
            return "" if ended.killed else f"{name}: not killed but {ended}"
        if ended.acknowledged:
            self.ends["saved"] += 1
            return ""
        self.ends["refused"] += 1
        clear = ended.kind == "ResourceError" and EXPLAINED[fault.partition("=")[2]] in ended.text
        return "" if clear and str(home) in ended.text and "do:" in ended.text else f"{name}: {ended}"

    def say(self):
        sys.stdout.write(f"{self.scenario}: {self.cases} cases, {dict(self.ends)}\n")


@pytest.fixture(scope="module", params=sorted(SCENARIOS))
def rig(request, tmp_path_factory):
    return Rig(request.param, tmp_path_factory.mktemp("syscalls"))


@pytest.fixture(scope="module")
def saver(rig):
    with Saver(rig.scenario) as process:
        yield process


# The calls that decide, and the one that once made a commit leave files out.
SHORT = {
    "checkpoints": [("rename", "signal=KILL"), ("fsync", "error=EIO")],
    "artifacts": [("rename", "signal=KILL"), ("getdents64", "error=EACCES")],
    "sessions": [("fsync", "signal=KILL"), ("rename", "error=EINTR")],
}  # fmt: skip


def test_no_fault_loses_what_was_acknowledged(rig, saver, tmp_path):
    counts = saver.census(rig.fresh(), FIRST, tmp_path / "log")
    cases = [(call, nth, fault) for call, fault in SHORT[rig.scenario] for nth in range(1, counts[call] + 1)]
    wrong = [found for case in cases if (found := rig.case(saver, *case))]
    assert wrong == [], "\n".join(wrong)


@pytest.mark.soak
def test_no_fault_loses_what_was_acknowledged_soak(rig, saver, tmp_path):
    counts = saver.census(rig.fresh(), FIRST, tmp_path / "log")
    assert {"openat", "write", "fsync", "close", "rename"} <= counts.keys()
    wrong = [
        found
        for call in CALLS
        for nth in range(1, counts.get(call, 0) + 1)
        for fault in FAULTS
        if (found := rig.case(saver, call, nth, fault))
    ]
    rig.say()
    assert rig.ends["killed"] == sum(counts.values())
    assert wrong == [], "\n".join(wrong)


SHORT_WRITES = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <unistd.h>
static int shortened;
int short_writes(void) { return shortened; }
ssize_t write(int fd, const void *data, size_t size) {
    ssize_t (*real)(int, const void *, size_t) = dlsym(RTLD_NEXT, "write");
    if (size > 1) { shortened++; size = size / 2; }
    return real(fd, data, size);
}
"""
WRITES = """
import ctypes, hashlib, sys
from pathlib import Path
from so8t import durable
from tests.crash.powercut_writer import SCENARIOS
home = Path(sys.argv[1])
data = bytes(range(256)) * 4000
durable.write_bytes(home / "big", data)
assert (home / "big").read_bytes() == data
with durable.open_for_write(home / "pieces") as file:
    for start in range(0, len(data), 1000):
        file.write(data[start:start + 1000])
assert (home / "pieces").read_bytes() == data
for scenario in sys.argv[2:]:
    for number in range(2):
        SCENARIOS[scenario](home).write(number)
    assert SCENARIOS[scenario].check(home, 1) == "", scenario
print(ctypes.CDLL(None).short_writes())
"""


@pytest.mark.skipif(not shutil.which("gcc"), reason="needs gcc")
@pytest.mark.parametrize(
    "scenarios", [["artifacts", "sessions"], pytest.param(["checkpoints"], marks=pytest.mark.soak)]
)
def test_a_write_that_takes_half_is_carried_on(tmp_path, scenarios):
    """Every write of the process really takes only half of what it is given."""
    (tmp_path / "short.c").write_text(SHORT_WRITES, encoding="utf-8", newline="\n")
    library = tmp_path / "short.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, tmp_path / "short.c", "-ldl"], check=True)
    environment = {**os.environ, "LD_PRELOAD": str(library), "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", WRITES, str(tmp_path / "home"), *scenarios],
        env=environment, capture_output=True, text=True, encoding="utf-8", check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 30
