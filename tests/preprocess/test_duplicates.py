"""Duplicates and splits: exact checks, no dependence on order, no leak, nothing moves."""
# ruff: noqa: S311 - random texts, no secrets

import csv
import os
import random
from collections import Counter
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from so8t.preprocess import exact, joins, split
from so8t.preprocess.balance import balance
from so8t.preprocess.config import Preprocess
from so8t.preprocess.duplicates import EXACT, NEAR, Pair, drop, find_pairs
from so8t.preprocess.index import SPLITS
from so8t.preprocess.minhash import grams
from so8t.preprocess.normalise import compare_key, normal_form
from so8t.records import Record
from tests.preprocess.whole import indexed

NUMBER = count()
CONFIG = Preprocess()
WORDS = "map tree river stone cloud paper train garden window letter winter music bridge candle forest mirror".split()  # noqa: SIM905


def sentence(rng) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(14))


def record(row: int, prompt: str, label: int = 0, group: str = "") -> Record:
    return Record(f"r{row:04d}", "text", "en", prompt, label=label, group=group, source="s", file="f", row=row)


@pytest.fixture
def rows():
    rng = random.Random(3)
    base = [sentence(rng) for _ in range(120)]
    near = [text + " again" for text in base[:30]] + [text.upper() + "!" for text in base[30:50]]
    opposite = [record(200 + i, base[60 + i] + " now", label=3) for i in range(10)]
    return [record(i, text) for i, text in enumerate(base + near)] + opposite


def exact_jaccard(a: str, b: str) -> float:
    a, b = compare_key(a), compare_key(b)
    left, right = ({t[i : i + 5] for i in range(max(1, len(t) - 4))} for t in (a, b))
    return len(left & right) / len(left | right)


def cleaned(rows, folder, earlier=()):
    """(split and group of each row that is kept, rows that link two splits), by id. `earlier`: what this gave for others."""
    index = indexed(rows, folder / str(next(NUMBER)))
    for name, (where, _) in dict(earlier).items():
        index.earlier_N[index.ids.values.index(name).as_py()] = SPLITS.index(where)
    joins.place(index, joins.near_texts(index, CONFIG.same_group), [], CONFIG)
    kept = {
        index.ids[r]: (SPLITS[index.split_N[r]], index.ids[index.root_N[r]]) for r in np.flatnonzero(index.split_N >= 0)
    }
    reasons = {index.ids[r]: index.reasons.text(r, index.ids) for r in np.flatnonzero(index.reasons.given)}
    return kept, {name for name, reason in reasons.items() if reason == split.CONFLICT}


def test_pairs_are_those_of_a_full_comparison(rows):
    found = {(p.first, p.second): p.jaccard for p in find_pairs([r.prompt for r in rows], 0.7, 0)}
    wanted = {
        (i, j): value
        for j in range(len(rows))
        for i in range(j)
        if (value := exact_jaccard(rows[i].prompt, rows[j].prompt)) >= 0.7
    }
    assert found == pytest.approx(wanted)
    assert len(wanted) >= 60


def test_the_survivors_do_not_depend_on_the_order(rows, tmp_path):
    first = cleaned(rows, tmp_path)
    for seed in range(2):
        shuffled = list(rows)
        random.Random(seed).shuffle(shuffled)
        assert cleaned(shuffled, tmp_path) == first
    assert len(first[0]) == 130  # 50 copies go, the opposite labels stay


def test_opposite_labels_are_kept_in_one_group(rows, tmp_path):
    kept = cleaned(rows, tmp_path)[0]
    for i in range(10):
        assert kept[f"r{200 + i:04d}"] == kept[f"r{60 + i:04d}"]


def test_a_near_copy_with_an_opposite_of_its_own_is_kept():
    """Minimal pairs: B is near A, and both have an opposite; without B its opposite would stand alone."""
    labels = np.array([0, 3, 0, 3, 0, 0])
    pairs = [Pair(0, 1, 0.6), Pair(0, 2, 0.8), Pair(1, 3, 0.9), Pair(2, 3, 0.55), Pair(1, 4, 0.6), Pair(4, 5, 1.0)]
    pairs.append(Pair(1, 5, 0.6))
    assert drop(labels, pairs, 0.7) == {5: (EXACT, 4)}
    assert drop(labels, pairs[1:3], 0.7) == {2: (NEAR, 0), 3: (NEAR, 1)}
    unknown = np.array([0, -1, 0, -1])
    assert set(drop(unknown, pairs[:4], 0.7)) == {2, 3}, "a class that nobody gave is no opposite"


def test_no_group_and_no_near_pair_lies_in_two_splits(rows, tmp_path):
    rows = [r.with_(group=f"g{r.row % 40}") if r.row < 80 else r for r in rows]
    kept, _ = cleaned(rows, tmp_path)
    where: dict[str, set[str]] = {}
    for name, group in kept.values():
        where.setdefault(group, set()).add(name)
    assert all(len(splits) == 1 for splits in where.values())
    left = [r for r in rows if r.id in kept]
    for pair in find_pairs([r.prompt for r in left], CONFIG.same_group, 1):
        assert kept[left[pair.first].id][0] == kept[left[pair.second].id][0]
    assert {name for name, _ in kept.values()} == {"train", "validation", "test"}


@pytest.mark.parametrize("source", ["z", "a"])
def test_rows_that_come_later_move_nothing_wherever_they_stand(rows, source, tmp_path):
    """Behind or before all others; some link two rows, some say what an old row says."""
    rng = random.Random(9)
    before, none = cleaned(rows, tmp_path)
    more = [record(1000 + i, sentence(rng)) for i in range(20)]
    more += [record(1100 + i, rows[i].prompt + " " + rows[i + 1].prompt, label=2) for i in range(40)]  # link two
    more += [record(1200 + i, rows[i].prompt + " again") for i in range(30, 60)]  # near copies
    more = [row.with_(source=source) for row in more]
    after, dropped = cleaned(rows + more, tmp_path, before)
    assert {name: after[name][0] for name in before} == {name: place[0] for name, place in before.items()}
    assert none == set()
    assert dropped
    assert all(name >= "r1000" for name in dropped)
    free, lost = cleaned(rows + more, tmp_path)
    assert lost == set(), "placed anew, no row has to go"
    assert any(free[name][0] != place[0] for name, place in before.items() if name in free)


def test_rows_that_link_nothing_move_nothing_of_themselves(rows, tmp_path):
    rng = random.Random(9)
    more = [record(1000 + i, sentence(rng)).with_(source=source) for source in "az" for i in range(20)]
    before, after = (cleaned(some, tmp_path)[0] for some in (rows, rows + more))
    assert {name: after[name][0] for name in before} == {name: place[0] for name, place in before.items()}


def test_a_later_row_that_links_two_splits_goes(tmp_path):
    """And where all came at once, all three are one group."""
    rng = random.Random(0)
    pool = [record(i, sentence(rng)) for i in range(40)]
    placed = cleaned(pool, tmp_path)[0]
    train, test = (next(r for r in pool if placed[r.id][0] == name) for name in ("train", "test"))
    first, second = sorted((train, test), key=lambda r: r.row)
    index = indexed([first, second, record(99, "near both", label=3)], tmp_path / "three")
    pairs = [Pair(0, 2, 0.6), Pair(1, 2, 0.6)]
    split.assign(index, pairs, CONFIG)
    assert index.split_N.tolist() == [SPLITS.index(placed[first.id][0])] * 3
    assert index.root_N.tolist() == [0, 0, 0]
    index.earlier_N[:2] = [SPLITS.index(placed[row.id][0]) for row in (first, second)]
    split.assign(index, pairs, CONFIG)
    assert [index.reasons.text(row, index.ids) for row in range(3)] == ["", "", split.CONFLICT]
    assert [SPLITS[place] for place in index.split_N[:2]] == [placed[first.id][0], placed[second.id][0]]
    assert index.root_N.tolist() == [0, 1, -1]


def test_what_a_lost_row_held_together_stays_with_what_it_is_linked_to(tmp_path):
    """Rows 2 to 6 come later: 2 would link a train and a test row, and declares the group of 3 and 4; 5 hangs on 1, 6 on 5."""
    texts = ["north", "south", "bridge", "one of a kind", "another one", "near the south", "near the near"]
    rows = [record(n, text, label=n % 4, group="g" if n in (2, 3, 4) else "") for n, text in enumerate(texts)]
    index = indexed(rows, tmp_path)
    index.earlier_N[:2] = [SPLITS.index("train"), SPLITS.index("test")]
    pairs = [Pair(0, 2, 0.6), Pair(1, 2, 0.6), Pair(2, 5, 0.6), Pair(1, 5, 0.6), Pair(5, 6, 0.6), Pair(0, 3, 0.6)]
    split.assign(index, pairs, CONFIG)
    train, test = SPLITS.index("train"), SPLITS.index("test")
    assert index.split_N.tolist() == [train, test, -1, train, train, test, test]
    assert index.root_N.tolist() == [0, 1, -1, 0, 0, 1, 1]


def test_a_group_declared_of_rows_in_two_splits_stays_in_one(tmp_path):
    """Row 2 came later, 0 and 1 and 3 did not; without row 1 the rest is one group."""
    rows = [record(n, text, group="g") for n, text in enumerate(("north", "south", "bridge", "river"))]
    index = indexed(rows, tmp_path)
    train, test = SPLITS.index("train"), SPLITS.index("test")
    index.earlier_N[:] = [train, test, -1, train]
    for _ in range(2):
        split.assign(index, [], CONFIG)
        assert index.split_N.tolist() == [train, -1, train, train]
        assert index.root_N.tolist() == [0, -1, 0, 0]
    assert [index.reasons.text(row, index.ids) for row in range(4)] == ["", split.CONFLICT, "", ""]


def test_shares_of_the_hash():
    places = [split.place(str(i), 0, 0.15, 0.25) for i in range(4000)]
    assert places.count("test") / 4000 == pytest.approx(0.25, abs=0.02)
    assert places.count("validation") / 4000 == pytest.approx(0.15, abs=0.02)


def test_normal_form_joins_what_looks_alike():
    assert normal_form("ＡＢＣ\u200b　ｶﾞ") == "abc ガ"
    assert normal_form("０３ー１２") == "03-12"
    assert normal_form("コーヒー") == "コーヒー"
    assert len({normal_form(f"1{dash}2") for dash in "‐‑‒–—―−-"}) == 1
    assert compare_key("今日は、晴れ!") == compare_key("今日は 晴れ。")
    assert len(grams("ab")) == 1


REAL = Path(os.environ.get("SO8T_REALDATA", "")) / "jcommonsensemorality"


@pytest.mark.realdata
@pytest.mark.skipif(not REAL.is_dir(), reason="SO8T_REALDATA names no folder with jcommonsensemorality")
def test_real_minimal_pairs_of_opposite_classes_are_kept_and_grouped(tmp_path):
    rows = []
    for part in ("train", "val", "test"):
        with (REAL / f"data_{part}.csv").open(encoding="utf-8-sig", newline="") as file:
            rows += [
                Record(
                    f"{part}{n}", "text", "ja", row["sent"], label=3 * int(row["label"]), source="s", file=part, row=n
                )
                for n, row in enumerate(csv.DictReader(file))
            ]
    index, before = indexed(rows, tmp_path / "all"), indexed([r for r in rows if r.file != "test"], tmp_path / "first")
    for each in (before, index):
        joins.join(each, CONFIG, lambda _: None)
        # Every pair, by another way than the one that made the groups: as if each row had a split of its own.
        keys = dict(each.texts(np.arange(each.rows)))
        near = exact.near(keys.items, lambda rows, keys=keys: keys, np.arange(each.rows), CONFIG.same_group)
        opposite = [pair[:2] for pair in near if each.label_N[pair[0]] != each.label_N[pair[1]]]
        assert len(opposite) >= 1800
        assert not [pair for pair in opposite for row in pair if each.split_N[row] < 0]
        assert all(each.root_N[one] == each.root_N[other] for one, other in opposite)
        distance = balance({s: Counter(each.label_N[each.split_N == n].tolist()) for n, s in enumerate(SPLITS)})
        print(f"{len(opposite)} pairs, classes {distance['largest_deviation']:+.4f} from even")  # noqa: T201
    again = indexed(rows, tmp_path / "again")  # the file "test" comes later, and stands before the others
    place_of = dict(zip(before.ids.values.to_pylist(), before.split_N.tolist(), strict=True))
    again.earlier_N[:] = [place_of.get(again.ids[row], -1) for row in range(again.rows)]
    joins.join(again, CONFIG, lambda _: None)
    old = again.earlier_N >= 0
    assert old.sum() > 15_000
    assert (again.split_N[old] == again.earlier_N[old]).all()
    gone = Counter(again.reasons.text(row, again.ids).partition(" of ")[0] for row in np.flatnonzero(again.split_N < 0))
    print(f"of {again.rows} rows, {old.sum()} placed before, went {dict(gone)}")  # noqa: T201
