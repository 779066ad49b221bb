"""Sessions: found again, honest about who lives, and tolerant of old files."""

import json
import os

import pytest

from so8t.session import SessionFile, boot_id, is_alive, read, sessions


def test_a_session_is_begun_and_taken_up_again(tmp_path):
    first = SessionFile.open(tmp_path, "train-abc", "train")
    first.update(current_step=5, total_steps=9, best_loss=0.5, last_progress_time="2025-01-01T00:00:00")
    first.end("interrupted")
    assert read(first.folder).status == "interrupted"
    again = SessionFile.open(tmp_path, "train-abc", "train")
    assert (again.session.attempts, again.session.status, again.session.current_step) == (2, "running", 5)
    assert again.session.start_time == first.session.start_time
    again.end("completed")
    assert read(again.folder).completed


def test_it_holds_what_resuming_needs(tmp_path):
    SessionFile.open(tmp_path, "train-abc", "train")
    fields = json.loads((tmp_path / "sessions" / "train-abc" / "session.json").read_text(encoding="utf-8"))
    assert {
        "session_id", "kind", "status", "completed", "start_time", "end_time", "current_epoch", "current_step",
        "total_steps", "best_loss", "checkpoints", "last_checkpoint_time", "heartbeat", "attempts",
    } <= set(fields)  # fmt: skip
    assert fields["heartbeat"]["pid"] == os.getpid()
    assert fields["heartbeat"]["boot_id"] == boot_id()


def test_a_pid_of_another_boot_is_dead(tmp_path):
    file = SessionFile.open(tmp_path, "train-abc", "train")
    assert is_alive(file.session)
    beat = file.session.heartbeat
    assert not is_alive(file.session.model_copy(update={"heartbeat": beat.model_copy(update={"boot_id": "other"})}))
    file.end("failed")
    assert not is_alive(file.session)


def test_old_and_foreign_files_load_with_defaults(tmp_path):
    folder = tmp_path / "sessions" / "old"
    folder.mkdir(parents=True)
    (folder / "session.json").write_text('{"session_id": "old", "unknown": 1, "status": "running"}', encoding="utf-8")
    assert read(folder).attempts == 0
    (folder / "session.json").write_text("{", encoding="utf-8")
    assert read(folder) is None


def test_the_newest_progress_comes_first(tmp_path):
    for name, when in (("a", "2025-01-02"), ("b", "2025-01-03"), ("c", "2025-01-01")):
        SessionFile.open(tmp_path, name, "train").update(last_progress_time=when)
    assert [session.session_id for session in sessions(tmp_path)] == ["b", "a", "c"]


def test_a_step_that_keeps_a_session_writes_how_it_ended(tmp_path):
    pytest.importorskip("numpy", reason="the step makes tones")
    from so8t.artifacts import Store
    from so8t.cli import DEFAULT_CONFIG
    from so8t.config import load_config
    from so8t.errors import Interrupted
    from so8t.step import Ref, execute

    config = load_config(DEFAULT_CONFIG, ["collect.sources.1.count=16"], tmp_path)
    name = config.collect.sources[1].name

    class Stop:
        def report(self, *_):
            raise Interrupted("stop")

    with pytest.raises(Interrupted):
        execute(Ref("collect.source", name), config, Store(tmp_path), (Stop(),))
    assert [(s.kind, s.status, s.attempts) for s in sessions(tmp_path)] == [("collect.source", "interrupted", 1)]
    execute(Ref("collect.source", name), config, Store(tmp_path))
    assert [(s.kind, s.status, s.attempts) for s in sessions(tmp_path)] == [("collect.source", "completed", 2)]


def test_status_shows_the_runs_that_are_open(tmp_path, capsys):
    from so8t import cli

    SessionFile.open(tmp_path, "run-1", "run").update(phase="warmup 3/9", last_progress_time="2025-01-02T03:04:05")
    SessionFile.open(tmp_path, "run-2", "run").end("completed")
    before = sorted(tmp_path.rglob("*"))
    assert cli.main(["status", "--home", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "run 1  running, attempt 1, last progress 2025-01-02T03:04:05 UTC  warmup 3/9" in said
    assert "run 2" not in said
    assert sorted(tmp_path.rglob("*")) == before
