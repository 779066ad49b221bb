"""The list of what was done about faults: appended by several processes, read past torn lines."""

import subprocess
import sys
from pathlib import Path

from so8t import recoveries
from so8t.session import SessionFile

ROOT = Path(__file__).parent.parent.parent
RUN = "0e3c1a52-6f5e-4c6c-9a43-1f8d3a8f6c11"
KEY = "ab" * 32


def note(home: Path, session: str, detail: str) -> recoveries.Recovery:
    return recoveries.record(
        home, session, step="train", fault="host-memory", policy="halve", detail=detail, outcome="tried again"
    )


def test_a_run_has_its_own_and_those_of_its_steps(tmp_path):
    run = SessionFile.open(tmp_path, f"run-{RUN}", "run")
    run.note_artifact(f"train/{KEY}")
    made = [note(tmp_path, recoveries.session_of("train", KEY), "one"), note(tmp_path, f"run-{RUN}", "two")]
    note(tmp_path, "train-ffffffffffff", "of another run")
    assert recoveries.read(tmp_path, RUN) == made
    assert [found.detail for found in recoveries.read(tmp_path)] == ["one", "two", "of another run"]
    assert recoveries.read(tmp_path / "none") == []
    SessionFile.open(tmp_path, recoveries.session_of("train", KEY), "train").update(overrides={"ppo.micro_batch": 1.0})
    assert recoveries.overrides(tmp_path, RUN) == {f"train-{KEY[:12]}": {"ppo.micro_batch": 1.0}}
    assert recoveries.overrides(tmp_path) == recoveries.overrides(tmp_path, RUN)


def test_a_torn_line_costs_only_itself(tmp_path):
    note(tmp_path, "train-1", "one")
    path = tmp_path / "sessions" / "train-1" / recoveries.FILE
    with path.open("ab") as file:
        file.write(b'{"at": "2026-01-01T00:00')
    note(tmp_path, "train-1", "two")
    with path.open("ab") as file:
        file.write(b'{"of": "another version"}\n')
    assert [found.detail for found in recoveries.read(tmp_path)] == ["one", "two"]


def test_lines_of_several_processes_stay_whole(tmp_path):
    """All begin at once: Windows appends in two steps, between which another may write."""
    code = (
        "import sys; from pathlib import Path; from tests.faults.test_recoveries import note\n"
        "print('ready', flush=True); sys.stdin.read()\n"
        "for number in range(100): note(Path(sys.argv[1]), 'train-1', sys.argv[2] * 300 + str(number))"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path), letter], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for letter in "abcd"
    ]
    for process in processes:
        assert process.stdout.read(5) == b"ready"
    for process in processes:
        process.stdin.close()
    assert [process.wait() for process in processes] == [0] * 4
    wanted = {letter * 300 + str(number) for letter in "abcd" for number in range(100)}
    assert {found.detail for found in recoveries.read(tmp_path)} == wanted


def test_where_no_note_can_be_taken_it_is_told(tmp_path, capsys):
    (tmp_path / "sessions").write_text("a file where a folder was wanted", encoding="utf-8")
    assert note(tmp_path, "train-1", "one").detail == "one"
    assert "took no note" in capsys.readouterr().err


def test_status_and_the_runs_page_show_them(tmp_path, capsys):
    from so8t.benchmark.page import markdown
    from so8t.cli import main
    from so8t.config import load_config
    from so8t.overview.gather import gather
    from so8t.overview.page import blocks
    from so8t.overview.training import Checked

    SessionFile.open(tmp_path, f"run-{RUN}", "run").note_artifact(f"train/{KEY}")
    SessionFile.open(tmp_path, recoveries.session_of("train", KEY), "train").update(overrides={"halvings": 1.0})
    made = note(tmp_path, f"run-{RUN}", "batch 4 | 2")
    assert main(["status", "--home", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert f"recovery {made.at[:19]} UTC  train  host-memory: halve  batch 4 | 2  -> tried again" in told
    assert f"override train-{KEY[:12]}  halvings = 1" in told
    config = load_config(ROOT / "configs" / "smoke.yaml", [], tmp_path)
    page = markdown(blocks(gather(config, Checked(), RUN), "running"))
    assert "| train | host-memory | halve | batch 4 \\| 2 | tried again |" in page
    assert f"| train-{KEY[:12]} | halvings | 1 |" in page
