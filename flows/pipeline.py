"""The pipeline: collect -> preprocess -> train -> bake -> benchmark -> upload -> cleanup."""

from typing import Any

from prefect import flow

from so8t import child, fence
from so8t.attempt import recorded
from so8t.cli import DEFAULT_CONFIG
from so8t.config import Config, load_config
from so8t.errors import Interrupted
from so8t.wiring import BAKE, BASE, BENCHMARK, CLEANUP, COLLECT, FOLD, PREPROCESS, TRAIN, UPLOAD
from tasks.steps import Reference, gather, submit, submit_parts

DEMO = load_config(DEFAULT_CONFIG)


@flow(name="so8t-pipeline", persist_result=False, validate_parameters=True)
def so8t_pipeline(config: Config = DEMO) -> list[dict[str, Any]]:
    """Make, prove and publish a model; give a reference to each artifact in the order of the steps."""
    with recorded(config.home(), fence.current()) as made:
        try:
            _walk(config, made)
        except Interrupted as stop:
            # Prefect calls a run Failed by an Exception and Crashed by anything else; what crashed is resumed.
            raise KeyboardInterrupt(str(stop)) from stop
        finally:
            # Whatever ends the walk, a child that still works saves and stops before this process goes.
            child.stop_all()
    return list(made)


def _walk(config: Config, made: list[Reference]) -> None:
    base = submit(BASE, config)
    try:
        made += gather(submit_parts("collect.source", config))
        made += gather([submit(COLLECT, config)])
        made += gather([submit(PREPROCESS, config)])
    except Exception:
        base.wait()
        raise
    made += gather([base])
    made += gather(submit_parts("train.search", config))
    made += gather([submit(TRAIN, config)])
    made += gather([submit(FOLD, config)])
    made += gather(submit_parts("bake.quantize", config))
    made += gather([submit(BAKE, config)])
    made += gather(submit_parts("benchmark.cell", config))
    for step in (BENCHMARK, UPLOAD, CLEANUP):
        made += gather([submit(step, config)])
