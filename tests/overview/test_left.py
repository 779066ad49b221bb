"""The time left of a run: told from earlier measurements of the same work, else not told."""

from datetime import UTC, datetime

import pytest

from so8t import durable, recoveries
from so8t.artifacts import MANIFEST, Store
from so8t.config import load_config
from so8t.overview import asked
from so8t.overview.left import Left, left_of
from so8t.overview.live import newest_of
from so8t.session import SessionFile
from so8t.step import Ref, steps
from tests.conftest import ROOT

TEXTS, TONES, JOINED, TRAIN = (
    Ref("collect.source", "prompts"), Ref("collect.source", "tones"), Ref("collect"), Ref("train")
)  # fmt: skip
RUN = "run-00000000-0000-0000-0000-000000000001"


def smoke(home, *sets):
    return load_config(ROOT / "configs" / "smoke.yaml", sets, home)


class Home:
    """What an earlier run left: artifacts with their times, by second."""

    def __init__(self, folder):
        self.config, self.store = smoke(folder), Store(folder)
        self.run = SessionFile.open(folder, RUN, "run")
        asked.note(self.run.folder, self.config)

    def made(self, ref, began_s, ended_s, config=None):
        section = steps()[ref.step].section(config or self.config, ref.part).model_dump(mode="json")
        key = f"{len(self.run.session.artifacts):064}"
        times = {
            name: datetime.fromtimestamp(at, UTC).isoformat()
            for name, at in (("started_at", began_s), ("finished_at", ended_s))
        }
        path = self.store.path(ref.step, key) / MANIFEST
        path.parent.mkdir(parents=True)
        durable.write_json(path, {"step": ref.step, "key": key, "config": section, **times})
        self.run.note_artifact(f"{ref.step}/{key}")
        return key

    def left(self, config=None, reports=None, **states):
        rows = {str(ref): {"state": state} for ref, state in states.pop("rows").items()}
        return left_of(config or self.config, self.store, rows, reports or {})


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path)


def report(done, at, total=10, **more):
    return {"time": at, "step": "any", "done": done, "total": total, "message": "m", **more}


def test_what_ran_at_once_counts_once_and_the_newest_counts(home):
    home.made(TEXTS, 0, 500)
    home.made(TEXTS, 1000, 1040)
    home.made(TONES, 1010, 1060)
    home.made(JOINED, 1060, 1065)
    rows = {TEXTS: "ready", TONES: "ready", JOINED: "waiting"}
    assert home.left(rows=rows) == Left(65.0)
    assert str(home.left(rows=rows)) == "about 1 min 05 s left of the run"
    assert home.left(rows={**rows, TEXTS: "done"}) == Left(55.0)


def test_one_step_without_a_measurement_leaves_the_whole_unknown(home):
    home.made(TEXTS, 0, 40)
    found = home.left(rows={TEXTS: "ready", TONES: "ready"})
    assert found == Left(40.0, ("collect.source[tones]",))
    assert str(found) == (
        "time left of the run not known yet, at least about 40 s: collect.source[tones] not timed here so far"
    )
    refs = [Ref("bake.quantize", name) for name in ("a", "b", "c", "d", "e")]
    told = str(Left(0.0, tuple(map(str, refs))))
    assert told.startswith("time left of the run not known yet: bake.quantize[a], ")
    assert "[c] and 2 more not timed" in told


def test_other_settings_another_base_or_a_stop_in_between_are_no_measurement(home):
    home.made(TRAIN, 0, 40, smoke(home.store.home, "train.warmup.steps=60"))
    assert home.left(rows={TRAIN: "ready"}).unknown == ("train",)
    key = home.made(TRAIN, 50, 90)
    assert home.left(rows={TRAIN: "ready"}) == Left(40.0)
    assert home.left(smoke(home.store.home, "base.steps=5"), rows={TRAIN: "ready"}).unknown == ("train",)
    assert home.left(smoke(home.store.home, "bake.quantizations=[]"), rows={TRAIN: "ready"}) == Left(40.0)
    stopped = Home(home.store.home / "other")
    key = stopped.made(TRAIN, 50, 90)
    for _ in range(2):
        SessionFile.open(stopped.store.home, recoveries.session_of("train", key), "train")
    assert stopped.left(rows={TRAIN: "ready"}).unknown == ("train",)


def test_what_works_counts_with_its_rest(home):
    home.made(TEXTS, 0, 40)
    home.made(TRAIN, 100, 200)
    texts, train = newest_of([report(1, 5000), report(2, 5010)]), newest_of([report(4, 9000)])
    rows = {TEXTS: "partial", TRAIN: "waiting"}
    assert home.left(reports={str(TEXTS): texts}, rows=rows) == Left(130.0)
    # A training goes on from its checkpoint, whenever this attempt began.
    assert home.left(reports={"train": train}, rows={TRAIN: "partial"}).seconds == pytest.approx(60.0)
    unmeasured = newest_of([report(1, 0), report(2, 7, eta_s=33)])
    assert home.left(reports={str(TONES): unmeasured}, rows={TONES: "partial"}) == Left(33.0, (str(TONES),))


def test_shards_that_nobody_can_count_yet_are_those_of_the_last_time(home):
    home.made(Ref("preprocess.shard", "0"), 0, 30)
    home.made(Ref("preprocess.shard", "1"), 0, 35)
    home.made(Ref("preprocess"), 40, 42)
    assert home.left(rows={Ref("preprocess"): "waiting"}) == Left(37.0)
    bare = Home(home.store.home / "bare")
    assert bare.left(rows={Ref("preprocess"): "waiting"}).unknown == ("preprocess", "preprocess.shard[0]")


def test_a_damaged_file_is_no_measurement(home):
    key = home.made(TRAIN, 0, 40)
    (home.store.path("train", key) / MANIFEST).write_text("{", encoding="utf-8")
    assert home.left(rows={TRAIN: "ready"}).unknown == ("train",)
    (home.run.folder / asked.FILE).write_text("{", encoding="utf-8")
    assert home.left(rows={TRAIN: "ready"}).unknown == ("train",)
