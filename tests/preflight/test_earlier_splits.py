"""What the look before a run says of rows that an earlier one has placed."""

from dataclasses import replace

from so8t.artifacts import Store
from so8t.config import load_config
from so8t.preflight import earlier_splits
from so8t.preflight.look import LASTS
from so8t.preflight.scene import set_scene
from tests.cleanup.made import artifact, days_ago
from tests.conftest import ROOT


def test_an_earlier_preprocess_is_named(tmp_path):
    def look(*overrides):
        config = load_config(ROOT / "configs" / "demo.yaml", [*overrides], tmp_path)
        return earlier_splits.check(set_scene(config, LASTS["pipeline"]))

    assert look() == []
    store = Store(tmp_path)
    for key, days in (("a" * 64, 3), ("b" * 64, 1), ("c" * 64, 2)):
        artifact(store, "preprocess", {"rows": key.encode()}, key=key, finished_at=days_ago(days))
    (found,) = look()
    newest = store.path("preprocess", "b" * 64)
    assert (found.state, found.do) == ("warn", f"to keep them set preprocess.splits_of.folder={newest}")
    (found,) = look(f"preprocess.splits_of.folder={newest}")
    assert (found.state, str(newest) in found.found) == ("ok", True)
    # Nothing is placed where the run's own is there.
    made = replace(set_scene(load_config(ROOT / "configs" / "demo.yaml", [], tmp_path), LASTS["pipeline"]), left={})
    assert earlier_splits.check(made) == []
