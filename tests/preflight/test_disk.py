"""Room on the volumes: what the plan says, less what lies there, on real ones."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from so8t.config import load_config
from so8t.errors import ResourceError
from so8t.plan.disk import disk
from so8t.preflight import disk as room
from so8t.preflight.finding import GIB, demand
from so8t.preflight.look import LASTS
from so8t.preflight.scene import set_scene
from so8t.step import Ref
from tests.conftest import ROOT
from tests.test_bad_input import _mounted

MIB = 1 << 20
DEMO = ROOT / "configs" / "demo.yaml"


def scene_of(home, *overrides):
    return set_scene(load_config(DEMO, overrides, home), LASTS["pipeline"])


def sums(scene) -> dict[str, int]:
    return {one.what: one.size_bytes for one in room.demands(scene)}


def test_the_need_is_the_plan_s_and_grows_with_the_base(tmp_path):
    scene = scene_of(tmp_path)
    planned = disk(scene.shapes, scene.config.bake.quantizations, scene.config.base_types(), 5, 0)
    assert {name: size for name, size in sums(scene).items() if name in planned} == {
        name: size for name, size in planned.items() if name != "peak"
    }
    larger = scene_of(tmp_path, "base.hidden=512", "base.layers=8")
    assert sums(larger)["bake.fold"] > 4 * sums(scene)["bake.fold"]


def test_what_lies_there_is_not_needed_again(tmp_path):
    scene = scene_of(tmp_path)
    before = sums(scene)
    key = scene.left[Ref("collect.base")]
    assert key, "its inputs are there"
    partial = scene.store.root / "collect.base" / f"{key}.partial"
    partial.mkdir(parents=True)
    (partial / "half.safetensors").write_bytes(bytes(5 * MIB))
    after = sums(scene)
    assert before["collect.base"] - after["collect.base"] == 5 * MIB
    done = replace(scene, left={ref: key for ref, key in scene.left.items() if ref != Ref("collect.base")})
    assert sums(done)["collect.base"] == 0


def test_a_finished_run_needs_nothing(tmp_path):
    assert sum(sums(replace(scene_of(tmp_path), left={})).values()) == 0


def test_known_data_count_for_each_copy(tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_bytes(b" " * MIB)
    own = f"collect.sources=[{{kind: files, name: own, paths: ['{rows}'], licence: mit}}]"
    assert sums(scene_of(tmp_path, own))["data"] == room.DATA_COPIES * MIB
    assert sums(scene_of(tmp_path, own, "preflight.data_gib=1"))["data"] == room.DATA_COPIES * (MIB + GIB)


def test_rows_whose_number_nothing_tells_are_said_to_be_left_out(tmp_path):
    site = "sites: [{host: example.org}]"
    web = f"collect.sources=[{{kind: web, name: site, seeds: ['https://example.org/'], {site}, contact: a@b.org}}]"
    assert "not counted: the rows of site" in room.check(scene_of(tmp_path, web))[0].found


@pytest.mark.parametrize(("size", "state"), [("100m", "fail"), ("1g", "warn")])
def test_a_small_volume(tmp_path, size, state):
    with _mounted(tmp_path / "small", f"size={size}") as small:
        found, *others = room.check(scene_of(small / "home"))
        assert (found.state, found.check) == (state, "disk")
        assert str(small) in found.found
        assert others, "the temporary folder is on another volume"
        assert {other.state for other in others} <= {"ok", "warn"}
        if state == "fail":
            with pytest.raises(ResourceError, match="still needed"):
                demand([found])


def test_a_target_elsewhere_needs_its_room_there(tmp_path):
    with _mounted(tmp_path / "small", "size=10m") as small:
        found = room.check(scene_of(tmp_path / "home", f"upload.target={{kind: directory, path: '{small / 'out'}'}}"))
        assert [one.state for one in found if str(small) in one.found] == ["fail"]
        assert "upload" not in found[0].found


def test_room_is_what_the_system_says(tmp_path):
    before = shutil.disk_usage(tmp_path).free
    said = float(room.check(scene_of(tmp_path))[0].found.split()[0]) * GIB
    after = shutil.disk_usage(tmp_path).free
    # Others write meanwhile, and it is said in whole GiB.
    assert min(before, after) - GIB <= said <= max(before, after) + GIB


def test_a_drive_that_is_not_there_stops_a_run(tmp_path, monkeypatch):
    """No folder above the target exists, not even the last."""
    absent = (
        next(f"{letter}:/" for letter in "QRSTUVWXYZ" if not Path(f"{letter}:/").exists()) if os.name == "nt" else "/"
    )
    scene, asked = scene_of(tmp_path, f"upload.target={{kind: directory, path: '{absent}gone/out'}}"), []
    there = os.path.exists

    def exists(path):
        asked.append(path)
        assert len(asked) < 1000, "it asks for ever"
        return there(path) and str(path) != absent

    monkeypatch.setattr(os.path, "exists", exists)
    (found,) = [one for one in room.check(scene) if str(Path(absent, "gone", "out")) in one.found]
    assert (found.state, found.stops) == ("fail", True)
