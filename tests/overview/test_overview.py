"""What is gathered from a home, and how it looks on a terminal and on the page."""

import io
import json
import os
import threading
import time
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from uuid import uuid4

import matplotlib as mpl
import pytest
import torch
from rich.console import Console

from so8t import artifacts, recoveries
from so8t.artifacts import Store
from so8t.benchmark import plots
from so8t.benchmark.page import markdown
from so8t.config import load_config
from so8t.loop.checkpoint import Checkpoints, Snapshot
from so8t.overview import asked
from so8t.overview.gather import gather
from so8t.overview.left import Left
from so8t.overview.live import newest_of
from so8t.overview.page import CURVES, blocks, pictures
from so8t.overview.screen import is_plain, plain_line, screen
from so8t.overview.survey import survey
from so8t.overview.training import Checked, saved_of
from so8t.overview.words import bar, duration, percent, size, sparkline
from so8t.progress import lines_of, log_of
from so8t.session import SessionFile
from so8t.step import Ref, execute, plan
from tests.conftest import ROOT, command


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, ""),
        (0, "0 s"),
        (0.3, "0.3 s"),
        (8.4, "8 s"),
        (155, "2 min 35 s"),
        (3900, "1 h 05 min"),
        (93600, "1 d 02 h"),
    ],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_shares_are_rounded_down_and_sizes_are_decimal():
    assert percent(0.999) == "99 %"
    assert percent(1.0) == "100 %"
    assert bar(0.5, 4, plain=True) == "##--"
    assert [size(n) for n in (999, 4_358_507, 73e9)] == ["999 B", "4.4 MB", "73.0 GB"]


def test_a_sparkline_rises_with_its_numbers_and_is_no_wider_than_asked():
    assert sparkline([1, 2, 3], 10, plain=True) == "_-#"
    line = sparkline([float(n) for n in range(100)], 8)
    assert line == "".join(sorted(line))
    assert len(line) == 8
    assert sparkline([2.0, 2.0], 8) == sparkline([2.0], 2) * 2
    assert sparkline([], 8) == ""


def report(done, at, total=10, **more):
    return {"time": at, "step": "train", "done": done, "total": total, "message": "m", **more}


def test_a_time_left_is_told_from_the_speed_since_the_work_last_began_anew():
    told = newest_of([report(8, 0), report(2, 100), report(4, 110)])
    # 2 of 10 in 10 s; the run before the fall is another attempt.
    assert told.eta_s == pytest.approx(30)
    assert told.share == pytest.approx(0.4)
    assert newest_of([report(4, 110)]).eta_s is None
    assert newest_of([report(2, 0, total=3), report(4, 10)]).eta_s is None
    assert newest_of([report(1, 0), report(2, 10, eta_s=7)]).eta_s == 7
    assert newest_of([]) is None


def test_the_tail_of_a_log_has_whole_lines_only(tmp_path):
    path = tmp_path / "log"
    path.write_text("".join(f'{{"n": {n}}}\n' for n in range(100)) + '{"n": 1', encoding="utf-8", newline="\n")
    assert [line["n"] for line in lines_of(path)] == list(range(100))
    assert [line["n"] for line in lines_of(path, 30)] == [98, 99]


def checkpoints(folder):
    made = Checkpoints(folder, 5)
    for step in (3, 7):
        os.utime(made.save("rolling", Snapshot(step, {"w": torch.ones(4)}, {"a": step})), (1000 + step, 1000 + step))
    return folder


def test_checkpoints_are_listed_newest_first_with_what_their_bytes_say(tmp_path):
    folder = checkpoints(tmp_path / "c")
    (folder / "rolling-9.tmp").mkdir()
    found = saved_of(folder, Checked())
    assert [(one.name, one.step, one.verdict, one.newest) for one in found] == [
        ("rolling-7", 7, "verified", True),
        ("rolling-3", 3, "verified", False),
    ]
    assert found[0].at == datetime.fromtimestamp(1007, UTC)
    data = (folder / "rolling-7" / "tensors.safetensors").read_bytes()
    (folder / "rolling-7" / "tensors.safetensors").write_bytes(data[:-1] + b"x")
    found = saved_of(folder, Checked())
    assert found[0].verdict.startswith("DAMAGED: tensors.safetensors differs")
    assert [one.newest for one in found] == [False, True]


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """A home in which one part is done, the training works, and something was recovered from."""
    home = tmp_path_factory.mktemp("seen") / "home"
    config = load_config(ROOT / "configs" / "smoke.yaml", [], home)
    store = Store(home)
    execute(Ref("collect.source", "prompts"), config, store)
    begun = plan(Ref("collect.source", "tones"), config, store)
    (store.root / "collect.source" / f"{begun.key}.partial").mkdir(parents=True)
    logs = home / "logs" / "attempt_1"
    logs.mkdir(parents=True)
    line = {"time": 5.0, "step": "collect.source[tones]", "done": 3, "total": 12, "message": "making tones", "rows": 3}
    lines = [{**line, "time": 1.0, "done": 1}, line]
    (logs / "collect.source-tones.progress.jsonl").write_text(
        "".join(json.dumps(one) + "\n" for one in lines), encoding="utf-8"
    )
    run = SessionFile.open(home, "run-00000000-0000-0000-0000-000000000001", "run")
    recoveries.record(
        home, run.session.session_id, step="train", fault="GPU out of memory", policy="halved the micro-batch",
        detail="16 to 8", outcome="went on",
    )  # fmt: skip
    run.update(overrides={"warmup.micro_batch": 8.0})
    return config, gather(config, Checked())


def test_the_state_of_each_step_is_told(seen):
    _, found = seen
    states = {line.name: line.state for line in found.steps}
    assert states["collect.source[prompts]"] == "done"
    assert states["collect.source[tones]"] == "running"
    assert states["collect.source[digits]"] == "ready"
    assert states["train"] == "waiting"
    assert [line.live.eta_s for line in found.running] == [pytest.approx(18)]
    assert found.done == 1


def test_a_look_reads_each_manifest_once(seen, monkeypatch):
    """A page is looked at again and again beside the work."""
    read = Counter()
    monkeypatch.setattr(artifacts, "load", lambda folder, load=artifacts.load: (read.update([folder]), load(folder))[1])
    survey(seen[0], Store(seen[0].home()))
    assert set(read.values()) == {1}


def test_a_run_that_has_ended_has_no_time_left(seen):
    """The last look is taken while the run's own session still works."""
    found = replace(seen[1], left=Left(0.0))
    assert "about 0 s left of the run" in markdown(blocks(found, "running"))
    assert "left of the run" not in markdown(blocks(found, "completed"))


def test_the_page_tells_it_all(seen):
    text = markdown(blocks(seen[1], "running"))
    assert text.startswith("# Run: running\n")
    assert "1 of " in text
    assert "now collect.source[tones] 25 %, about 18 s left" in text
    assert "| collect.source[tones] | running | `" in text
    assert "making tones: rows 3 | 18\u00a0s |" in text
    assert "| train | GPU out of memory | halved the micro-batch | 16 to 8 | went on |" in text
    assert "| warmup.micro_batch | 8 |" in text


@pytest.mark.parametrize(("width", "height", "plain"), [(120, 50, False), (80, 24, False), (40, 15, True)])
def test_the_screen_fits(seen, width, height, plain):
    out = io.StringIO()
    console = Console(file=out, width=width, height=height, markup=False, highlight=False)
    console.print(screen(seen[1], console, plain=plain))
    lines = out.getvalue().splitlines()
    assert len(lines) <= height
    assert max(map(len, lines)) <= width
    assert lines[0].startswith("running ")
    assert any("collect.source[to" in line and "25 %" in line for line in lines)
    assert any("halved the" in line for line in lines) or width < 80
    if plain:
        # The ellipsis is rich's own, and stands in cp932 too.
        out.getvalue().encode("cp932")


def test_the_plain_line_says_what_works(seen):
    line = plain_line(seen[1])
    assert "collect.source[tones] 25 % making tones rows 3 about 18 s left" in line
    assert line.endswith("recoveries 1")


def test_old_consoles_get_plain_characters(monkeypatch):
    monkeypatch.delenv("WT_SESSION", raising=False)
    assert is_plain(Console(legacy_windows=False), "cp932")
    assert is_plain(Console(legacy_windows=True), "utf-8")
    assert not is_plain(Console(legacy_windows=False), "UTF-8")


def test_a_training_is_told_of_with_its_curves(tmp_path):
    config = load_config(ROOT / "configs" / "smoke.yaml", [], tmp_path)
    session = SessionFile.open(tmp_path, "train-0123456789ab", "train")
    session.update(phase="ppo", current_step=3, total_steps=9)
    log = log_of(tmp_path, "train-0123456789ab")
    log.parent.mkdir()
    rows = [{"phase": "ppo", "step": n, "reward": n / 10, "kl": 0.01 * n, "loss": 1.0 - n / 10} for n in range(3)]
    log.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    checkpoints(tmp_path / "sessions" / "train-0123456789ab" / "checkpoints")
    from so8t.overview.training import training_of

    training = training_of(tmp_path, "train-0123456789ab", Checked())
    assert training.now() == {"reward": 0.2, "kl": 0.02, "loss": 0.8}
    found = gather(config, Checked())
    found = type(found)(**{**vars(found), "training": training})
    text = markdown(blocks(found, "running"))
    assert "step 3 of 9, phase ppo, attempt 1" in text
    assert "| rolling-7 | 7 | 01-01 00:16:47 |" in text
    assert f"![{CURVES}]({CURVES})" in text
    drawn = pictures(found)[CURVES]
    assert drawn.startswith(b"\x89PNG")
    assert plots.training(lines_of(log)) is drawn, "the same numbers are drawn once"
    assert plots.training([*rows, {"phase": "ppo", "step": 9, "kl": 0.5}]) != drawn


def test_a_page_that_cannot_be_made_does_not_decide_how_the_run_ends(tmp_path, monkeypatch, caplog):
    """A damaged file on the disk, which no error of ours stands for."""
    from tasks.overview import RunOverview

    log = tmp_path / "logs" / "attempt_1" / "train.progress.jsonl"
    log.parent.mkdir(parents=True)
    log.write_text('{"not": "ours"}\n', encoding="utf-8")
    page, sent = RunOverview(load_config(ROOT / "configs" / "smoke.yaml", [], tmp_path), uuid4()), []
    monkeypatch.setattr(page, "_publish", lambda *given: sent.append(given))
    page.show("completed")
    assert "the run's overview was not updated" in caplog.text
    log.unlink()
    page.show("completed")
    assert len(sent) == 1


def test_pictures_drawn_at_once_keep_their_style():
    """The run's page and a training's curves are drawn in threads of one process; the style is the process's."""
    second, first_is_done, kept = threading.Event(), threading.Event(), []

    def one(figure):
        second.wait(0.5)

    def other(figure):
        second.set()
        first_is_done.wait(0.5)
        kept.append(mpl.rcParams["axes.spines.top"])

    thread = threading.Thread(target=lambda: (plots.png(one, 1, 1), first_is_done.set()))
    thread.start()
    while not (plots.DRAWING.locked() or not thread.is_alive()):
        time.sleep(0.01)
    plots.png(other, 1, 1)
    thread.join()
    assert kept == [False]


def test_the_config_of_the_newest_run_is_known_without_being_named(tmp_path):
    assert asked.newest(tmp_path) is None
    config = load_config(ROOT / "configs" / "smoke.yaml", ["base.steps=5"], tmp_path / "moved_since")
    asked.note(SessionFile.open(tmp_path, "run-00000000-0000-0000-0000-000000000001", "run").folder, config)
    found = asked.newest(tmp_path)
    assert found.home() == tmp_path
    assert found.base.steps == 5
    assert found.model_dump(exclude={"machine": {"home"}}) == config.model_dump(exclude={"machine": {"home"}})
    told = command("status", home=tmp_path)
    assert told.code == 0
    # The demo's own default has two quantizations, this config one.
    assert "bake.quantize[Q4_K_M]" not in told.out
