"""Broken and odd text, and ordinary text that must stay."""

import numpy as np
import pytest

from so8t.collect.demo.text import pretraining_text
from so8t.preprocess import joins
from so8t.preprocess.config import Preprocess
from so8t.preprocess.quality import FEATURES, broken, features, odd
from so8t.records import Record
from tests.preprocess.whole import indexed


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

    source_N = np.zeros(len(table), int)
    reasons = odd(np.arange(len(table)), source_N, values, 0.02, 8.0, 0)
    assert reasons[len(rows)].startswith("odd ")
    assert len(reasons) <= 3
    assert odd(np.array([len(rows)]), source_N, values, 0.02, 8.0, 0) == {}  # one row says nothing about what is odd


def prose(words: int, seed: int) -> str:
    known = sorted({word for line in pretraining_text(0) if line.isascii() for word in line.split()})
    return " ".join(np.random.default_rng(seed).choice(known, words))


def test_no_source_goes_for_being_unlike_the_others(tmp_path):
    """Ten long pages among 200 short prompts, and a site of its own kind within a crawl; what is odd among its like goes."""
    texts = [("talk", prose(6, n)) for n in range(200)] + [
        ("talk", "Who is the " + "incomprehensibility" * 20 + " of them?")
    ]
    texts += [("pages", prose(400, 1000 + n)) for n in range(10)]
    texts += [(f"https://host{n % 12}.example", prose(60, 2000 + n)) for n in range(60)]
    texts += [("https://lists.example", "\n".join(f"{n}{m}: {prose(1, m)}" * 20 for m in range(20))) for n in range(6)]
    rows = [Record(f"r{n}", "text", "en", text, source=s, file="f", row=n) for n, (s, text) in enumerate(texts)]
    index = indexed(sorted(rows, key=lambda row: (row.source, row.row)), tmp_path)
    joins.join(index, Preprocess(quality_worst=0.06), lambda _: None)
    gone = [r for r in range(len(rows)) if index.reasons.text(r, index.ids).startswith("odd ")]
    source_N = [next(r.source for r in rows if r.id == index.ids[row]) for row in gone]
    assert "r200" in [index.ids[row] for row in gone]
    assert "pages" not in source_N
    assert source_N.count("https://lists.example") == 1


def test_features_have_their_names():
    assert len(features("Hello 世界 12")) == len(FEATURES)
