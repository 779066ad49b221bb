"""The second opinion on splits: it finds every leak that is there, by another way, and none that is not."""
# ruff: noqa: S311 - random texts, no secrets

import random
import tracemalloc
from itertools import combinations

import numpy as np
import pytest

from so8t.preprocess import leaks, split
from so8t.preprocess.config import Preprocess
from so8t.preprocess.duplicates import Pair
from so8t.preprocess.index import NONE, SPLITS
from tests.preprocess.test_duplicates import exact_jaccard, record, sentence
from tests.preprocess.whole import indexed

CONFIG = Preprocess()


def leaky():
    """Rows that hold near ones."""
    rng = random.Random(5)
    base = [sentence(rng) for _ in range(60)]
    texts = base + [text + " again and again" for text in base[:40]]
    return [record(row, text) for row, text in enumerate(texts)]


@pytest.fixture
def index(tmp_path):
    """Split without knowing which are near."""
    made = indexed(leaky(), tmp_path)
    split.assign(made, [], CONFIG)
    return made


def brute_force(index, threshold=0.5):
    rows = [(row, text) for row, text in enumerate(leaky()) if index.split_N[row] != NONE]
    return {
        (i, j): value
        for (i, a), (j, b) in combinations(rows, 2)
        if index.split_N[i] != index.split_N[j] and (value := exact_jaccard(a.prompt, b.prompt)) >= threshold
    }


def test_every_leak_is_found_and_after_removal_none_is_left(index):
    wanted = brute_force(index)
    assert len(wanted) >= 10
    found = list(leaks.near(index, 0.5))
    assert len(found) == len(wanted)
    assert {(a, b): value for a, b, value in found} == pytest.approx(wanted)
    leaks.remove(index, 0.5)
    assert brute_force(index) == {}
    gone = np.flatnonzero(index.reasons.given)
    assert gone.min() >= 40
    assert all(index.reasons.text(row, index.ids).startswith("leak, Jaccard") for row in gone)
    assert " with r00" in index.reasons.text(gone[0], index.ids)


def test_where_rows_may_be_placed_again_no_row_goes(index):
    """What MinHash had missed makes groups, and their rows stay."""
    pairs = []

    def regroup(found):
        pairs.extend(Pair(*leak) for leak in found)
        split.assign(index, pairs, CONFIG)

    leaks.remove(index, 0.5, regroup)
    assert len(pairs) >= 10
    assert (index.split_N != NONE).all()
    assert brute_force(index) == {}
    assert all(index.root_N[pair.first] == index.root_N[pair.second] for pair in pairs)


def test_groups_are_their_first_rows_in_few_bytes():
    """Beside what numpy alone says; 32 bytes a row were taken by np.unique."""
    rows, draw = 50_000, np.random.default_rng(0)
    links = draw.integers(0, rows, (rows // 4, 2)).astype(np.int32)
    split._roots(2, links[:0])  # imports
    tracemalloc.start()
    roots = split._roots(rows, links)
    held = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (roots[links[:, 0]] == roots[links[:, 1]]).all()
    assert (roots[roots] == roots).all()
    assert (roots <= np.arange(rows)).all()
    assert held / rows < 24


def test_equal_texts_are_found_however_many(index, tmp_path):
    rows = leaky()
    other = index.split_N != index.split_N[0]
    same = indexed([r.with_(prompt=rows[0].prompt) if other[r.row] else r for r in rows], tmp_path / "same")
    same.split_N[:], same.root_N[:] = index.split_N, np.arange(len(rows))
    leaks.remove(same, 0.5)
    assert (same.split_N == NONE).sum() == other.sum() > 5
    leaks.assert_apart(same)


@pytest.mark.parametrize(("second", "root"), [("Same, text!", 1), ("other", 0)])
def test_what_is_shared_by_two_splits_is_refused(second, root, tmp_path):
    index = indexed([record(0, "same text"), record(1, second)], tmp_path)
    index.split_N[:], index.root_N[:] = (SPLITS.index("train"), SPLITS.index("test")), (0, root)
    with pytest.raises(AssertionError, match="r0000 and r0001"):
        leaks.assert_apart(index)
    index.split_N[:] = SPLITS.index("train")
    leaks.assert_apart(index)


def test_one_picture_in_two_splits_is_refused(tmp_path):
    rows = [record(n, "").with_(modality="image", media=b"png") for n in range(2)]
    index = indexed(rows, tmp_path)
    index.split_N[:], index.root_N[:] = (0, 1), (0, 1)
    with pytest.raises(AssertionError, match="say the same"):
        leaks.assert_apart(index)
