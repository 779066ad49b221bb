"""The pipeline: collect -> preprocess -> train -> bake -> benchmark -> upload -> cleanup."""

from typing import Any

from prefect import flow

from so8t.cli import DEFAULT_CONFIG
from so8t.config import Config, load_config
from so8t.preflight.look import LASTS
from so8t.wiring import BAKE, BASE, BENCHMARK, CLEANUP, COLLECT, FOLD, FOUR_CLASS, PREPROCESS, TRAIN, UPLOAD
from tasks.maps import mapped
from tasks.preflight import looked_at
from tasks.run import remaking, walked
from tasks.steps import Reference, gather, submit, submit_parts

DEMO = load_config(DEFAULT_CONFIG)


@flow(name="so8t-pipeline", persist_result=False, validate_parameters=True)
def so8t_pipeline(config: Config = DEMO) -> list[dict[str, Any]]:
    """Make, prove and publish a model; give a reference to each artifact in the order of the steps."""
    with walked(config) as made:
        fitting = looked_at(config, LASTS["pipeline"])
        remaking(lambda: _walk(fitting, made), made)
    return list(made)


def data_and_base(config: Config, made: list[Reference]) -> None:
    """What every training needs; the base is fetched meanwhile."""
    base = submit(BASE, config)
    try:
        made += gather(submit_parts("collect.source", config))
        made += gather([submit(COLLECT, config)])
        if config.preprocess.classifier:
            gather([base])
        made += gather(submit_parts("preprocess.classes", config))
        made += gather(submit_parts("collect.questions", config))
        made += mapped("preprocess.shard", config)
        made += gather([submit(PREPROCESS, config)])
    except Exception:
        base.wait()
        raise
    made += gather([base])


def _walk(config: Config, made: list[Reference]) -> None:
    data_and_base(config, made)
    made += gather(submit_parts("collect.tower", config))
    if config.train.reward.classifier:
        made += gather([submit(FOUR_CLASS, config)])
    made += gather(submit_parts("train.search", config))
    made += gather([submit(TRAIN, config)])
    made += gather([submit(FOLD, config)])
    made += gather(submit_parts("bake.stock", config))
    made += gather(submit_parts("bake.imatrix", config))
    made += gather(submit_parts("bake.quantize", config))
    made += gather([submit(BAKE, config)])
    made += gather(submit_parts("benchmark.cell", config))
    made += gather(submit_parts("benchmark.judged", config))
    for step in (BENCHMARK, UPLOAD, CLEANUP):
        made += gather([submit(step, config)])
