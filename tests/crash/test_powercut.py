"""Power cuts on real file systems: nothing acknowledged is lost, and every fsync that a journal does not imply is needed.

pytest -m soak tests/crash/test_powercut.py -s      prints the figures
"""

import os
import sys
from pathlib import Path

import pytest

from tests.crash import powercut

pytestmark = pytest.mark.skipif(bool(powercut.why_not()), reason=powercut.why_not() or "-")

CUTS_SHORT, CUTS_LONG, CUTS_MUTANT = 5, 200, 40
JOURNALED = ("ext4", "xfs", "btrfs")
CHECKPOINTS, PARTIAL = "home/sessions/s/checkpoints", "home/artifacts/collect/N.partial"
# Without one of these a cut loses what was acknowledged, on every file system here.
NEEDED = {
    "sessions": ["home/sessions/s/session.json", "home/sessions/s"],
    "checkpoints": [
        CHECKPOINTS,
        *(f"{CHECKPOINTS}/rolling-N.tmp/{name}" for name in ("tensors.safetensors", "state.json", "manifest.json")),
    ],
    "artifacts": [
        "home/artifacts/collect",
        *(f"{PARTIAL}/{name}" for name in ("durable.bin", "part/plain.bin", "manifest.json")),
    ],
}  # fmt: skip
# One journal orders all names of a file system, so a later fsync makes these durable too; see test_powercut_strict.py.
IMPLIED = {"checkpoints": [f"{CHECKPOINTS}/rolling-N.tmp"], "artifacts": [f"{PARTIAL}/part", PARTIAL]}


def cut(tmp_path: Path, scenario: str, kind: str, cuts: int, forget: str = "") -> powercut.Tally:
    """Run a campaign; a mutant's ends at the first thing that is wrong."""
    from tests.crash.powercut_writer import SCENARIOS

    def check(folder: Path, acknowledged: int) -> str:
        try:
            return SCENARIOS[scenario].check(folder / "home", acknowledged)
        except Exception as error:  # noqa: BLE001 - whatever the next start raises is a failed resume
            return f"failed: {error!r}"

    seed = int(os.environ.get("SO8T_SEED", "0"))
    with powercut.Disk(tmp_path / "disk", kind) as disk:
        command = [sys.executable, "-m", "tests.crash.powercut_writer", scenario, str(disk.live)]
        found = powercut.campaign(
            disk,
            [*command, "--forget", forget] if forget else command,
            check,
            cuts,
            seed,
            until=(lambda tally: tally.lost + tally.failed > 0) if forget else None,
        )
    sys.stdout.write(
        f"{kind} {scenario} {forget or '-'}: seed {seed}, {found.cuts} cuts, {found.acknowledged} acknowledged, "
        f"{found.lost} lost, {found.failed} failed resumes\n"
    )
    return found


def holds(found: powercut.Tally, cuts: int) -> None:
    """Nothing acknowledged was lost and every start went on."""
    assert (found.cuts, found.lost, found.failed) == (cuts, 0, 0), found.notes
    assert found.acknowledged >= cuts


@pytest.mark.parametrize("scenario", sorted(NEEDED))
def test_nothing_acknowledged_is_lost(tmp_path, scenario):
    holds(cut(tmp_path, scenario, "ext4", CUTS_SHORT), CUTS_SHORT)


def test_the_rig_finds_a_missing_fsync(tmp_path):
    found = cut(tmp_path, "checkpoints", "ext4", CUTS_MUTANT, forget=CHECKPOINTS)
    assert found.skipped > 0
    assert found.lost > 0, "the rig would not notice"


@pytest.mark.soak
@pytest.mark.parametrize("kind", JOURNALED)
@pytest.mark.parametrize("scenario", sorted(NEEDED))
def test_nothing_acknowledged_is_lost_soak(tmp_path, scenario, kind):
    holds(cut(tmp_path, scenario, kind, CUTS_LONG), CUTS_LONG)


@pytest.mark.soak
@pytest.mark.parametrize("kind", JOURNALED)
@pytest.mark.parametrize(("scenario", "site"), [(name, site) for name, sites in NEEDED.items() for site in sites])
def test_every_fsync_is_needed_soak(tmp_path, scenario, site, kind):
    found = cut(tmp_path, scenario, kind, CUTS_MUTANT, forget=site)
    assert found.skipped > 0
    assert found.lost > 0


@pytest.mark.soak
@pytest.mark.parametrize("kind", JOURNALED)
@pytest.mark.parametrize(("scenario", "site"), [(name, site) for name, sites in IMPLIED.items() for site in sites])
def test_what_a_journal_implies_soak(tmp_path, scenario, site, kind):
    """The evidence for IMPLIED: if this fails, the fsync has become killable here and belongs to NEEDED."""
    found = cut(tmp_path, scenario, kind, CUTS_MUTANT, forget=site)
    assert found.skipped > 0
    assert (found.lost, found.failed) == (0, 0), found.notes
