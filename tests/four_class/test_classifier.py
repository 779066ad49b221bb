"""The trained classifier as other steps use it."""

import shutil

import numpy as np
import pytest
from safetensors.torch import load_file

from so8t import durable, records
from so8t.classifier import HEAD, Classifier
from so8t.errors import InputError
from so8t.labels import Label
from so8t.measures import classification
from tests.four_class import tiny as four
from tests.train import tiny

TEXTS = ["How do I boil an egg?", "My chest hurts.", "明日の天気は。", "Help me to steal."]


@pytest.fixture(scope="module")
def classifier(classifier_folder, labelled):
    return Classifier.load(classifier_folder, labelled / "base")


def test_probabilities_are_some_and_repeatable(classifier):
    found = classifier.probabilities(TEXTS)
    assert found.shape == (4, 4)
    assert np.allclose(found.sum(1), 1)
    assert (found == classifier.probabilities(TEXTS)).all()
    assert len({tuple(row) for row in found.round(6)}) == 4


def test_neither_batch_nor_company_matters(classifier, classifier_folder, labelled):
    one = Classifier.load(classifier_folder, labelled / "base", batch=1)
    assert np.allclose(one.probabilities(TEXTS), classifier.probabilities(TEXTS), atol=1e-5)


def test_no_texts_no_rows(classifier):
    assert classifier.probabilities([]).shape == (0, 4)
    assert classifier.decide([]) == []


def test_decisions_follow_the_thresholds(classifier):
    from so8t.calibration import decide

    wanted = [decide(row, classifier.calibration.thresholds) for row in classifier.probabilities(TEXTS)]
    assert classifier.decide(TEXTS) == wanted


def test_what_is_not_read_whole_is_never_allowed(classifier, classifier_folder, labelled, tmp_path):
    folder = tmp_path / "lenient"
    shutil.copytree(classifier_folder, folder)
    told = {"temperature": 1.0, "thresholds": {"ALLOW": 1e-9, "ESCALATION": None, "DENY": None, "REFUSE": None}}
    durable.write_json(folder / "calibration.json", told)
    lenient = Classifier.load(folder, labelled / "base")
    assert lenient.decide(["Tell me a story.", "Tell me a story. " * 50]) == [Label.ALLOW, Label.ESCALATION]


def test_another_base_is_refused(classifier_folder, labelled, tmp_path):
    base = tmp_path / "base"
    shutil.copytree(labelled / "base", base)
    durable.write_json(base / "manifest.json", {"content": "0" * 64})
    with pytest.raises(InputError, match="was trained on the base"):
        Classifier.load(classifier_folder, base)


def test_a_wide_pooling_is_learnt_with_and_read_back(labelled, tmp_path):
    four.train(labelled, tmp_path, four.CONFIG.model_copy(update={"pooling": "wide", "epochs": 1}))
    folder = tiny.output(tmp_path)
    durable.write_json(folder / "manifest.json", tiny.artifact(folder, "four_class").manifest.model_dump(mode="json"))
    rows = [row for row in records.iterate(labelled / "data" / "validation.parquet") if row.modality == "text"]
    guessed = Classifier.load(folder, labelled / "base").probabilities([row.prompt for row in rows]).argmax(1)
    measured = classification([row.label for row in rows], guessed.tolist())["macro_f1"]
    assert measured == pytest.approx(durable.read_json(folder / "metrics.json")["calibration"]["best_macro_f1"])
    assert load_file(folder / HEAD)["weight"].shape == (4, 4 * 64)


def test_an_unknown_pooling_is_refused(classifier_folder, labelled, tmp_path):
    folder = tmp_path / "other"
    shutil.copytree(classifier_folder, folder)
    told = durable.read_json(folder / "classifier.json")
    durable.write_json(folder / "classifier.json", told | {"pooling": "the first token"})
    with pytest.raises(InputError, match="the first token"):
        Classifier.load(folder, labelled / "base")


@pytest.mark.parametrize("name", ["classifier.json", "calibration.json"])
def test_a_folder_that_is_no_classifier_is_refused(classifier_folder, labelled, tmp_path, name):
    folder = tmp_path / "broken"
    shutil.copytree(classifier_folder, folder)
    (folder / name).unlink()
    with pytest.raises(InputError, match=name):
        Classifier.load(folder, labelled / "base")
