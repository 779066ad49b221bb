"""The maps of preprocess give the same bytes in the flow's threads and on a local Dask cluster."""

import json
import sys

import pytest
from prefect import flow
from prefect.testing.utilities import prefect_test_harness

from so8t.artifacts import Store
from so8t.config import Config, check
from so8t.errors import InputError
from so8t.step import Ref, execute, parts_of, steps
from tasks.maps import mapped
from tests.preprocess.test_shards import rows

SOURCE = "mine"


@flow(name="shards")
def shards(config: Config):
    return mapped("preprocess.shard", config)


def prepared(home, runner: str) -> Config:
    """A home whose rows are collected; five shards."""
    home.mkdir()
    lines = []
    for row in rows():
        label = {"label": row.klass.name} if row.label >= 0 else {}
        lines.append(
            json.dumps({"id": row.id, "prompt": row.prompt, "language": row.language, "group": row.group, **label})
        )
    (home / "rows.jsonl").write_text("\n".join(lines), encoding="utf-8", newline="\n")
    source = {"kind": "files", "name": SOURCE, "paths": ["rows.jsonl"], "licence": "mit"}
    config = check(
        {
            "base": {"kind": "demo"}, "collect": {"sources": [source]},
            "preprocess": {"shard_rows": 50, "same_group": 0.8, "near_duplicate": 0.9},
            "machine": {"home": str(home / "home"), "task_runner": runner},
            "recovery": {"retries": 0},
        },
        "test", home,
    )  # fmt: skip
    for ref in (Ref("collect.source", SOURCE), Ref("collect")):
        execute(ref, config, Store(config.home()))
    return config


def contents(config: Config) -> list[str]:
    """Of every shard, and of what they are joined to."""
    store = Store(config.home())
    parts = parts_of(steps()["preprocess.shard"], config, store)
    assert len(parts) == 5
    found = [execute(Ref("preprocess.shard", part), config, store) for part in parts]
    return [artifact.content for artifact in [*found, execute(Ref("preprocess"), config, store)]]


@pytest.mark.soak
def test_threads_and_dask_make_the_same_bytes(tmp_path):
    pytest.importorskip("prefect_dask")
    found = []
    with prefect_test_harness(server_startup_timeout=180):
        for runner in ("threads", "dask"):
            config = prepared(tmp_path / runner, runner)
            made = shards(config)
            assert [reference["cached"] for reference in made] == [False] * 5
            assert {reference["step"] for reference in made} == {"preprocess.shard"}
            found.append(contents(config))
    assert found[0] == found[1]


def test_without_dask_it_says_what_to_install(tmp_path, monkeypatch):
    config = prepared(tmp_path / "dask", "dask")
    monkeypatch.setitem(sys.modules, "prefect_dask", None)
    with pytest.raises(InputError, match=r"so8t\[dask\]"):
        mapped("preprocess.shard", config)
