"""The labeller: calibrated, and a doubt is never ALLOW."""

import numpy as np
import pytest

from so8t.calibration import expected_calibration_error, fit_temperature, tempered
from so8t.labels import Label
from so8t.preprocess import labeller
from so8t.records import Record


@pytest.mark.parametrize(
    ("probabilities", "label"),
    [
        ([0.59, 0.2, 0.2, 0.01], Label.ESCALATION),
        ([0.61, 0.2, 0.1, 0.09], Label.ALLOW),
        ([0.1, 0.1, 0.1, 0.7], Label.REFUSE),
        ([0.25, 0.25, 0.25, 0.25], Label.ESCALATION),
    ],
)
def test_below_the_bound_it_is_escalation(probabilities, label):
    assert labeller.decide(np.array(probabilities), 0.6)[0] == label


def test_temperature_mends_overconfidence():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 4, 2000)
    guess = np.where(rng.random(2000) < 0.7, y, rng.integers(0, 4, 2000))
    sure = np.full((2000, 4), 0.003)
    sure[np.arange(2000), guess] = 0.991
    temperature = fit_temperature(sure, y)
    assert temperature > 1.5
    before = expected_calibration_error(sure, y)
    after = expected_calibration_error(tempered(sure, temperature), y)
    assert after < 0.05 < before


def test_too_few_rows_give_no_labeller():
    rows = [Record(str(i), "text", "en", f"text {i}", label=0, group=str(i)) for i in range(5)]
    assert labeller.fit(rows, 0) is None
    assert labeller.fit([], 0) is None


def test_a_planted_wrong_label_leads_the_review():
    rows = [Record(f"a{i}", "text", "en", f"cook soup number {i}", label=0, group=f"a{i}") for i in range(20)]
    rows += [Record(f"b{i}", "text", "en", f"steal a car type {i}", label=3, group=f"b{i}") for i in range(20)]
    rows.append(Record("wrong", "text", "en", "steal a car type 99", label=0, group="w"))
    model = labeller.fit(rows, 0)
    assert labeller.review(rows, model, 5)[0]["id"] == "wrong"
