"""The decision alone, from sessions and marks on disk."""

from itertools import pairwise

import pytest

from so8t import resumption
from so8t.config import Resume
from so8t.resumption import Marks, decide, further, marks_now, note, policy_of
from so8t.session import Session, SessionFile, now

NOTHING = Marks({})


def session(**values):
    return Session(session_id="run-1", kind="run", start_time=now(), **values)


@pytest.mark.parametrize(("stalled", "pause_s"), [(0, 0), (1, 30), (2, 60), (3, 120), (5, 480), (6, 900), (60, 900)])
def test_the_pause_doubles_up_to_a_quarter_of_an_hour(stalled, pause_s):
    policy = Resume(attempts_max=1000, backoff_s=30)
    crashed = session(supervisor="S", stalled=stalled)
    actions = [decide(crashed, policy, NOTHING, "S", idle_s).action for idle_s in (max(0, pause_s - 1), pause_s)]
    assert actions == (["wait", "resume"] if pause_s else ["resume", "resume"])
    cut = decide(crashed, policy, NOTHING, "T", 0)
    assert (cut.action, cut.costs) == ("resume", False), "a power cut waits for nothing"


def test_the_users_word_beats_every_rule():
    lost = session(supervisor="S", stalled=99, last_progress_time="2001-01-01T00:00:00+00:00")
    policy = Resume(auto=False, confirm=True)
    assert decide(lost, policy, NOTHING, "S", 0).action == "leave"
    assert decide(lost, policy, NOTHING, "S", 0, asked=True).action == "resume"


def test_what_is_progress(tmp_path):
    assert marks_now(tmp_path) == NOTHING
    training = SessionFile.open(tmp_path, "train-1", "train")
    seen = [marks_now(tmp_path).reached]
    for change in ({"current_step": 3}, {"checkpoints": ["rolling-3"]}, {"current_step": 4}):
        training.update(**change)
        seen.append(marks_now(tmp_path).reached)
    assert all(further(before, after) for before, after in pairwise(seen))
    training.update(current_step=1, checkpoints=[])
    assert not further(seen[-1], marks_now(tmp_path).reached), "a step that was reached before is none"
    SessionFile.open(tmp_path, "run-1", "run").update(current_step=77)
    assert not further(seen[-1], marks_now(tmp_path).reached), "nor is what a run says of itself"
    (tmp_path / "artifacts" / "collect" / ("a" * 64)).mkdir(parents=True)
    assert further(seen[-1], marks_now(tmp_path).reached)


def test_the_ledger_holds_the_furthest_and_who_watches(tmp_path):
    file = SessionFile(tmp_path / "sessions" / "run-1", Session(session_id="run-1", kind="run"))
    goes_on = resumption.Decision("resume", "", costs=True)
    note(file, Marks({"train-1": 5}), goes_on, "S")
    assert (file.session.supervisor, file.session.stalled) == ("S", 0), "it came further, so it costs nothing"
    assert file.session.start_time, "or it would never expire"
    note(file, Marks({"train-1": 2}), goes_on, "S")
    assert (file.session.reached, file.session.stalled) == ({"train-1": 5}, 1)
    note(file, Marks({"train-1": 5}), resumption.Decision("stop", "", costs=True), "S")
    assert (file.session.stalled, file.session.status) == (0, "failed"), "by hand it has all its attempts again"


def test_a_run_whose_config_is_not_ours_has_the_default_policy():
    assert policy_of({}) == policy_of({"config": None}) == policy_of({"config": {"resume": {"x": 1}}}) == Resume()
    assert policy_of({"config": {"resume": {"priority": 3}}}).priority == 3
