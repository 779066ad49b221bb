"""The exact search finds what comparing all with all finds, in any memory."""
# ruff: noqa: S311 - random texts, no secrets

import random
import tracemalloc
from itertools import combinations

import numpy as np
import pytest

from so8t.preprocess import exact, postings

BOUND = 0.5


@pytest.fixture(scope="module")
def texts():
    """Texts of all lengths with near copies and a common opening; some shorter than an n-gram."""
    draw = random.Random(4)
    made = [
        "".join(draw.choices("あいうえおかきくけこ日本語山川", k=draw.choice((2, 4, 30, 60, 90)))) for _ in range(150)
    ]
    made += [text[: len(text) * 3 // 4] + "".join(draw.choices("さしすせそ", k=len(text) // 5)) for text in made[:100]]
    made += ["この文の前半はどの行でも同じです。" + text[:12] for text in made[:40]]
    return made, np.array([draw.randrange(3) for _ in made], np.int8)


def all_with_all(keys, splits):
    found = {}
    for (i, a), (j, b) in combinations(enumerate(keys), 2):
        left, right = exact.grams(a), exact.grams(b)
        jaccard = len(left & right) / len(left | right)
        if jaccard >= BOUND and splits[i] != splits[j]:
            found[i, j] = jaccard
    return found


@pytest.fixture
def near(tmp_path):
    def found(keys, splits):
        some = exact.near(
            lambda: enumerate(keys), lambda rows: {int(r): keys[r] for r in rows}, splits, BOUND, tmp_path
        )
        return list(some)

    return found


def test_it_finds_what_comparing_all_with_all_finds(texts, near):
    wanted = all_with_all(*texts)
    assert len(wanted) >= 100
    assert [(i, j) for i, j, _ in near(*texts)] == sorted(wanted)
    assert {(i, j): jaccard for i, j, jaccard in near(*texts)} == pytest.approx(wanted)


@pytest.mark.parametrize(
    "change",
    [
        {"RUN": 50},
        {"PART": 20},
        {"RUN": 7, "RANGES": 2},
        {"PART": 1, "RANGES": 1 << 14},
        {"MEETINGS_HELD": 50},
        {"COUNTERS": 7},
        {"BLOCK": 3},
    ],
)
def test_little_memory_changes_nothing(texts, near, change, monkeypatch):
    whole = near(*texts)
    for name, value in change.items():
        monkeypatch.setattr(postings if hasattr(postings, name) else exact, name, value)
    assert near(*texts) == whole


def test_one_split_and_no_text_have_no_leak(texts, near):
    keys, splits = texts
    assert near(keys, np.zeros_like(splits)) == []
    assert near([], splits[:0]) == []


def test_equal_hashes_mean_equal_n_grams(texts):
    keys, _ = texts
    together = np.concatenate([exact.hashes(key) for key in keys])
    assert len(np.unique(together)) == len(set().union(*(exact.grams(key) for key in keys)))


def test_what_is_held_does_not_grow_with_the_rows(tmp_path, monkeypatch):
    """Between 1,000 and 4,000 texts of 60 characters; bytes a row, where postings in memory took 1,234 (now 41)."""
    sizes = {"RUN": 1 << 12, "PART": 1 << 12, "RANGES": 1 << 6}
    for name, value in sizes.items():
        monkeypatch.setattr(postings, name, value)
    monkeypatch.setattr(exact, "COUNTERS", 1 << 12)
    letters = np.random.default_rng(1).integers(0x4E00, 0x5400, (4000, 60)).astype("<u4")

    def key(row):
        return letters[row].tobytes().decode("utf-32-le")

    def peak(rows):
        splits = (np.arange(rows) % 3).astype(np.int8)
        tracemalloc.start()
        found = exact.near(
            lambda: ((row, key(row)) for row in range(rows)),
            lambda some: {int(r): key(r) for r in some},
            splits,
            BOUND,
            tmp_path,
        )
        assert list(found) == []
        held = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return held

    peak(10)  # imports
    assert (peak(4000) - peak(1000)) / 3000 < 100
    assert list(tmp_path.iterdir()) == []


def test_of_long_texts_few_n_grams_are_held():
    """61 kB are those of 400 characters."""
    letters = np.random.default_rng(1).integers(0x4E00, 0x5400, (300, 400)).astype("<u4")

    def some(rows):
        return {int(row): letters[row].tobytes().decode("utf-32-le") for row in rows}

    tracemalloc.start()
    assert list(exact._verified(np.arange(1, 300), some, 300, BOUND)) == []
    held = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert held < 10e6
