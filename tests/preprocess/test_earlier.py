"""Rows of an earlier artifact keep their splits, through the whole step."""

import pytest

from so8t import durable, records
from so8t.errors import InputError
from so8t.preprocess import earlier
from so8t.preprocess.config import EarlierSplits, Preprocess
from tests.preprocess import whole

FILES = ("train", "validation", "test", "labelled", "model_labelled")


def splits(folder):
    """By id."""
    return {row.id: row.split for name in FILES for row in records.iterate(folder / f"{name}.parquet")}


def test_rows_that_were_placed_stay_though_all_else_is_new(demo, tmp_path):
    """With another seed every free row is placed otherwise; rows that come later stand before and behind the old ones."""
    source = next((demo.path.parent.parent / "collect").iterdir())
    rows = [row for row in records.read(source / "records.parquet") if row.modality == "text" and not row.nsfw][::3]
    old = splits(demo.path)
    kept = [row for row in rows if row.id in old][:60]
    later = [
        row.with_(id=f"new{n}", prompt=f"{row.prompt} OK", source="az"[n % 2], group="") for n, row in enumerate(kept)
    ]
    collected = whole.collected([*rows, *later], tmp_path / "collected")
    config = Preprocess(seed=9, splits_of={"folder": demo.path})
    facts = whole.run(config, {"collected": collected}, tmp_path / "out")
    found = splits(tmp_path / "out")
    both = set(found) & set(old)
    assert len(both) > 300
    assert {name: found[name] for name in both} == {name: old[name] for name in both}
    assert {row.id for row in kept} <= both, "its copy goes, wherever that stands"
    gone = {row.id for row in records.iterate(tmp_path / "out" / "removed.parquet")}
    assert len([name for name in gone if name.startswith("new")]) >= 20
    card = durable.read_json(tmp_path / "out" / "data_card.json")
    assert card["placed_earlier"] == facts["placed_earlier"] == len(both)


def test_a_folder_that_was_exchanged_since_is_refused(demo):
    """Its splits would stand under the key of another artifact's."""
    with pytest.raises(InputError, match="now has the content"):
        earlier.read(EarlierSplits(folder=demo.path, content="0" * 64), None)


def test_it_counts_by_content_and_another_step_is_refused(demo):
    pinned = Preprocess(splits_of={"folder": demo.path}).pinned()
    assert pinned.splits_of
    assert pinned.splits_of.content == demo.content
    collected = next((demo.path.parent.parent / "collect").iterdir())
    for folder, content in ((collected, ""), (demo.path, "0" * 64), (demo.path / "none", "")):
        with pytest.raises(InputError, match="preprocess artifact"):
            EarlierSplits(folder=folder, content=content).pinned()
