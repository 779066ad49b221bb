"""What a training that diverged is asked to do: a lower rate each time, and from further back."""

from so8t.config import load_config
from so8t.recovery import training
from so8t.session import read
from so8t.step import Ref
from tests.conftest import ROOT
from tests.faults.test_room import KEY, NAME, checkpoints


def test_each_time_it_goes_on_slower_and_from_further_back(tmp_path):
    config = load_config(ROOT / "configs" / "smoke.yaml", [], tmp_path)
    made = checkpoints(tmp_path, 3)

    def slower():
        return training.slower(training.session_file(tmp_path, Ref("train"), KEY), 0.5, 2, config)

    assert slower() == (0.5, [])
    assert made.names() == ["rolling-0", "rolling-1", "rolling-2"]
    assert slower() == (0.25, ["rolling-2.passed-over-1"])
    assert made.names() == ["rolling-0", "rolling-1"]
    assert slower() is None
    assert read(tmp_path / "sessions" / NAME).overrides == {"rate": 0.25, "divergences": 2.0}


def test_halvings_end_somewhere(tmp_path):
    file = training.session_file(tmp_path, Ref("train"), KEY)
    assert [training.smaller(file, 2) for _ in range(3)] == [1, 2, None]
    assert read(tmp_path / "sessions" / NAME).overrides == {"halvings": 2.0}
