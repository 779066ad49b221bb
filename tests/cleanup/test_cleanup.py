"""Cleanup on a home with real artifacts: what stays, what goes, and what a crash in the middle leaves."""

import os
import subprocess
import sys

import pytest
from filelock import FileLock

from so8t import durable
from so8t.artifacts import Store, check_hashes
from so8t.cleanup import removal
from tests.cleanup.made import OWN, age, clean, days_ago
from tests.upload.made import artifact


def test_oldest_goes_and_the_newest_stay_whole(home, three):
    facts, planned = clean(home, three[2][2])
    gone, kept = three[0], [*three[1], *three[2]]
    assert not any(a.path.exists() for a in gone)
    assert all(check_hashes(a.path) == [] for a in kept)
    sizes = sum(planned[a.path.relative_to(home).as_posix()]["size_bytes"] for a in gone)
    assert facts["removed"] == 3
    assert facts["bytes_freed"] == sizes > 300
    assert not list(home.rglob(".trash-*"))


def test_twice_leaves_nothing_more_to_do(home, three):
    clean(home, three[2][2])
    (home / "artifacts" / "cleanup" / f"{OWN}.partial" / "removed.json").unlink()
    facts, _ = clean(home, three[2][2])
    assert (facts["removed"], facts["planned"]) == (0, 0)


def test_plan_alone_changes_nothing(home, three):
    before = sorted(path for path in home.rglob("*") if "cleanup" not in path.parts)
    facts, planned = clean(home, three[2][2], apply=False)
    assert (facts["planned"], facts["removed"], facts["bytes_freed"]) == (3, 0, 0)
    assert all(planned[a.path.relative_to(home).as_posix()]["keep"] is False for a in three[0])
    assert sorted(path for path in home.rglob("*") if "cleanup" not in path.parts and "locks" not in path.parts) == [
        path for path in before if "locks" not in path.parts
    ]


def test_what_this_run_was_made_from_stays_however_old_it_is(home, three):
    _, planned = clean(home, three[0][2], keep_per_step=1)
    assert all(a.path.exists() for a in [*three[0], *three[2]])
    assert not any(a.path.exists() for a in three[1])
    assert planned[three[0][0].path.relative_to(home).as_posix()]["reason"] == "this run was made from it"


def test_inputs_of_a_kept_artifact_stay(home, three):
    """A train of which only newer runs are kept still has its data: everything kept can be traced to its source."""
    store = Store(home)
    old_data = three[0][0]
    late = artifact(
        store, "train", {"weights": b"late"}, key="a" * 64, finished_at=days_ago(0), inputs={"data": old_data}
    )
    clean(home, three[2][2], keep_per_step=1)
    assert late.path.exists()
    assert old_data.path.exists()
    assert not three[0][1].path.exists()


def test_unpublished_stays_until_its_time(home, three):
    store = Store(home)
    names = [
        artifact(store, "bake", {"m": bytes([i])}, key=f"{i}" * 64, finished_at=days_ago(d))
        for i, d in enumerate((40, 20, 2, 1))
    ]
    clean(home, three[2][2])
    assert [a.path.exists() for a in names] == [False, True, True, True]


def test_unfinished_session_keeps_every_artifact(home, three):
    folder = home / "sessions" / "train-abc"
    durable.write_json(folder / "session.json", {"session_id": "train-abc", "status": "interrupted"})
    facts, planned = clean(home, three[2][2])
    assert facts["removed"] == 0
    assert planned["artifacts/train/" + three[0][1].manifest.key]["reason"] == "session train-abc is unfinished"
    age(folder, 8)
    facts, _ = clean(home, three[2][2])
    assert facts["removed"] == 3, "an expired session keeps nothing but itself"
    assert folder.exists()
    age(folder, 31)
    clean(home, three[2][2])
    assert not folder.exists()


def test_ended_sessions_go_with_their_checkpoints(home, three):
    for name, days in (("train-late", 5), ("train-early", 40)):
        folder = home / "sessions" / name
        durable.write_json(folder / "session.json", {"session_id": name, "status": "completed"})
        durable.write_bytes(folder / "checkpoints" / "final-9" / "state", b"x" * 1000)
        age(folder, days)
    clean(home, three[2][2])
    assert sorted(path.name for path in (home / "sessions").iterdir()) == ["train-late"]


def test_work_of_another_process_is_left_alone(home, three):
    """Its inputs are named nowhere until it ends, so no artifact goes while it works."""
    key = "b" * 64
    partial = home / "artifacts" / "train" / f"{key}.partial"
    durable.write_bytes(partial / "half", b"x")
    age(partial, 100)
    lock = home / "locks" / f"train-{key}.lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", "import sys, filelock\nwith filelock.FileLock(sys.argv[1]): print(flush=True); sys.stdin.read()", str(lock)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    holder.stdout.readline()
    facts, planned = clean(home, three[2][2])
    assert (facts["removed"], partial.exists()) == (0, True)
    assert planned[partial.relative_to(home).as_posix()]["reason"] == "another process works there"
    assert removal.remove(home, partial) is False
    holder.communicate()
    facts, _ = clean(home, three[2][2])
    assert (facts["removed"], partial.exists()) == (4, False)
    assert lock.exists(), "lock files are never unlinked"


def test_old_partial_and_damaged_folders_go_young_ones_stay(home, three):
    step = home / "artifacts" / "train"
    for name, days in (("1.partial", 20), ("2.partial", 3), ("3.damaged-1", 40), ("4.damaged-1", 3), ("5.other", 400)):
        durable.write_bytes(step / name / "file", b"x")
        age(step / name, days)
    clean(home, three[2][2], keep_per_step=9)
    assert sorted(p.name for p in step.iterdir() if "." in p.name) == ["2.partial", "4.damaged-1", "5.other"]


def test_own_lock_does_not_block(home, three):
    with FileLock(home / "locks" / f"cleanup-{OWN}.lock"):
        facts, _ = clean(home, three[2][2])
    assert facts["removed"] == 3


def test_logs_go_by_count_and_age_but_never_the_newest(home, three):
    for number in range(6):
        durable.write_text(home / "logs" / f"attempt_{number}" / "log.txt", "x")
        age(home / "logs" / f"attempt_{number}", 100 - number)
        durable.write_text(home / "progress_logs" / f"{number}.jsonl", "{}")
    clean(home, three[2][2], keep_logs=3, keep_logs_days=96)
    assert sorted(p.name for p in (home / "logs").iterdir()) == ["attempt_5"]
    assert len(list((home / "progress_logs").iterdir())) == 3


def test_nothing_outside_the_home_is_touched(home, three, tmp_path):
    outside = tmp_path / "outside"
    for name in ("step/" + "c" * 64, "artifact", "session", "log", "inside"):
        durable.write_text(outside / name / "precious", "keep me")
        age(outside / name, 500)
    (home / "artifacts" / "linked").symlink_to(outside / "step", target_is_directory=True)
    (home / "artifacts" / "train" / ("d" * 64)).symlink_to(outside / "artifact", target_is_directory=True)
    (home / "artifacts" / "train" / ("e" * 64 + ".partial")).symlink_to(outside / "artifact", target_is_directory=True)
    for parent in ("sessions", "logs"):
        (home / parent).mkdir(exist_ok=True)
        (home / parent / "link").symlink_to(outside / parent.removesuffix("s"), target_is_directory=True)
    partial = home / "artifacts" / "train" / "9.partial"
    partial.mkdir()
    (partial / "link").symlink_to(outside / "inside", target_is_directory=True)
    (partial / "file").symlink_to(outside / "inside" / "precious")
    age(partial, 500)
    _, planned = clean(home, three[2][2])
    assert not partial.exists()
    assert {path.relative_to(outside).as_posix() for path in outside.rglob("precious")} == {
        f"{name}/precious" for name in ("step/" + "c" * 64, "artifact", "session", "log", "inside")
    }
    assert planned["artifacts/train/" + "d" * 64]["reason"].startswith("a link")
    for path in ("artifacts/linked", "artifacts/linked/" + "c" * 64, "artifacts/train/" + "d" * 64, "sessions/link"):
        assert removal.remove(home, home / path) is False


def test_unreadable_manifest_is_not_removed(home, three):
    folder = home / "artifacts" / "train" / ("e" * 64)
    durable.write_text(folder / "manifest.json", "{ torn")
    age(folder, 400)
    _, planned = clean(home, three[2][2])
    assert "so8t verify" in planned[folder.relative_to(home).as_posix()]["reason"]
    assert folder.exists()


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="read-only folders bind ordinary users only")
def test_read_only_files_go_too(home, three):
    folder = three[0][1].path
    (folder / "weights").chmod(0o400)
    folder.chmod(0o500)
    clean(home, three[2][2])
    assert not folder.exists()
