"""The licence gate: what a card may state."""

import pytest

from so8t.collect.licence import decide, disagreement

ALLOWED = ("mit", "apache-2.0")


@pytest.mark.parametrize(
    ("stated", "licence"),
    [
        ("mit", "mit"),
        (" MIT ", "mit"),
        ("Apache-2.0", "apache-2.0"),
        (["apache-2.0"], "apache-2.0"),
        (["MIT", "apache-2.0", None], "apache-2.0; mit"),
        ("apache-2.0; mit", "apache-2.0; mit"),
    ],
)
def test_passes(stated, licence):
    decision = decide(stated, ALLOWED)
    assert decision.allowed
    assert decision.licence == licence


@pytest.mark.parametrize(
    "stated",
    [
        None, "", "  ", [], [None], "other", "unknown", "cc-by-4.0", "cc-by-nc-4.0", "CC0-1.0", "gpl-3.0", "openrail",
        "mit license", "odc-by", ["mit", "cc-by-4.0"], ["apache-2.0", "other"], "mit; gpl-3.0", {"mit": 1}, 3,
    ],
)  # fmt: skip
def test_is_refused_with_a_reason(stated):
    decision = decide(stated, ALLOWED)
    assert not decision.allowed
    assert decision.reason


def test_places_that_contradict_each_other():
    assert not disagreement({"card": "mit", "tags": ["mit"]})
    assert not disagreement({"card": ["mit"], "tags": []})
    assert "disagree" in disagreement({"card": "mit", "tags": ["apache-2.0"]})
    assert "disagree" in disagreement({"card": None, "tags": ["mit"]})
