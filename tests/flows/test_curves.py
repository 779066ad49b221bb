"""A training's curves and samples in a real server, from its logs."""

import base64
import io
import json

import pytest
from PIL import Image
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

from so8t.progress import log_of
from so8t.step import Ref
from tasks.curves import PrefectCurves
from tasks.pace import INTERVAL_MIN_S, SHARE_MAX, Pace
from tasks.show import PrefectProgress, show_facts
from tests.bake.conftest import artifact

SESSION = "train-0123456789ab"


def log(home, kind, *lines):
    path = log_of(home, SESSION, kind)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8", newline="\n") as file:
        file.write("".join(json.dumps(line) + "\n" for line in lines))


def shown(world):
    wanted = ArtifactFilter(key=ArtifactFilterKey(like_="drawn-%"))
    return {one.key: one for one in world.client.read_artifacts(artifact_filter=wanted)}


def test_curves_and_samples_appear_once_and_follow_the_logs(world):
    curves = PrefectCurves(world.home, SESSION, "drawn", 0.0)
    curves.show()
    log(world.home, "", {"phase": "warmup", "step": 0, "loss": 3.0})
    curves.show()
    # A line needs two points.
    assert shown(world) == {}
    log(world.home, "", {"phase": "warmup", "step": 9, "loss": 1.0})
    sample = {"id": "a", "phase": "warmup", "step": 9, "prompt": "Why?", "wanted": "<final>So.</final>"}
    log(world.home, "samples", {**sample, "reply": "no"})
    curves.show()
    first = shown(world)
    assert {key: one.type for key, one in first.items()} == dict.fromkeys(["drawn-curves", "drawn-samples"], "markdown")
    kind, _, data = first["drawn-curves"].data.partition(",")
    assert kind == "![curves](data:image/png;base64"
    assert Image.open(io.BytesIO(base64.b64decode(data.removesuffix(")")))).width > 500
    log(world.home, "", {"phase": "warmup", "step": 19, "loss": 0.5})
    log(world.home, "samples", {**sample, "step": 19, "reply": "yes, <final>so"})
    # Too soon for another look, unless it is asked for.
    curves.report("train", 1, 2, "", {})
    assert shown(world)["drawn-curves"].data == first["drawn-curves"].data
    curves.show()
    then = shown(world)
    assert {key: one.id for key, one in then.items()} == {key: one.id for key, one in first.items()}
    assert then["drawn-curves"].data != first["drawn-curves"].data
    assert "    yes, <final>so" in then["drawn-samples"].data
    assert "    no" not in then["drawn-samples"].data


def test_what_is_dear_to_draw_is_drawn_more_rarely(monkeypatch):
    spent = iter([0.0, 0.1, 5.0, 7.0])
    monkeypatch.setattr("tasks.pace.time.thread_time", lambda: next(spent))
    pace, pauses = Pace(40.0), []
    for _ in range(2):
        with pace.measured():
            pass
        pauses.append(pace.pause_s)
    assert pauses == [40.0, pytest.approx(2.0 / SHARE_MAX)]
    assert Pace(1.0).pause_s == INTERVAL_MIN_S


def test_a_progress_has_few_digits_a_time_left_and_an_end(world, monkeypatch):
    monkeypatch.setattr("tasks.show.INTERVAL_MIN_S", 0.0)
    progress = PrefectProgress("drawn", 0.0)
    progress.end("done before anything was shown")
    progress.report("drawn", 10, 30, "m", {})
    assert shown(world)["drawn-progress"].data == 33.3
    progress.report("drawn", 20, 30, "m", {"loss": 0.123456, "eta_s": 155.2})
    one = shown(world)["drawn-progress"]
    assert (one.data, one.description) == (66.7, "m, loss 0.1235, about 2 min 35 s left")
    progress.end("done in 3 s")
    one = shown(world)["drawn-progress"]
    assert (one.data, one.description) == (100.0, "done in 3 s")


def test_a_report_is_shown_with_its_pictures(world, tmp_path):
    out = io.BytesIO()
    Image.new("RGB", (4, 4), "red").save(out, "PNG")
    (tmp_path / "forest.png").write_bytes(out.getvalue())
    (tmp_path / "report.md").write_text("# 日本語\n\n![forest.png](forest.png) ![](absent.png)\n", encoding="utf-8")
    show_facts(Ref("drawn"), artifact(tmp_path, "drawn", n=3))
    text = shown(world)["drawn-report"].data
    assert text.startswith("# 日本語")
    encoded = text.split("base64,")[1].split(")")[0]
    drawn = Image.open(io.BytesIO(base64.b64decode(encoded)))
    assert drawn.size == (4, 4)
    assert drawn.convert("RGB").getpixel((1, 1)) == (255, 0, 0)
    assert "![](absent.png)" in text
