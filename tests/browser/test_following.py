"""An open page of an artifact follows what it shows, without a reload and without losing the place that is read."""

import base64
import io

import pytest
from PIL import Image
from prefect.client.schemas.actions import ArtifactCreate

from tasks.updates import update_in_place
from tests.browser.conftest import WAIT_MS, Site
from tests.flows.conftest import client_of

pytestmark = pytest.mark.soak
SIDE = 40
LONG = "\n\n".join(f"line {number}" for number in range(200))


def text(colour, said):
    out = io.BytesIO()
    Image.new("RGB", (SIDE, SIDE), colour).save(out, "PNG")
    data = base64.b64encode(out.getvalue()).decode("ascii")
    return f"# {said}\n\n![curves.png](data:image/png;base64,{data})\n\n{LONG}\n\nthe end of {said}\n"


def test_an_open_page_shows_the_next_picture_by_itself(tmp_path, page):
    with client_of(tmp_path / "home") as client:
        made = ArtifactCreate(key="followed", type="markdown", data=text("red", "first"))
        artifact = client.create_artifact(made).id
        site = Site(tmp_path / "home", page)
        site.log_in()
        site.open(f"/artifacts/artifact/{artifact}", "the end of first")
        assert site.picture("curves.png") == (SIDE, SIDE)
        assert site.colour("curves.png") == [255, 0, 0]
        page.evaluate("window.opened = 'once'")
        page.get_by_text("line 150", exact=True).scroll_into_view_if_needed()
        at = page.get_by_text("line 150", exact=True).bounding_box()["y"]
        update_in_place(artifact, data=text("blue", "second"))
        page.get_by_text("the end of second").wait_for(timeout=WAIT_MS)
        assert site.colour("curves.png") == [0, 0, 255]
        assert page.evaluate("window.opened") == "once"
        assert page.get_by_text("line 150", exact=True).bounding_box()["y"] == pytest.approx(at, abs=2)
        assert site.left == []
