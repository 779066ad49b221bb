"""The maps whose parts run in the flow's own process: in its threads, or by configuration on a local Dask cluster."""

from collections.abc import Iterator
from contextlib import contextmanager

from prefect.task_runners import TaskRunner

from so8t import fence
from so8t.artifacts import Store
from so8t.config import Config
from so8t.errors import InputError
from so8t.step import Ref, parts_of, steps
from tasks.steps import Reference, gather, submit


def mapped(step: str, config: Config) -> list[Reference]:
    """Make every part of a step, each a task run of its own, and wait for all."""
    refs = [Ref(step, part) for part in parts_of(steps()[step], config, Store(config.home()))]
    if config.machine.task_runner == "threads":
        return gather([submit(ref, config) for ref in refs])
    with _dask(config) as runner:
        return gather([submit(ref, config, runner) for ref in refs])


@contextmanager
def _dask(config: Config) -> Iterator[TaskRunner]:
    """A cluster of processes on this machine, for as long as the parts take; it goes with this process."""
    try:
        from prefect_dask import DaskTaskRunner
    except ModuleNotFoundError as error:
        raise InputError(
            f"machine.task_runner is dask, and {error.name} is not installed",
            "prefect-dask",
            'pip install -c constraints.txt "so8t[dask]"',
        ) from error
    cluster = {
        "n_workers": config.machine.workers,
        "threads_per_worker": 1,
        "host": "127.0.0.1",
        "dashboard_address": None,
        "memory_limit": 0,
        # A worker that imports a flow must not take the run's lock: this process holds it.
        "env": {fence.RUN_VARIABLE: ""},
    }
    with DaskTaskRunner(cluster_kwargs=cluster) as runner:
        yield runner
