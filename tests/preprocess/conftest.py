"""The demo data, collected and preprocessed once."""

from pathlib import Path

import pytest

from so8t.artifacts import Store
from so8t.config import check
from so8t.step import Ref, execute

DEMO = [
    {"kind": "demo", "name": "digits", "set": "digits", "accept": ["cc-by-4.0"]},
    {"kind": "demo", "name": "tones", "set": "tones"},
    {"kind": "demo", "name": "prompts", "set": "prompts"},
]


def make(home: Path):
    """The preprocess artifact of the demo data under `home`."""
    config = check({"base": {"kind": "demo"}, "machine": {"home": str(home)}, "collect": {"sources": DEMO}}, "test")
    store = Store(home)
    for name in ("digits", "tones", "prompts"):
        execute(Ref("collect.source", name), config, store)
    execute(Ref("collect"), config, store)
    execute(Ref("preprocess.shard", "0"), config, store)
    return execute(Ref("preprocess"), config, store)


@pytest.fixture(scope="session")
def demo(tmp_path_factory):
    """The artifact."""
    return make(tmp_path_factory.mktemp("demo"))
