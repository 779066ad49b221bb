"""Weights that act, pooling that skips padding, and the same bytes after a kill."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from so8t.four_class.config import FourClass
from so8t.four_class.learner import build
from so8t.four_class.phases import accumulate, class_weights, make_phases
from so8t.four_class.rows import Data, load
from so8t.labels import Label
from so8t.measures import classification
from tests.four_class import tiny as four
from tests.train import tiny
from tests.train.forge import ENVIRONMENT, ROOT


def learner_of(labelled: Path, **changes):
    config = FourClass.model_validate({**four.SETTINGS, **changes})
    learner = build(config, labelled / "base", torch.device("cpu"))
    rows = load(Data(), {"data": tiny.artifact(labelled / "data", "preprocess")})
    return learner, learner.encode(rows.train), learner.encode(rows.validation)


def test_class_weights_act_as_computed_by_hand(labelled):
    """At the start all logits are 0, so the gradient of the head's bias has a closed form."""
    gamma, p = 2.0, 0.25
    for wanted in ((1.0, 3.0, 5.0, 5.0), (5.0, 1.0, 1.0, 2.0)):
        loss = {"class_weights": wanted, "balanced": False, "focal_gamma": gamma}
        learner, train, _ = learner_of(labelled, loss=loss)
        picked = [s for s in train if s.row.label != Label.DENY] + train[:2]
        accumulate(learner, picked, class_weights(learner.config, train), 2)
        weights, bias = np.array([wanted[s.row.label] for s in picked]), np.zeros(4)
        slope = gamma * p * (1 - p) ** (gamma - 1) * np.log(p) - (1 - p) ** gamma
        for weight, sample in zip(weights, picked, strict=True):
            bias += weight / weights.sum() * slope * (np.eye(4)[sample.row.label] - p)
        assert learner.reader.head.bias.grad.numpy() == pytest.approx(bias, abs=1e-6)


def test_the_gradient_does_not_depend_on_the_micro_batch(labelled):
    found = []
    for size in (1, 3, 12):
        learner, train, _ = learner_of(labelled)
        torch.nn.init.normal_(learner.reader.head.weight, generator=torch.Generator().manual_seed(0))
        accumulate(learner, train, class_weights(learner.config, train), size)
        found.append({name: p.grad.clone() for name, p in learner.trained.items()})
    assert max(float(g.abs().max()) for g in found[0].values()) > 1e-3
    for other in found[1:]:
        assert all(torch.allclose(found[0][name], other[name], atol=1e-6, rtol=1e-4) for name in found[0])


def test_memory_that_runs_out_changes_the_micro_batch_only(labelled, monkeypatch):
    """The second step meets a machine that bears one row a pass; from then on that is what a checkpoint holds."""
    learner, train, held_out = learner_of(labelled, micro_batch=2)
    part, forward, tight = make_phases(learner, train, held_out)[0], learner.reader.__call__, []

    def bears_one(self, rows):
        if tight and len(rows) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(rows)

    monkeypatch.setattr(type(learner.reader), "__call__", bears_one)
    assert "micro_batch" not in part.step(0)()
    tight.append(True)
    told = part.step(1)()
    assert told["micro_batch"] == 1
    assert int(learner.tensors()["micro_batch"]) == 1
    assert "micro_batch" not in part.step(2)()


def test_a_bf16_base_is_learnt_on_with_fp32_adapters(labelled):
    adapter = {**four.SETTINGS["adapter"], "base_dtype": "bfloat16", "gradient_checkpointing": True}
    learner, train, held_out = learner_of(labelled, adapter=adapter)
    assert {p.dtype for p in learner.reader.text.layers[0].mlp.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in learner.trained.values()} == {torch.float32}
    before = {name: p.detach().clone() for name, p in learner.trained.items()}
    part = make_phases(learner, train, held_out)[0]
    losses = [part.step(position)()["loss"] for position in range(2)]
    assert all(0 < loss < 2 for loss in losses)
    assert all(torch.isfinite(p).all() and not p.equal(before[name]) for name, p in learner.trained.items())


@pytest.mark.parametrize("pooling", ["mean", "wide"])
def test_padding_is_never_pooled(labelled, pooling):
    learner, train, _ = learner_of(labelled, pooling=pooling)
    torch.nn.init.normal_(learner.reader.head.weight, generator=torch.Generator().manual_seed(0))
    short, long = sorted((s.ids for s in train), key=len)[:: len(train) - 1]
    assert len(short) < len(long)
    with torch.no_grad():
        alone, together = learner.reader([short]), learner.reader([short, long])
    assert torch.allclose(alone[0], together[0], atol=1e-5)


def test_parts_cover_every_step_once_and_measure_twice_an_epoch(labelled):
    learner, train, held_out = learner_of(labelled)
    *parts, last = make_phases(learner, train, held_out)
    assert [p.phase.first for p in parts] == [sum(q.steps for q in parts[:i]) for i in range(len(parts))]
    assert len(parts) == 6
    assert sum(p.steps for p in parts) == 9
    assert last.name == "calibration"


def test_what_is_too_long_is_cut_and_counted(labelled):
    _, whole, _ = learner_of(labelled)
    _, train, _ = learner_of(labelled, max_seq_length=8)
    assert [sample.ids for sample in train] == [sample.ids[:8] for sample in whole]
    assert [sample.cut for sample in train] == [len(sample.ids) > 8 for sample in whole]
    assert any(sample.cut for sample in train)


def test_the_best_state_is_what_it_ends_in(labelled, classifier_home, classifier_folder):
    from so8t.classifier import Classifier
    from so8t.records import iterate

    metrics = json.loads((classifier_folder / "metrics.json").read_text(encoding="utf-8"))
    measured = {name: found["macro_f1"] for name, found in metrics.items() if name != "calibration"}
    assert metrics["calibration"]["best_macro_f1"] == max(measured.values())
    rows = [row for row in iterate(labelled / "data" / "validation.parquet") if row.modality == "text"]
    found = Classifier.load(classifier_folder, labelled / "base").probabilities([row.prompt for row in rows])
    again = classification([row.label for row in rows], found.argmax(1).tolist())
    assert again["macro_f1"] == pytest.approx(max(measured.values()))


def kill_at(labelled: Path, home: Path, word: str) -> None:
    """Start a training and kill it as soon as it says the word."""
    home.mkdir(exist_ok=True)
    with (home / "log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.four_class.tiny", str(labelled), str(home)],
            cwd=ROOT, env=ENVIRONMENT, stdout=log, stderr=log,
        )  # fmt: skip
    said = home / "progress.jsonl"
    while process.poll() is None:
        if said.exists() and word in said.read_text(encoding="utf-8"):
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.001)
    assert process.wait() == -signal.SIGKILL, (home / "log").read_text(encoding="utf-8")[-2000:]


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
@pytest.mark.parametrize(
    "words",
    [["epoch_1.33 1/"], pytest.param(["epoch_0.667 1/", "epoch_1: measuring", "calibration"], marks=pytest.mark.soak)],
    ids=["once", "thrice"],
)
def test_killed_and_resumed_it_ends_in_the_same_bytes(labelled, classifier_home, tmp_path, words):
    for word in words:
        kill_at(labelled, tmp_path / "home", word)
    facts = four.train(labelled, tmp_path / "home")
    assert facts["resumes"]
    assert tiny.bytes_of(tmp_path / "home") == tiny.bytes_of(classifier_home)
