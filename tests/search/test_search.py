"""What a search finds, says, refuses, and hands on to the training."""

import json
import sqlite3
from types import SimpleNamespace

import pytest
import torch
from filelock import FileLock

from so8t import artifacts
from so8t.artifacts import Store
from so8t.config import load_config
from so8t.errors import ConfigError, InputError, ResourceError, StepFailed
from so8t.models import write_thinking_tokenizer
from so8t.search.run import _Search, choose_prompts
from so8t.search.study import FILE, StudyFile
from so8t.step import Ref, lookup, steps
from so8t.train import generation
from so8t.train.learner import build
from so8t.train.run import load_samples
from so8t.train.warm import start_of, take_over, unseen
from tests.conftest import ROOT
from tests.search import small
from tests.train import tiny
from tests.train.test_alpha import sample

# The whole searches of these tests have another one, by which trials of an untrained model differ.
JUDGE = _Search._judge


def trials(home):
    return json.loads((tiny.output(home) / "trials.json").read_text(encoding="utf-8"))


def test_it_searches_and_says_what_it_found(found):
    home, facts = found
    rows = trials(home)
    assert [row["number"] for row in rows] == [0, 1, 2, 3, 4]
    own = {"ppo.epochs": 2, "ppo.learning_rate": 1e-4, "reward.quality": 1.0}
    assert rows[0]["params"] == own, "the config's own values are the first"
    done = [row for row in rows if row["state"] == "COMPLETE"]
    best = json.loads((tiny.output(home) / "best.json").read_text(encoding="utf-8"))
    assert best["reward"] == max(row["reward"] for row in done) == facts["reward"]
    assert best["values"] == rows[best["trial"]]["params"]
    pruned = [row for row in rows if row["state"] == "PRUNED"]
    assert pruned, "a learning rate that spoils the model is not trained to its end"
    middle = sorted(row["on_the_way"]["1"] for row in done)[len(done) // 2]
    assert all(row["on_the_way"]["1"] < middle and row["reward"] is None for row in pruned)
    page = (tiny.output(home) / "search.md").read_text(encoding="utf-8")
    assert "`train.ppo.learning_rate`" in page
    assert page.count("data:image/png;base64,") == len(list((tiny.output(home) / "plots").iterdir())) >= 4
    assert not list((home / "sessions" / small.SESSION / "trials").iterdir())


def test_the_study_survives_power_loss_by_its_settings(tmp_path):
    study = StudyFile(tmp_path)
    with study._storage.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "delete"
    assert study._storage.get_heartbeat_interval() == 60
    study.close()
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
    assert sqlite3.connect(tmp_path / FILE).execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_two_processes_cannot_run_one_search(tmp_path, monkeypatch):
    monkeypatch.setattr(artifacts, "LOCK_WAIT_S", 0.2)
    (tmp_path / "locks").mkdir()
    lock = FileLock(tmp_path / "locks" / f"train.search-{tiny.KEY}.lock", thread_local=False)
    with (
        lock,
        pytest.raises(ResourceError, match="another process"),
        Store(tmp_path).working("train.search", tiny.KEY),
    ):
        pass


def test_the_training_begins_where_the_search_left_the_warm_up(world, found, tmp_path):
    """With the best values and from the search's warm-up it ends where it would have with those values alone."""
    from so8t.train.run import run as train

    home, facts = found
    artifact = tiny.artifact(tiny.output(home), "train.search")
    config, best = take_over(tiny.CONFIG, artifact)
    assert best["values"] == facts["best"]
    assert config.ppo.learning_rate == facts["best"]["ppo.learning_rate"]
    assert tiny.CONFIG.ppo.learning_rate == 1e-4
    warmed = sum(tiny.STEPS[name] + 1 for name in ("tower", "align", "warmup"))
    assert start_of(artifact).name == f"final-{warmed}"
    assert take_over(tiny.CONFIG, None) == (tiny.CONFIG, {})
    seen = json.loads((tiny.output(home) / "prompts.json").read_text(encoding="utf-8"))
    assert len(seen) == 4
    inputs = {
        "base": tiny.artifact(world / "base", "collect.base"), "data": tiny.artifact(world / "data", "preprocess"),
        "search": artifact,
    }  # fmt: skip
    from so8t.config import Machine
    from so8t.progress import Progress

    out = tiny.output(tmp_path)
    out.mkdir()
    done = train(tiny.CONFIG, inputs, out, Progress("train", Machine(threads=1, device="cpu"), tmp_path))
    assert done["metrics"]["search"]["values"] == facts["best"]
    assert done["resumes"][0]["step"] == warmed
    rows = [json.loads(line) for line in (out / "history.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["phase"] for row in rows].count("warmup") == 5
    held_out = [sample(i) for i in range(3)]
    kept = unseen(held_out, None)
    assert kept == held_out


def test_its_judge_generates_in_halves_where_memory_runs_out(world, tmp_path, monkeypatch):
    ids = write_thinking_tokenizer(world / "base", tmp_path)
    learner = build(tiny.CONFIG, world / "base", tmp_path, ids, "cpu")
    rows = load_samples(tiny.CONFIG, learner, tiny.artifact(world / "data", "preprocess"), "validation")
    searching = SimpleNamespace(config=small.config(), learner=learner, judged=rows[:4], classify=None)
    whole, embed, tried = JUDGE(searching), generation.embed, []

    def short(learner, ids, pictures):
        tried.append(len(ids))
        if len(ids) > 2:
            raise torch.OutOfMemoryError("refused")
        return embed(learner, ids, pictures)

    monkeypatch.setattr(generation, "embed", short)
    # Replies of an untrained model are worth nothing, whichever they are.
    assert JUDGE(searching) == pytest.approx(whole, abs=2)
    assert tried == [4, 2, 2]


def test_no_other_choice_sees_its_prompts():
    held_out = [sample(1000 + i) for i in range(10)] + [sample(1, 0, "image")]
    judged = choose_prompts(held_out, 4, 6)
    assert [one.record.id for one in judged] == [f"row-{1000 + i}" for i in range(6, 10)]
    with pytest.raises(InputError, match="10 validation rows are text"):
        choose_prompts(held_out, 5, 6)


def test_switched_off_it_is_in_nobodys_way():
    off, on = (load_config(ROOT / "configs" / "demo.yaml", [f"search.trials={n}"]) for n in (0, 2))
    train = steps()["train"]
    assert set(train.needs(off, "")) == {"data", "base"}
    assert set(train.needs(on, "")) == {"data", "base", "search"}
    assert steps()["train.search"].parts(on) == [""]
    with pytest.raises(InputError, match=r"leaves train\.search out"):
        lookup(Ref("train.search"), off)
    assert on.search_run().train.head == off.search_run().train.head
    head = load_config(ROOT / "configs" / "demo.yaml", ["search.trials=2", "train.head.steps=7"])
    assert head.search_run() == on.search_run(), "what comes after PPO changes no search"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("{name: ppo.learning_rte, low: 1.0e-5, high: 1.0e-3}", "no number of train.ppo"),
        ("{name: warmup.steps, low: 1, high: 3}", "no number of train.ppo"),
        ("{name: ppo.updates, low: 1, high: 3}", "no number of train.ppo"),
        ("{name: ppo.whiten_rewards, low: 0, high: 1}", "no number of train.ppo"),
        ("{name: ppo.learning_rate, low: 1.0e-3, high: 1.0e-5}", "low < high"),
        ("{name: ppo.learning_rate, low: 0, high: 1, log: true}", "begins above 0"),
        ("{name: ppo.learning_rate, low: -1, high: 1}", "greater than 0"),
        ("{name: ppo.gae_lambda, low: 0.5, high: 1.5}", "less than or equal to 1"),
        ("{name: ppo.epochs, low: 1.5, high: 3}", "whole number"),
    ],
)
def test_bad_ranges_say_what_is_wrong(change, message):
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(ROOT / "configs" / "demo.yaml", [f"search.parameters=[{change}]"])
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    "change",
    [
        "parameters=[{name: ppo.clip, low: 0.1, high: 0.3}, {name: ppo.clip, low: 0.1, high: 0.4}]",
        "parameters=[]", "report_every=99", "trials=-1", "tries_max=0",
    ],
)  # fmt: skip
def test_bad_searches_are_refused(change):
    with pytest.raises(ConfigError, match="search"):
        load_config(ROOT / "configs" / "demo.yaml", [f"search.{change}"])


def test_no_trial_at_its_end_is_a_failure(tmp_path):
    from optuna.trial import TrialState

    from so8t.search.report import write_report
    from so8t.search.study import ranges_of

    study = StudyFile(tmp_path)
    ranges = ranges_of(small.SEARCH)
    trial = study.begin({"ppo.learning_rate": 1e-4, "ppo.epochs": 2, "reward.quality": 1.0}, ranges)
    assert study.running().params == trial.params
    study.end(trial, TrialState.FAIL, None, "it broke")
    with pytest.raises(StepFailed, match="trial 0: it broke"):
        write_report(small.config(), study, tmp_path / "out")
    study.close()
