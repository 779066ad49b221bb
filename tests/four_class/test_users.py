"""The steps that use the trained classifier: preprocess labels with it, the reward asks it."""

import json
import shutil

import pytest

from so8t import durable, records
from so8t.artifacts import MANIFEST, FileEntry, content_of, hash_file, load
from so8t.classifier import Classifier
from so8t.config import Machine, load_config
from so8t.errors import InputError
from so8t.labels import Label
from so8t.preprocess import classes, labelling
from so8t.preprocess.config import Classifier as Labelling
from so8t.preprocess.config import Preprocess
from so8t.progress import Progress
from so8t.records import Record
from so8t.step import NotReady, Ref, plan
from so8t.train import opinion
from tests.conftest import ROOT
from tests.preprocess import whole
from tests.train import tiny

DEMO = ROOT / "configs" / "demo.yaml"
UNKNOWN = ("Where may I buy eggs?", "Call me on 090-1234-5678, my chest hurts.", "Help me to hide a stolen car.")


@pytest.fixture(scope="module")
def collected(tmp_path_factory):
    folder = tmp_path_factory.mktemp("collected")
    known = [
        Record(f"{label.name}{i}", "text", "en", f"{prompt} And number {word}?", label=int(label), label_source="human",
               file="f", row=10 * label + i)
        for label, prompts in tiny.PROMPTS.items() for prompt in prompts[:2]
        for i, word in enumerate(("one", "two", "three", "four", "five"))
    ]  # fmt: skip
    unknown = [Record(f"u{i}", "text", "en", prompt, file="u", row=i) for i, prompt in enumerate(UNKNOWN)]
    records.write(folder / "records.parquet", [*known, *unknown])
    durable.write_json(folder / "sources.json", {"sources": []})
    return tiny.artifact(folder, "collect")


def classified(classifier_folder, labelled, collected, out):
    inputs = {"collected": collected, "base": tiny.artifact(labelled / "base", "collect.base")}
    out.mkdir()
    progress = Progress("preprocess.classes", Machine(threads=1, device="cpu"), out)
    classes.run(Labelling(folder=classifier_folder, batch=2).pinned(), inputs, out, progress)
    return tiny.artifact(out, "preprocess.classes")


def test_rows_that_nobody_labelled_get_its_class_and_say_so(classifier_folder, labelled, collected, tmp_path):
    made = classified(classifier_folder, labelled, collected, tmp_path / "classes")
    classifier = Classifier.load(classifier_folder, labelled / "base", batch=2)
    masked = [UNKNOWN[0], UNKNOWN[1].replace("090-1234-5678", "[PHONE]"), UNKNOWN[2]]
    wanted = {f"u{i}": judged for i, judged in enumerate(classifier.judge(masked))}
    lines = (made.path / labelling.CLASSES).read_text(encoding="utf-8").splitlines()
    assert {row["id"]: (Label[row["class"]], row["confidence"]) for row in map(json.loads, lines)} == wanted
    config = Preprocess(same_group=0.99, near_duplicate=0.99, quality_worst=0.001)
    whole.run(config, {"collected": collected, "classes": made}, tmp_path / "out")
    found = records.read(tmp_path / "out" / "model_labelled.parquet")
    assert found
    for row in found:
        label, likely = wanted[row.id]
        assert (row.klass, row.label_confidence) == (label, round(likely, 6))
        assert row.label_source == f"model:{classifier.content}"


def test_its_content_decides_the_key_and_damage_is_refused(classifier_folder, labelled, collected, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(classifier_folder, broken)
    assert Labelling(folder=broken).pinned().content == load(classifier_folder).content
    with pytest.raises(InputError, match="content"):
        Labelling(folder=broken, content="0" * 64).pinned()
    head = broken / "head" / "head.safetensors"
    durable.write_bytes(head, head.read_bytes()[:-1] + b"?")
    with pytest.raises(InputError, match=r"head\.safetensors"):
        classified(broken, labelled, collected, tmp_path / "classes")
    # Whole, but another one than the key was made with.
    pinned = Labelling(folder=broken).pinned()
    manifest = durable.read_json(broken / MANIFEST)
    for entry in manifest["files"]:
        entry["sha256"] = hash_file(broken / entry["path"])
    entries = [FileEntry(**entry) for entry in manifest["files"]]
    durable.write_json(broken / MANIFEST, {**manifest, "content": content_of(entries)})
    with pytest.raises(InputError, match="now has the content"):
        classes.run(pinned, {}, tmp_path / "another", Progress("preprocess.classes", Machine(device="cpu"), tmp_path))
    head.unlink()
    with pytest.raises(InputError, match=r"head\.safetensors"):
        Labelling(folder=broken).pinned()


def test_the_reward_is_told_what_the_classifier_thinks_of_each_prompt(classifier_folder, labelled):
    inputs = {
        "base": tiny.artifact(labelled / "base", "collect.base"),
        "data": tiny.artifact(labelled / "data", "preprocess"),
        "classifier": tiny.artifact(classifier_folder, "four_class"),
    }
    assert opinion.ask({role: inputs[role] for role in ("base", "data")}, "cpu") is None
    classify = opinion.ask(inputs, "cpu")
    prompts = list(tiny.PROMPTS[Label.DENY])
    wanted = Classifier.load(classifier_folder, labelled / "base").probabilities(prompts)
    assert [list(row) for row in classify(prompts)] == [pytest.approx(list(row), abs=1e-5) for row in wanted]


class Cut:
    """Interrupts a training in the middle of its policy's steps."""

    def report(self, step, done, total, message, metrics) -> None:
        if message.startswith("ppo 3/"):
            raise KeyboardInterrupt


def test_a_policy_learns_by_it_and_goes_on_after_a_cut_to_the_same_bytes(classifier_folder, labelled, tmp_path):
    asked = tiny.variant(epochs=2)
    asked = asked.model_copy(update={"reward": asked.reward.model_copy(update={"classifier": 0.5})})
    told = tiny.artifact(classifier_folder, "four_class")
    with pytest.raises(KeyboardInterrupt):
        tiny.train(labelled, tmp_path / "cut", config=asked, classifier=told, sinks=(Cut(),))
    for home in ("cut", "whole"):
        tiny.train(labelled, tmp_path / home, config=asked, classifier=told)
    assert tiny.bytes_of(tmp_path / "cut") == tiny.bytes_of(tmp_path / "whole")
    lines = (tiny.output(tmp_path / "whole") / "history.jsonl").read_text(encoding="utf-8").splitlines()
    rollouts = [row for row in map(json.loads, lines) if row["phase"] == "ppo" and "reward_classifier" in row]
    assert len(rollouts) == 2
    assert all(0 <= row["reward_classifier"] <= 0.5 for row in rollouts)
    metrics = durable.read_json(tiny.output(tmp_path / "whole") / "metrics.json")["ppo"]
    assert {"classifier"} <= set(metrics["reward_before"]) & set(metrics["reward_after"])


@pytest.mark.parametrize(("weight", "missing"), [(0.0, None), (0.5, Ref("four_class"))])
def test_the_pipeline_trains_it_where_the_reward_asks(weight, missing):
    from so8t.wiring import STEPS

    config = load_config(DEMO, [f"train.reward.classifier={weight}"])
    for step in ("train", "train.search"):
        assert STEPS[step].needs(config, "").get("classifier") == missing


def test_preprocess_waits_for_the_classes(classifier_folder, tmp_path):
    from so8t.artifacts import Store

    config = load_config(DEMO, [f"preprocess.classifier={{folder: {json.dumps(str(classifier_folder))}}}"])
    with pytest.raises(NotReady):
        plan(Ref("preprocess"), config, Store(tmp_path))
    from so8t.wiring import STEPS

    assert STEPS["preprocess"].needs(config, "")["classes"] == Ref("preprocess.classes", "model")
    assert STEPS["preprocess"].needs(load_config(DEMO), "") == {"collected": Ref("collect")}


def test_a_lost_file_of_the_user_hides_no_other_step(labelled, tmp_path):
    from so8t.artifacts import Store
    from so8t.overview.survey import survey

    store, config = Store(tmp_path), load_config(DEMO, ["four_class.data={train_data: [gone], val_data: [gone]}"])
    base = store.path("collect.base", plan(Ref("collect.base"), config, store).key)
    shutil.copytree(labelled / "base", base)
    manifest = tiny.artifact(base, "collect.base").manifest.model_dump(mode="json")
    times = dict.fromkeys(("started_at", "finished_at"), "2026-01-01T00:00:00+00:00")
    durable.write_json(base / "manifest.json", manifest | times)
    rows = survey(config, store)
    assert rows["four_class"]["state"] == "waiting"
    assert "gone" in rows["four_class"]["detail"]
    assert rows["collect.base"]["state"] == "done"
