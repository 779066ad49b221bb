"""What the plan says that this training needs: counts of the built model, and words where it does not fit."""

from dataclasses import replace

import pytest
import torch

from so8t import asked, durable
from so8t.config import load_config
from so8t.four_class.learner import build
from so8t.four_class.phases import Part
from so8t.four_class.rows import Row
from so8t.labels import Label
from so8t.plan import four_class
from so8t.plan.geometry import of_json, tower_of
from so8t.plan.memory import GIB, Shapes
from so8t.preflight import look, memory
from so8t.preflight import scene as prepared
from so8t.preflight.disk import demands
from so8t.preflight.look import LASTS
from so8t.preflight.profile import Choice, Peak
from so8t.preflight.scene import set_scene
from so8t.train.config import Train
from tests.conftest import ROOT, command
from tests.four_class import tiny as four

ALONE = ROOT / "configs" / "four_class.yaml"
BOREA = ROOT / "configs" / "borea_phi35.yaml"


@pytest.fixture(scope="module")
def shapes(labelled):
    train = Train()
    geometry = of_json(durable.read_json(labelled / "base" / "config.json"), "here")
    return Shapes.of(train, geometry, tower_of(train.vision, geometry), on_gpu=False, prompt_tokens=20)


@pytest.mark.parametrize("pooling", ["mean", "wide"])
def test_counts_are_those_of_the_built_model_and_its_checkpoint(shapes, labelled, pooling):
    config = four.CONFIG.model_copy(update={"pooling": pooling})
    learner = build(config, labelled / "base", torch.device("cpu"))
    assert four_class.trained(config, shapes) == sum(p.numel() for p in learner.trained.values())
    samples = learner.encode([Row(str(n), "ab", Label(n % 4)) for n in range(8)])
    part = Part(learner, 0, 2, 2, samples, samples)
    assert part.step(0)()["learning_rate"] == config.learning_rate
    numbers = sum(tensor.numel() for name, tensor in learner.tensors().items() if not name.endswith(".step"))
    assert 4 * numbers - four_class.checkpoint_bytes(config, shapes) == 4 * 3, "best_score, best_step, micro_batch"
    # What a recovery has made of the rate is what the log says.
    with asked.taken({"rate": 0.5}):
        slower = part.step(1)()["learning_rate"]
    assert slower == pytest.approx(0.5 * part.step(1)()["learning_rate"])


def of_card(path, gpu_gib, tmp_path, monkeypatch, flow, *overrides):
    """What preflight makes of a machine with such a GPU."""
    machine = replace(prepared.detect(tmp_path), gpu="a card", gpu_bytes=gpu_gib * GIB, memory_bytes=64 * GIB)
    monkeypatch.setattr(prepared, "detect", lambda home: machine)
    scene = set_scene(load_config(path, ["machine.device=cuda", *overrides], tmp_path), LASTS[flow])
    return scene, look._choice(scene)


def test_a_gpu_that_is_too_small_for_it_is_told_before_the_run(tmp_path, monkeypatch):
    scene, choice = of_card(ALONE, 6, tmp_path, monkeypatch, "four_class")
    assert (choice.fits, choice.changes) == (False, {})
    said = memory.check_gpu(scene, choice, 6 * GIB)
    assert said.state == "warn"
    assert "four_class update" in said.found
    assert "four_class.max_seq_length" in said.do
    assert of_card(ALONE, 24, tmp_path, monkeypatch, "four_class")[1].fits
    kept = {one.what: one.size_bytes for one in demands(scene)}
    assert kept["four_class: checkpoints"] > 5 * four_class.checkpoint_bytes(scene.config.four_class, scene.shapes)


def test_the_pipeline_needs_it_where_the_reward_asks(tmp_path, monkeypatch):
    long = ("profile=12gb", "four_class.adapter.gradient_checkpointing=false", "four_class.micro_batch=16",
            "four_class.data={train_data: [a.jsonl], val_data: [b.jsonl]}")  # fmt: skip
    without = of_card(BOREA, 24, tmp_path, monkeypatch, "pipeline", *long)[1]
    assert without.fits
    asked_for = of_card(BOREA, 24, tmp_path, monkeypatch, "pipeline", *long, "train.reward.classifier=0.5")[1]
    assert (asked_for.fits, asked_for.after.phase) == (False, "four_class update")
    assert asked_for.after.device_bytes > without.after.device_bytes


def test_of_two_trainings_each_memory_is_the_larger_and_the_misfit_is_named(monkeypatch):
    larger = Choice({"micro_batch_max": 1.0}, Peak("ppo", 30, 60), Peak("ppo", 10, 60), fits=True)
    for needed, fits in ((11, True), (20, False)):
        of_classes = Peak("four_class update", needed, 1)
        smaller = Choice({}, of_classes, of_classes, fits)
        for name, choice in (("_trained", larger), ("_classified", smaller)):
            monkeypatch.setattr(look, name, {None: choice}.get)
        found = look._choice(None)
        assert (found.after.device_bytes, found.after.host_bytes, found.fits) == (needed, 60, fits)
        assert found.after.phase == ("ppo" if fits else "four_class update")
        assert (found.before.device_bytes, found.changes) == (30, larger.changes)


def test_the_plan_of_the_flow_alone(tmp_path):
    told = command("plan", "--config", str(ALONE), "--flow", "four_class", "--json", home=tmp_path / "home").json
    assert set(told["memory"]) == {"four_class update", "four_class measuring"}
    assert set(told["disk"]) == {"collect.base", "four_class", "four_class: checkpoints", "peak"}
    assert told["disk"]["peak"] == sum(size for name, size in told["disk"].items() if name != "peak")
    assert set(told["parameters"]) == {"base", "text adapters", "class head", "checkpoint_bytes"}
