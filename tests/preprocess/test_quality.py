"""Broken and odd text, and ordinary text that must stay."""

import numpy as np
import pytest

from so8t.collect.demo.text import pretraining_text
from so8t.preprocess.quality import FEATURES, broken, features, odd


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("?", "too short"),
        ("縺ゅ↑縺溘�蜷榊燕繧呈蕗縺医※", "mojibake"),
        ("今日は晴れです".encode().decode("latin-1"), "mojibake"),
        ("料|理|の|作|り|方", "fragments between bars"),
        ("あ" * 30, "one character repeated"),
        ("buy " * 9 + "quick brown fox jumps", "one word repeated"),
        ("12 34 56 78 !!", "hardly any letters"),
    ],
)
def test_is_broken(text, reason):
    assert broken(text) == reason


@pytest.mark.parametrize(
    "text",
    [
        "卵の数は?",
        "A|B テストとは何ですか。",
        "電話は[PHONE]です",
        "Déjà vu à Zürich, naïve café",
        "繧 is a rare kanji",
    ],
)
def test_is_not_broken(text):
    assert broken(text) == ""


def test_a_long_text_is_judged_like_a_short_one():
    """Of thousands of characters a few dozen are distinct, in any good text."""
    lines = pretraining_text(0)
    for language in (True, False):
        page = "\n".join(line for line in lines if line.isascii() == language)
        assert len(page) > 3000
        assert broken(page) == ""
        assert broken(page[:2000] + "\n| a | b |\n|---|---|\n| 1 | 2 |\n" + "ok\ufffd\ufffd") == ""
        assert broken("|".join(page)) == "fragments between bars"
        assert broken(page.encode().decode("latin-1")) == ("" if language else "mojibake")
    assert broken("あいう" * 2000) == "one character repeated"


def test_everyday_text_is_not_broken():
    assert [line for line in pretraining_text(0) if broken(line)] == []


def test_the_odd_one_out_is_named_with_its_feature():
    rows = [line for line in pretraining_text(0) if line.isascii()]
    table = np.array([features(text) for text in [*rows, "Zm9vYmFyYmF6cXV4" * 6]])

    def values(some, places):
        return table[np.ix_(some, places)]

    reasons = odd(np.arange(len(table)), values, 0.02, 8.0, 0)
    assert reasons[len(rows)].startswith("odd ")
    assert len(reasons) <= 3
    assert odd(np.array([len(rows)]), values, 0.02, 8.0, 0) == {}  # one row says nothing about what is odd


def test_features_have_their_names():
    assert len(features("Hello 世界 12")) == len(FEATURES)
