"""A search that is stopped anywhere finds what an undisturbed one finds, in the same bytes."""

import random
import signal

import pytest

from so8t.search.config import Search
from so8t.search.study import FILE
from so8t.session import read
from tests.search import small
from tests.search.test_search import trials
from tests.train import tiny

SHORT = (
    ("trial 0: trial 3/8", signal.SIGKILL),
    ("trial 0 ended", signal.SIGKILL),
    ("trial 1: trial 1/", signal.SIGTERM),
)
LONG = (
    ("warmup 3/5", signal.SIGKILL),
    ("trial 0: trial 3/8", signal.SIGTERM),
    ("trial 0: trial 6/8", signal.SIGKILL),
    ("trial 0: trial: measuring", signal.SIGKILL),
    ("trial 0 ended", signal.SIGKILL),
    ("trial 1: trial 1/", signal.SIGINT),
    ("trial 3 ended", signal.SIGTERM),
    ("trial 4: trial 2/", signal.SIGKILL),
)


@pytest.mark.parametrize("stops", [SHORT, pytest.param(LONG, marks=pytest.mark.soak)], ids=["short", "long"])
def test_stopped_in_trials_and_between_them(world, found, searches, tmp_path, stops):
    for seen, number in stops:
        code = searches.start(world, tmp_path).stop_when(seen, number)
        assert code == (-9 if number == signal.SIGKILL else 128 + number)
    assert searches.start(world, tmp_path).wait() == 0
    assert trials(tmp_path) == trials(found[0])
    assert small.lasting_bytes(tmp_path) == small.lasting_bytes(found[0])


@pytest.mark.parametrize("every", [37, pytest.param(1, marks=pytest.mark.soak)])
def test_killed_while_the_study_is_written(world, found, searches, tmp_path, every):
    """At every so manieth write, each time from the start of what is left, until it ends by itself."""
    deaths, at = 0, 3
    while (code := searches.start(world, tmp_path, at).wait()) == -9:
        deaths, at = deaths + 1, at + every
    assert code == 0, (tmp_path / "log").read_text(encoding="utf-8")[-2000:]
    assert deaths >= 2
    assert small.lasting_bytes(tmp_path) == small.lasting_bytes(found[0])


@pytest.mark.soak
def test_killed_at_random_moments(world, found, searches, tmp_path):
    """Three searches, each killed up to eight times."""
    draw = random.Random(7)  # noqa: S311 - no secret
    for number in range(3):
        home, deaths = tmp_path / str(number), 0
        home.mkdir()
        while deaths < 8:
            process = searches.start(world, home, 0, -1, 9)
            process.wait_at_most(draw.uniform(0.1, 4))
            process.send_signal(signal.SIGKILL)
            if process.wait() == 0:
                break
            deaths += 1
        assert searches.start(world, home).wait() == 0
        assert small.lasting_bytes(home) == small.lasting_bytes(found[0]), f"search {number} after {deaths} deaths"


def test_a_trial_that_kills_its_process_fails_and_the_search_goes_on(world, searches, tmp_path):
    for _ in range(small.SEARCH.tries_max):
        assert searches.start(world, tmp_path, 0, 2).wait() == -9
    assert searches.start(world, tmp_path, 0, 2).wait() == 0
    rows = trials(tmp_path)
    assert [row["state"] == "FAIL" for row in rows] == [False, False, True, False, False]
    page = (tiny.output(tmp_path) / "search.md").read_text(encoding="utf-8")
    assert "Trial 2 failed: its process died 2 times without getting further" in page
    said = (tmp_path / "progress.jsonl").read_text(encoding="utf-8")
    assert "trial 2 ended: fail its process died" in said


def test_a_trial_that_leaves_what_is_finite_fails_alone(world, tmp_path):
    wide = [{"name": "ppo.value_learning_rate", "low": 1e-4, "high": 1e30, "log": True}]
    search = small.SEARCH.model_dump() | {"trials": 3, "startup": 3, "parameters": wide}
    facts = small.search(world, tmp_path, small.config(**vars(Search.model_validate(search))))
    assert facts["trials"] == {"complete": 1, "fail": 2}
    assert "not finite" in facts["failed"]["1"]


def test_a_damaged_study_is_set_aside_and_said_so(world, found, tmp_path, searches):
    assert searches.start(world, tmp_path).stop_when("trial 0 ended", signal.SIGKILL) == -9
    study = tmp_path / "sessions" / small.SESSION / FILE
    # As if killed before the trial's folder was removed.
    (study.parent / "trials" / "0" / "checkpoints").mkdir(parents=True, exist_ok=True)
    data = bytearray(study.read_bytes())
    data[100:4096] = b"\0" * (4096 - 100)
    study.write_bytes(bytes(data))
    assert searches.start(world, tmp_path).wait() == 0
    assert (study.parent / f"{FILE}.damaged-1").exists()
    assert not list((study.parent / "trials").iterdir())
    assert any("damaged-1" in problem for problem in read(study.parent).problems)
    assert small.lasting_bytes(tmp_path) == small.lasting_bytes(found[0])
