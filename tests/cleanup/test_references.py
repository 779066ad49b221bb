"""What is referenced by an unfinished or new run, an unpublished artifact or a tag stays, with all that it was made from."""

import json
import os
import subprocess
import sys

import pytest

from so8t import cli, durable, fence, tags
from so8t.artifacts import Store
from so8t.errors import InputError
from so8t.session import SessionFile
from tests.cleanup.made import ROOT, age, chain, clean, days_ago
from tests.upload.made import artifact


def names(artifacts):
    return [f"{a.manifest.step}/{a.manifest.key}" for a in artifacts]


def run_session(home, name, status, artifacts, end_time="2025-01-01T00:00:00+00:00"):
    """A run's session; gives its folder."""
    file = SessionFile.open(home, f"run-{name}", "run")
    for artifact_name in artifacts:
        file.note_artifact(artifact_name)
    file.update(status=status, completed=status == "completed", end_time=end_time)
    return file.folder


def test_what_an_unfinished_run_uses_stays_the_rest_goes(home, three):
    """Two newer runs of other configs have passed since it was interrupted: its artifacts are of the newest nowhere."""
    run_session(home, "a", "interrupted", names(three[0][1:2]))
    facts, planned = clean(home, three[2][2], keep_per_step=1)
    assert [a.path.exists() for a in three[0]] == [True, True, False], "its train and the data of that"
    assert not any(a.path.exists() for a in three[1])
    assert "run-a is unfinished" in planned[three[0][0].path.relative_to(home).as_posix()]["reason"]
    assert facts["removed"] == 4


def test_run_given_up_keeps_nothing(home, three):
    age(run_session(home, "a", "interrupted", names(three[0])), 8)
    clean(home, three[2][2])
    assert not any(a.path.exists() for a in three[0])


def test_unfinished_run_that_names_nothing_keeps_everything(home, three):
    """Its session was written by a version that noted no artifacts."""
    run_session(home, "a", "interrupted", [])
    facts, _ = clean(home, three[2][2], keep_per_step=1)
    assert facts["removed"] == 0


def test_this_very_run_does_not_stand_in_its_own_way(home, three, monkeypatch):
    folder = run_session(home, "a", "running", [])
    monkeypatch.setattr(fence, "current", lambda: SessionFile.open(home, folder.name, "run"))
    facts, _ = clean(home, three[2][2], keep_per_step=1)
    assert facts["removed"] == 6


def test_newest_runs_stay_whole(home, three):
    """The newest run is one that was cached from old artifacts."""
    for name, artifacts, day in (("x", three[0], 3), ("y", three[1], 2), ("z", three[2], 1)):
        run_session(home, name, "completed", names(artifacts), days_ago(10 - day))
    clean(home, three[2][2], keep_per_step=1, keep_runs=1)
    assert [all(a.path.exists() for a in one) for one in three] == [True, False, True]
    assert (home / "sessions" / "run-x").is_dir()


def test_inputs_of_an_unpublished_artifact_stay(home, three):
    """Its data is old and published by another upload; without it, it could be traced to nothing."""
    late = artifact(Store(home), "train", {"weights": b"late"}, key="a" * 64, finished_at=days_ago(3),
                    inputs={"data": three[0][0]})  # fmt: skip
    for number in range(2):  # so that it is not of the newest of its step
        artifact(Store(home), "train", {"w": bytes([number])}, key=f"{number}" * 64, finished_at=days_ago(0))
    _, planned = clean(home, three[2][2])
    assert late.path.exists()
    assert three[0][0].path.exists()
    assert "not published" in planned[three[0][0].path.relative_to(home).as_posix()]["reason"]
    assert not three[0][1].path.exists()


def test_what_a_config_names_by_its_folder_stays(home, three):
    """Rows keep the splits of the oldest data: no input of the newer data, but nothing can be made again without it."""
    (old, _, _), _, (_, _, used) = three
    section = {"seed": 0, "splits_of": {"folder": str(old.path), "content": old.content}}
    artifact(Store(home), "preprocess", {"rows": b"later"}, key="b" * 64, finished_at=days_ago(0), config=section)
    clean(home, used)
    assert [a.path.exists() for a in three[0]] == [True, False, False]


def test_what_an_unfinished_run_was_asked_to_read_stays(home, three):
    """Before the step that reads it has ended: its manifest is not there yet."""
    (old, _, _), (middle, _, _), (_, _, used) = three
    folder = run_session(home, "a", "interrupted", names([middle]))
    asked = {"preprocess": {"splits_of": {"folder": str(old.path), "content": ""}}, "train": None}
    durable.write_json(folder / "config.json", asked)
    clean(home, used, keep_per_step=1)
    assert [a.path.exists() for a in three[0]] == [True, False, False]
    (folder / "config.json").write_bytes(b"{")  # damaged: whatever it named may be among these
    facts, _ = clean(home, used, keep_per_step=1)
    assert facts["planned"] == 0


def test_what_has_a_tag_stays(home, three, capsys):
    def so8t(*arguments):
        assert cli.main(["tag", *arguments, "--home", str(home)]) == 0
        return capsys.readouterr().out

    step, key = names(three[0][1:2])[0].split("/")
    so8t("add", "good", f"{step}/{key[:8]}")
    assert json.loads(so8t("list", "--json")) == {"good": [f"{step}/{key}"]}
    _, planned = clean(home, three[2][2])
    assert [a.path.exists() for a in three[0]] == [True, True, False]
    assert planned[f"artifacts/{step}/{key}"]["reason"] == "tagged good"
    so8t("remove", "good")
    clean(home, three[2][2])
    assert not any(a.path.exists() for a in three[0])


def test_tags_are_of_runs_too_and_bad_ones_are_refused(home, three):
    with pytest.raises(InputError, match="no run has completed"):
        tags.add(home, "x", [])
    run_session(home, "a", "completed", names(three[1]))
    assert tags.add(home, "x", []) == sorted(names(three[1]))
    for wrong in ("train", "train/", "nothing/0"):
        with pytest.raises(InputError, match="artifacts are called"):
            tags.add(home, "y", [wrong])
    with pytest.raises(InputError, match="is no tag"):
        tags.add(home, "../y", names(three[1]))
    with pytest.raises(InputError, match="no tag"):
        tags.remove(home, "y")
    durable.write_text(home / "tags" / "torn.json", "{")
    with pytest.raises(InputError, match="cannot be read"):
        clean(home, three[2][2])
    assert all(a.path.exists() for one in three for a in one), "a tag that cannot be read removes nothing"


def test_session_with_a_tagged_checkpoint_stays(home, three):
    for name, tag in (("train-tagged", "best"), ("train-plain", "")):
        folder = home / "sessions" / name
        durable.write_json(folder / "session.json", {"session_id": name, "status": "completed"})
        durable.write_json(folder / "checkpoints" / "rolling-4" / "manifest.json", {"tag": tag} if tag else {})
        age(folder, 400)
    _, planned = clean(home, three[2][2])
    assert [path.name for path in (home / "sessions").iterdir()] == ["train-tagged"]
    assert planned["sessions/train-tagged"]["reason"] == "a checkpoint in it is tagged best"


def test_facts_tell_the_free_space(home, three):
    facts, _ = clean(home, three[2][2])
    assert facts["free_before_bytes"] > 0
    assert facts["free_after_bytes"] > 0


@pytest.mark.skipif(os.name == "nt", reason="forks, and kills by a signal")
@pytest.mark.parametrize("mode", ["kill", pytest.param("fail", marks=pytest.mark.soak)])
def test_ended_at_each_change_nothing_referenced_is_missing(home, three, tmp_path, mode):
    """Before and after every single deletion, rename and note: what is needed is whole, and the next cleanup ends the work."""
    store = Store(home)
    tagged = chain(store, "tagged", 90)
    used = chain(store, "used", 95)
    tags.add(home, "keep", names(tagged[1:2]))
    run_session(home, "a", "interrupted", names(used))
    for number in (1, 2):
        durable.write_bytes(home / "artifacts" / "train" / f"{number}.damaged-1" / "inner" / "file", b"x")
        age(home / "artifacts" / "train" / f"{number}.damaged-1", 40)
        durable.write_bytes(home / "logs" / f"attempt_{number}" / "log.txt", b"x")
        age(home / "logs" / f"attempt_{number}", 100 + number)
    kept = {*names([*three[1], *three[2], *tagged[:2], *used])}
    gone = {*names([*three[0], tagged[2]])}
    command = [sys.executable, "-m", "tests.cleanup.kills", str(home), three[2][2].manifest.key, str(tmp_path), mode]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
                          encoding="utf-8", check=True)  # fmt: skip
    found = json.loads(done.stdout)
    last = found[-1]
    assert last["code"] == 0
    assert set(last["end"]["artifacts"]) == kept
    assert len(last["end"]["removed"]) == len(gone) + 3, "two damaged folders and one log too"
    assert len(found) > 30
    for number, entry in enumerate(found[:-1]):
        assert entry["code"] != 0, number
        assert kept <= set(entry["after"]["artifacts"]), number
        assert entry["after"]["damage"] == [], number
        assert entry["again"] == 0, number
        assert entry["end"] == last["end"], number
