"""A run that is submitted in the UI's form, in the moment in which the last key was pressed, while another run writes."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from deployments.register import register
from flows.pipeline import so8t_pipeline
from tests.browser.conftest import WAIT_MS, Site
from tests.crash.tree import Api
from tests.flows.conftest import client_of, until

TYPED = [11, 12, 13, 14, 15]
pytestmark = pytest.mark.soak
LINE = {"name": "so8t", "level": 20, "message": "at work", "timestamp": "2026-01-01T00:00:00Z"}


def test_each_submit_makes_a_run_with_what_was_typed(tmp_path, page):
    home, ended = tmp_path / "home", threading.Event()
    with client_of(home) as client, ThreadPoolExecutor() as pool:
        deployment = register(client, {so8t_pipeline.name: {}})[f"{so8t_pipeline.name}/so8t"]
        site = Site(home, page)
        site.log_in()
        writing = pool.submit(until, ended, lambda: Api(home).client.post("/logs/", json=[LINE]).status_code)
        try:
            for steps in TYPED:
                site.open(f"/deployments/deployment/{deployment}/run", "Parameters", "Pretraining steps.")
                page.get_by_label("Steps (Optional)").first.fill(str(steps))
                page.get_by_role("button", name="Submit").click()
                page.wait_for_url(lambda url: not url.endswith("/run"), timeout=WAIT_MS)
        finally:
            ended.set()
        assert set(writing.result()) == {201}
        runs = client.read_flow_runs()
    assert sorted(run.parameters["config"]["base"]["steps"] for run in runs) == TYPED
