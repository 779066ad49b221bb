"""A flow that trains: `python -m tests.faults.walk HOME RUN_ID [a.b=c ...]`, as the pipeline walks, two steps long."""

import sys
from pathlib import Path

from prefect import flow

from so8t import fence
from so8t.config import Config, load_config
from so8t.wiring import PREPROCESS, TRAIN
from tasks.run import remaking, walked
from tasks.steps import Reference, gather, submit
from tests.conftest import ROOT

SETTINGS = (
    "recovery.retries=1", "recovery.retry_delay_s=0", "recovery.fresh_process_delay_s=0", "recovery.disk_check_s=0.1",
    "train.warmup.micro_batch=10", "train.vision.epochs=0", "train.alpha.trials=0", "machine.threads=1",
)  # fmt: skip


def config_of(home: Path, settings: list[str]) -> Config:
    """The config with hardly any training, and with hardly any waiting."""
    return load_config(ROOT / "configs" / "smoke.yaml", [*SETTINGS, *settings], home)


@flow
def walk(config: Config) -> None:
    """Only `train` and its data: what they need is there."""
    with walked(config) as made:
        remaking(lambda: steps(config, made), made)


def steps(config: Config, made: list[Reference]) -> None:
    """One after the other."""
    for ref in (PREPROCESS, TRAIN):
        made += gather([submit(ref, config)])


if __name__ == "__main__":
    fence.hold(Path(sys.argv[1]), sys.argv[2])
    walk(config_of(Path(sys.argv[1]), sys.argv[3:]))
