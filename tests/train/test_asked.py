"""What a recovery asks of a training: once, logged, the same effective batch, and the same bytes after another cut."""

import shutil

import pytest
import torch
from torch import nn

from so8t import asked, recoveries
from so8t.loop.microbatch import MicroBatch
from so8t.loop.phase import Optimizer
from so8t.session import read
from tests.train import tiny
from tests.train.test_microbatch import Cut, config_of, history, trained

ASKED = {"halvings": 1.0, "rate": 0.5}


def test_a_size_is_halved_once_for_each_time_that_was_asked():
    with asked.taken({"halvings": 2.0}):
        micro = MicroBatch(7, batch=16)
        assert micro.size == 2
        assert micro.commit() == {"micro_batch": 2.0, "effective_batch": 16.0}
        assert micro.commit() == {}
        with asked.gone_on_from(1):
            micro.restore(4)
        assert micro.size == 2
        with asked.gone_on_from(2):
            micro.restore(2)
        assert micro.size == 2
        assert micro.commit() == {}
        with asked.gone_on_from(3):
            micro.restore(1)
        assert micro.size == 1
    assert MicroBatch(7).size == 7


def test_a_lower_rate_is_that_of_every_group():
    optimizer = Optimizer(
        [({"a": nn.Parameter(torch.ones(2))}, 0.1, 0.0), ({"b": nn.Parameter(torch.ones(1))}, 0.2, 0.0)]
    )
    for rate in (1.0, 0.25):
        with asked.taken({"rate": rate}):
            optimizer.step(0.5)
        assert [group["lr"] for group in optimizer.adam.param_groups] == pytest.approx([0.05 * rate, 0.1 * rate])


def test_what_is_asked_is_obeyed_logged_and_survives_another_cut(world, tmp_path):
    config = config_of(2)
    config = config.model_copy(update={"ppo": config.ppo.model_copy(update={"updates": 1, "epochs": 1})})
    with pytest.raises(KeyboardInterrupt):
        tiny.train(world, tmp_path / "one", config=config, sinks=(Cut("warmup 3/"),))
    shutil.copytree(tmp_path / "one", tmp_path / "cut")
    with asked.taken(ASKED):
        tiny.train(world, tmp_path / "one", config=config)
        with pytest.raises(KeyboardInterrupt):
            tiny.train(world, tmp_path / "cut", config=config, sinks=(Cut("warmup 5/"),))
        tiny.train(world, tmp_path / "cut", config=config)
    assert trained(tmp_path / "cut") == trained(tmp_path / "one")
    changed = [row for row in history(tmp_path / "one") if "micro_batch" in row]
    assert [(row["phase"], row["micro_batch"], row["effective_batch"]) for row in changed] == [
        ("warmup", 1.0, 8.0), ("ppo", 1.0, 2.0),
    ]  # fmt: skip
    told = [found.detail for found in recoveries.read(tmp_path / "one")]
    assert any("warmup.micro_batch is 1" in line and "effective batch stays 8" in line for line in told), told
    session = read(next((tmp_path / "one" / "sessions").iterdir()))
    assert session.overrides["warmup.micro_batch"] == 1.0
