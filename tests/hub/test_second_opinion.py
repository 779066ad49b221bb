"""The JavaScript client finds the test Hub to be a Hub, and in it what the Python client published.

Needs node, and @huggingface/hub below the node_modules folder that SO8T_NODE_MODULES names.
"""

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path

import huggingface_hub.constants
import pytest

from so8t.upload.config import HubTarget, Upload
from tests.hub import WRITE_TOKEN, HubServer
from tests.upload.made import load_inputs, make_inputs, publish

MODULES = os.environ.get("SO8T_NODE_MODULES", "")
SCRIPT = Path(__file__).with_name("second_opinion.cjs")
pytestmark = [
    pytest.mark.oracle,
    pytest.mark.skipif(not (MODULES and shutil.which("node")), reason="needs node and SO8T_NODE_MODULES"),
]
REPO = "tester/so8t"


def test_javascript_client_reads_and_writes_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", WRITE_TOKEN)  # the other client wants one that begins with hf_
    home = tmp_path / "home"
    make_inputs(home)
    with HubServer(tmp_path / "hub", part_bytes=100_000, page_entries=7) as hub:
        hub.tokens["hf_javascript"] = "write"
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        artifact, _ = publish(home, load_inputs(home), Upload(target=HubTarget(kind="hub", repo_id=REPO)))
        done = subprocess.run(
            ["node", str(SCRIPT), hub.url, "hf_javascript", REPO], env={**os.environ, "NODE_PATH": MODULES},
            capture_output=True, text=True, encoding="utf-8", check=False, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        unknown = [request.path for request in hub.requests if request.route == "unknown"]
    assert unknown == []
    found = json.loads(done.stdout)
    assert found["name"] == "tester"
    listed = json.loads((artifact.path / "files.json").read_text(encoding="utf-8"))
    files = {path: file for path, file in found["read"]["files"].items() if path != ".gitattributes"}
    assert {path: file["sha256"] for path, file in files.items()} == {
        entry["path"]: entry["sha256"] for entry in listed
    }
    assert all(file["lfs"] in (None, file["sha256"]) for file in files.values())
    assert sum(file["lfs"] is not None for file in files.values()) > 5
    assert (found["read"]["private"], found["read"]["exists"], found["read"]["tensors"]) == (
        True,
        [True, False],
        ["weight"],
    )
    assert found["read"]["cardData"]["license"] == "mit"
    assert found["read"]["cardData"]["model-index"][0]["results"]
    check_written(hub, found["write"])
    assert found["refusals"] == [401, 409, 404]


def check_written(hub, written):
    repo = hub.repo("tester/from-js")
    large = bytes([7]) * 250_000
    assert written["sha256"] == hashlib.sha256(large).hexdigest()
    assert repo.private
    assert repo.branches["side"] != repo.branches["main"]
    assert set(repo.tree("side")) == {".gitattributes", "deep/er/model.safetensors"}
    assert repo.commits[repo.branches["side"]].parent == written["oid"]
    assert hub.store.path_of(repo.tree("side")["deep/er/model.safetensors"]).read_bytes() == large
    assert "日本語" in hub.store.read("models", "tester/from-js", "README.md", "refs/pr/1").decode()
    assert written["pull"].endswith("tester/from-js/discussions/1")
    assert set(repo.tree("main")) == {".gitattributes"}
    assert written["titles"] == ["From JS"]
    assert written["slug"] in hub.store.collections
