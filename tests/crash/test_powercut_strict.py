"""Every fsync is needed on the strictest disk, and at no system call is anything acknowledged lost there."""

import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from tests.crash.powercut_strict import Call, StrictDisk, fsynced, record, why_not
from tests.crash.powercut_writer import SCENARIOS, site

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "-")
ROOT = Path(__file__).resolve().parent.parent.parent
ITEMS = 7
_ACK = re.compile(r'1<[^>]*>, "(\d+) 0\\n"')


def acknowledged(call: Call) -> int | None:
    """The number that a write to standard output acknowledges."""
    match = _ACK.match(call.arguments) if call.name == "write" else None
    return int(match[1]) if match else None


@pytest.fixture(scope="module", params=sorted(SCENARIOS))
def recorded(request, tmp_path_factory):
    """One recorded run of a scenario: its name, its disk, its calls and the kept bytes."""
    place = tmp_path_factory.mktemp(request.param)
    (place / "disk").mkdir()
    (place / "kept").mkdir()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.crash.powercut_writer", request.param, str(place / "disk")]
    command += ["--items", str(ITEMS), "--keep-bytes", str(place / "kept")]
    return request.param, place, record(command, place / "strace.log", ROOT, environment)


def next_start(scenario: str, disk: StrictDisk, number: int, place: Path) -> str:
    """What goes wrong after a cut here; "" where nothing does."""
    wrong = ""
    for names in (False, True):
        disk.after_cut(place, names=names)
        try:
            wrong = wrong or SCENARIOS[scenario].check(place / "home", number)
        except Exception as error:  # noqa: BLE001 - whatever the next start raises is a failed resume
            wrong = f"failed: {error!r}"
        shutil.rmtree(place)
    return wrong


def test_a_cut_at_any_call_loses_nothing(recorded, tmp_path):
    scenario, place, calls = recorded
    disk, number, cuts, wrong = StrictDisk(place / "disk", place / "kept"), -1, 0, []
    for call in calls:
        disk.apply(call)
        acked = acknowledged(call)
        number = number if acked is None else acked
        inside = str(place / "disk") in call.arguments or acked is not None
        if number >= ITEMS - 2 and inside:
            cuts += 1
            outcome = next_start(scenario, disk, number, tmp_path / "after")
            if outcome:
                wrong.append(f"{call}: {outcome}")
    assert number == ITEMS - 1
    assert cuts >= 5
    assert wrong == []
    sys.stdout.write(f"{scenario}: {cuts} cuts, each with and without the names that were not fsynced\n")


def test_every_fsync_is_needed(recorded, tmp_path):
    """Left out one site at a time; what survives is not needed and costs time for nothing."""
    scenario, place, calls = recorded
    sites = sorted({site(path) for call in calls if (path := fsynced(call, place / "disk")) is not None})
    survivors = []
    for left_out in sites:
        disk = StrictDisk(place / "disk", place / "kept")
        for call in calls:
            path = fsynced(call, place / "disk")
            if path is None or site(path) != left_out:
                disk.apply(call)
        if not next_start(scenario, disk, ITEMS - 1, tmp_path / "after"):
            survivors.append(left_out)
    assert len(sites) >= 4
    assert survivors == []
