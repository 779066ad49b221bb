"""Duplicates and splits: exact checks, no dependence on order, no leak, nothing moves."""
# ruff: noqa: S311 - random texts, no secrets

import csv
import os
import random
from pathlib import Path

import pytest

from so8t.preprocess import split
from so8t.preprocess.config import Preprocess
from so8t.preprocess.duplicates import Pair, drop, find_pairs
from so8t.preprocess.minhash import grams
from so8t.preprocess.normalise import compare_key, normal_form
from so8t.records import Record

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


def cleaned(rows):
    ordered = split.canonical(rows)
    pairs = find_pairs([r.prompt for r in ordered], CONFIG.same_group, 0)
    dropped = drop(ordered, pairs, CONFIG.near_duplicate)
    keep = [i for i in range(len(ordered)) if i not in dropped]
    left = [ordered[i] for i in keep]
    return split.assign(left, find_pairs([r.prompt for r in left], CONFIG.same_group, 0), CONFIG)


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


def test_the_survivors_do_not_depend_on_the_order(rows):
    first = cleaned(rows)
    for seed in range(3):
        shuffled = list(rows)
        random.Random(seed).shuffle(shuffled)
        assert cleaned(shuffled) == first
    assert len(first[0]) == 130  # 50 copies go, the opposite labels stay


def test_opposite_labels_are_kept_in_one_group(rows):
    kept = {r.id: r for r in cleaned(rows)[0]}
    for i in range(10):
        assert kept[f"r{200 + i:04d}"].group == kept[f"r{60 + i:04d}"].group
        assert kept[f"r{200 + i:04d}"].split == kept[f"r{60 + i:04d}"].split


def test_a_near_copy_with_an_opposite_of_its_own_is_kept():
    """Minimal pairs: B is near A, and both have an opposite; without B its opposite would stand alone."""
    rows = [
        record(0, "a", 0),
        record(1, "b", 3),
        record(2, "c", 0),
        record(3, "d", 3),
        record(4, "E!", 0),
        record(5, "e", 0),
    ]
    pairs = [Pair(0, 1, 0.6), Pair(0, 2, 0.8), Pair(1, 3, 0.9), Pair(2, 3, 0.55), Pair(1, 4, 0.6), Pair(4, 5, 1.0)]
    pairs.append(Pair(1, 5, 0.6))
    assert drop(rows, pairs, 0.7) == {5: "exact duplicate of r0004"}
    assert drop(rows, pairs[1:3], 0.7) == {2: "near duplicate of r0000", 3: "near duplicate of r0001"}
    unknown = [rows[0], rows[1].with_(label=-1), rows[2], rows[3].with_(label=-1)]
    assert set(drop(unknown, pairs[:4], 0.7)) == {2, 3}, "a class that nobody gave is no opposite"


def test_no_group_and_no_near_pair_lies_in_two_splits(rows):
    kept, _ = cleaned([r.with_(group=f"g{r.row % 40}") if r.row < 80 else r for r in rows])
    where: dict[str, set[str]] = {}
    for r in kept:
        where.setdefault(r.group, set()).add(r.split)
    assert all(len(splits) == 1 for splits in where.values())
    for pair in find_pairs([r.prompt for r in kept], CONFIG.same_group, 1):
        assert kept[pair.first].split == kept[pair.second].split
    assert {r.split for r in kept} == {"train", "validation", "test"}


def test_appended_rows_move_nothing(rows):
    rng = random.Random(9)
    before = {r.id: (r.split, r.group) for r in cleaned(rows)[0]}
    more = [record(1000 + i, sentence(rng)) for i in range(40)]
    more += [record(1100 + i, rows[i].prompt + " " + rows[i + 1].prompt, label=2) for i in range(40)]  # link two
    after, dropped = cleaned(rows + more)
    splits = {r.id: r.split for r in after}
    assert all(splits[name] == place[0] for name, place in before.items())
    assert all(r.row >= 1000 for r in dropped)


def test_a_row_that_links_two_splits_is_dropped():
    rng = random.Random(0)
    pool = [record(i, sentence(rng)) for i in range(40)]
    placed, _ = split.assign(pool, [], CONFIG)
    train, test = (next(r for r in placed if r.split == name) for name in ("train", "test"))
    three = [pool[train.row], pool[test.row], record(99, "near both", label=3)]
    kept, dropped = split.assign(three, [Pair(0, 2, 0.6), Pair(1, 2, 0.6)], CONFIG)
    assert [r.id for r in dropped] == ["r0099"]
    assert [r.split for r in kept] == ["train", "test"]


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
def test_real_minimal_pairs_of_opposite_classes_are_kept_and_grouped():
    rows = []
    for part in ("train", "val", "test"):
        with (REAL / f"data_{part}.csv").open(encoding="utf-8-sig", newline="") as file:
            rows += [
                Record(
                    f"{part}{n}", "text", "ja", row["sent"], label=3 * int(row["label"]), source="s", file=part, row=n
                )
                for n, row in enumerate(csv.DictReader(file))
            ]
    ordered = split.canonical(rows)
    pairs = find_pairs([r.prompt for r in ordered], CONFIG.same_group, 0)
    opposite = [p for p in pairs if ordered[p.first].label != ordered[p.second].label]
    dropped = drop(ordered, pairs, CONFIG.near_duplicate)
    assert len(opposite) >= 2300
    assert not [pair for pair in opposite if pair.first in dropped or pair.second in dropped]
    place = {row: new for new, row in enumerate(row for row in range(len(ordered)) if row not in dropped)}
    left = [Pair(place[p.first], place[p.second], p.jaccard) for p in pairs if {p.first, p.second} <= place.keys()]
    kept, linking = split.assign([r for row, r in enumerate(ordered) if row not in dropped], left, CONFIG)
    where = {r.id: (r.group, r.split) for r in kept}
    ends = [(where.get(ordered[p.first].id), where.get(ordered[p.second].id)) for p in opposite]
    assert all(first == second for first, second in ends if first and second)
    assert sum(not (first and second) for first, second in ends) <= len(linking) <= 5
