"""What a person finds in the Prefect UI of a running and of a finished demo, by the words and pictures on the screen."""

import contextlib
import os
import re
import subprocess
import sys
import time

import pytest

from deployments.server import Server
from so8t import recoveries
from so8t.config import load_config
from so8t.session import sessions
from tests.browser.conftest import WAIT_MS, Site
from tests.conftest import ROOT

pytestmark = pytest.mark.soak
CONFIG = ROOT / "configs" / "smoke.yaml"
# Enough that the running training can be looked at.
LONGER = ["train.warmup.steps=60", "machine.progress_log_interval_s=1", "machine.server_port=0", "resume.auto=false"]
RUN_S, POLL_S = 1500, 1.0


@pytest.fixture(scope="module")
def running(tmp_path_factory, browser):
    """A `so8t run` in its training, and something that was recovered from."""
    home = tmp_path_factory.mktemp("browser") / "home"
    command = [sys.executable, "-m", "deployments.command", "run", "--config", str(CONFIG), "--home", str(home)]
    sets = [word for one in LONGER for word in ("--set", one)]
    with (home.parent / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, *sets], cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            env={**os.environ, "SO8T_NOTIFY_URLS": ""},
        )  # fmt: skip
        yield home, process
        if process.poll() is None:
            process.terminate()
        process.wait()


def until(process, look):
    deadline = time.monotonic() + RUN_S
    while not (found := look()):
        assert process.poll() is None, "the run ended first"
        assert time.monotonic() < deadline
        time.sleep(POLL_S)
    return found


def in_training(home):
    def look():
        logs = list((home / "progress_logs").glob("train-*[0-9a-f].jsonl"))
        return [log for log in logs if len(log.read_bytes().splitlines()) > 3]

    return look


def test_a_running_demo(running, page):
    home, process = running
    until(process, in_training(home))
    site = Site(home, page)
    site.log_in()
    overview = until(process, lambda: site.artifact("overview"))
    # From here on the page is never loaded again.
    site.open(f"/artifacts/artifact/{overview}", "Run: running")
    site.page.evaluate("window.opened = 'once'")
    until(process, lambda: site.page.get_by_alt_text("curves.png").count())
    # While the UI draws the newer page anew, it is empty for a moment.
    first = until(process, lambda: site.drawn("Training"))
    assert min(site.picture("curves.png")) > 200
    for text in ("Steps", "Training", "Checkpoints", "None: nothing went wrong", "preprocess"):
        assert text in first
    assert re.search(r"now train \d+ %", first)
    assert re.search(r"train\s+running", first)
    assert re.search(r"step \d+ of \d+, phase \w+, attempt 1", first)
    # Nothing of this home has run before.
    assert "time left of the run not known yet" in first
    site.shot("running-overview")
    drawn = site.picture_source("curves.png")

    run = next(one for one in sessions(home) if one.kind == "run")
    recoveries.record(
        home, run.session_id, step="train", fault="network", policy="waited for the network", outcome="went on"
    )

    def newer():
        text = site.page.locator("body").inner_text()
        return "waited for the network" in text and site.picture_source("curves.png") != drawn

    until(process, newer)
    assert min(site.picture("curves.png")) > 200
    assert site.page.evaluate("window.opened") == "once"
    site.shot("running-overview-later")

    def told():
        # The server keeps events some seconds after it got them, and the feed shows the newest fifty.
        return "so8t.recovery.network" in site.open("/events", "Flow run")

    until(process, told)
    site.shot("running-events")
    text = site.open(f"/artifacts/artifact/{site.artifact('train-progress')}", "Progress:")
    # One digit behind the point, not all of them.
    assert re.search(r"Progress: \d+(\.\d)?%", text)
    site.shot("running-progress")
    curves = until(process, lambda: site.artifact("train-curves"))
    site.open(f"/artifacts/artifact/{curves}", "reward, KL, loss")
    assert min(site.picture("curves")) > 200
    (flow_run,) = site.ask("/flow_runs/filter")
    text = site.open(f"/runs/flow-run/{flow_run['id']}?tab=Artifacts", "overview")
    assert "Running" in text
    site.shot("running-run")
    assert site.left == []


def test_a_run_is_asked_for_in_a_form(running, page):
    home, process = running
    until(process, (home / "prefect" / "server.json").is_file)
    site = Site(home, page)
    site.log_in()

    def registered():
        found = {one["entrypoint"]: one["id"] for one in site.ask("/deployments/filter")}
        return found.get("flows.pipeline.so8t_pipeline")

    pipeline = until(process, registered)
    text = site.open(f"/deployments/deployment/{pipeline}?tab=Description", "Makes, proves and publishes")
    # Rendered: no marks of Markdown are left.
    assert "**" not in text
    assert "so8t status --watch" in text
    site.shot("description")
    text = site.open(f"/deployments/deployment/{pipeline}/run", "Parameters", "Learning Rate", "Pretraining steps.")
    for section in ("Collect", "Preprocess", "Train", "Bake", "Benchmark", "Upload", "Cleanup", "Machine"):
        assert re.search(rf"^{section}\b", text, re.MULTILINE)
    assert site.page.get_by_label("Steps (Optional)").first.input_value() == "4"
    site.shot("form")
    # The whole config is 43 screens long.
    assert site.page.evaluate("document.documentElement.scrollHeight") < 9000
    assert site.left == []


def test_a_finished_demo(running, page):
    home, process = running
    assert process.wait(RUN_S) == 0
    config = load_config(CONFIG, [*LONGER], home)
    with contextlib.ExitStack() as stack:
        stack.enter_context(Server(config, home / "logs" / "looked_at.log"))
        site = Site(home, page)
        site.log_in()
        text = site.open(f"/artifacts/artifact/{site.artifact('overview')}", "Run: completed", "Machine")
        steps = re.search(r"(\d+) of (\d+) steps and parts done", text)
        assert steps[1] == steps[2]
        assert re.search(r"final-\d+\s+\d+\s+\d\d-\d\d \d\d:\d\d:\d\d\s+\S+ [kM]B\s+verified\s+newest", text)
        gates = re.search(r"Gates: (\d+) of (\d+) passed", text)
        assert int(gates[2]) > 5
        assert gates[1] == gates[2]
        assert re.search(r"training, safety macro_f1: B against A: ", text)
        assert "waited for the network" in text
        assert min(site.picture("curves.png")) > 200
        assert min(site.picture("forest.png")) > 200
        site.shot("finished-overview")
        site.open(f"/artifacts/artifact/{site.artifact('bake-gates')}", "Gates", "measured")
        site.open(f"/artifacts/artifact/{site.artifact('benchmark-report')}", "Benchmark")
        assert min(site.picture("forest.png")) > 200
        site.shot("finished-report")
        text = site.open(f"/artifacts/artifact/{site.artifact('collect-facts')}", "refused_by_reason / ")
        # No cell holds a structure as Python writes it.
        assert "{'" not in text
        site.shot("finished-facts")
        # The older version, which a user may switch to.
        site.page.goto(f"{site.url}/artifacts/artifact/{site.artifact('overview')}")
        site.page.get_by_text("Run: completed").first.wait_for(timeout=WAIT_MS)
        assert min(site.picture("curves.png")) > 200
        assert site.left == []
