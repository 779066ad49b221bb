"""The second opinion on splits: it finds every leak that is there, by another way, and none that is not."""
# ruff: noqa: S311 - random texts, no secrets

import random
from itertools import combinations

import pytest

from so8t.preprocess import leaks, split
from so8t.preprocess.config import Preprocess
from tests.preprocess.test_duplicates import exact_jaccard, record, sentence

CONFIG = Preprocess()


@pytest.fixture(scope="module")
def leaky():
    """Rows split without knowing which are near."""
    rng = random.Random(5)
    base = [sentence(rng) for _ in range(60)]
    texts = base + [text + " again and again" for text in base[:40]]
    return split.assign([record(row, text) for row, text in enumerate(texts)], [], CONFIG)[0]


def brute_force(rows, threshold=0.5):
    return {
        (i, j): value
        for (i, a), (j, b) in combinations(enumerate(rows), 2)
        if a.split != b.split and (value := exact_jaccard(a.prompt, b.prompt)) >= threshold
    }


def test_every_leak_is_found(leaky):
    wanted = brute_force(leaky)
    assert len(wanted) >= 10
    found = list(leaks.near(leaky, 0.5, 1000))
    assert len(found) == len(wanted)
    assert {(a, b): value for a, b, value in found} == pytest.approx(wanted)


def test_after_removal_none_is_left(leaky):
    kept, removed = leaks.remove(leaky, 0.5, 1000)
    assert brute_force(kept) == {}
    assert len(kept) + len(removed) == len(leaky)
    assert all(r.row >= 40 and reason.startswith("leak, ") for r, reason in removed)


def test_equal_texts_are_found_without_a_limit(leaky):
    rows = [r.with_(prompt=leaky[0].prompt) if r.split != leaky[0].split else r for r in leaky]
    copies = sum(r.split != leaky[0].split for r in rows)
    kept, removed = leaks.remove(rows, 0.5, 0)
    assert len(removed) == copies > 5
    leaks.assert_apart(kept)


def test_a_limit_compares_fewer_rows(leaky):
    some = list(leaks.near(leaky, 0.5, 5))
    assert 0 < len(some) < len(brute_force(leaky))


@pytest.mark.parametrize("change", [{"group": "g"}, {"prompt": "Same, text!"}])
def test_what_is_shared_by_two_splits_is_refused(change):
    rows = [record(0, "same text").with_(split="train", group="g"), record(1, "other").with_(split="test", group="h")]
    leaks.assert_apart(rows)
    with pytest.raises(AssertionError, match="r0000 and r0001"):
        leaks.assert_apart([rows[0], rows[1].with_(**change)])


def test_one_picture_in_two_splits_is_refused():
    rows = [record(n, "").with_(modality="image", media=b"png", group=str(n)) for n in range(2)]
    with pytest.raises(AssertionError, match="say the same"):
        leaks.assert_apart([rows[0].with_(split="train"), rows[1].with_(split="test")])
