"""The four-class classifier alone: collect -> preprocess -> base -> four_class."""

from typing import Any

from prefect import flow

from flows.pipeline import DEMO, data_and_base
from so8t.config import Config
from so8t.preflight.look import LASTS
from so8t.wiring import BASE, FOUR_CLASS
from tasks.preflight import looked_at
from tasks.run import remaking, walked
from tasks.steps import Reference, gather, submit


@flow(name="so8t-four-class", persist_result=False, validate_parameters=True)
def so8t_four_class(config: Config = DEMO) -> list[dict[str, Any]]:
    """Train the classifier; local files (four_class.data) need neither collect nor preprocess."""
    with walked(config) as made:
        fitting = looked_at(config, LASTS["four_class"])
        remaking(lambda: _walk(fitting, made), made)
    return list(made)


def _walk(config: Config, made: list[Reference]) -> None:
    if config.four_class.data.train_data:
        made += gather([submit(BASE, config)])
    else:
        data_and_base(config, made)
    made += gather([submit(FOUR_CLASS, config)])
