"""The study: what was tried, in a SQLite file by Optuna that a power cut cannot tear.

A trial is begun in one transaction, with all its parameters, and stays RUNNING until its end is known. So what a
process that comes back finds RUNNING is the trial to go on with, under its own number. Optuna's own way (a failed
trial and a new one with the same parameters) would move all later numbers, and with them what is proposed.
"""

import sqlite3
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from so8t import durable
from so8t.search.config import Search

if TYPE_CHECKING:
    from so8t.study.propose import Params

NAME = "so8t"
FILE = "study.sqlite"
# For Optuna's own tools, which take a trial for dead after twice as long. Who works here is decided by a lock.
HEARTBEAT_S = 60


def ranges_of(search: Search) -> dict[str, BaseDistribution]:
    """The parameters' ranges as Optuna has them."""
    return {
        one.name: IntDistribution(int(one.low), int(one.high), log=one.log)
        if one.whole
        else FloatDistribution(one.low, one.high, log=one.log)
        for one in search.parameters
    }


class StudyFile:
    """Use it under a lock. A damaged file is set aside and the study begins anew; `problem` says so."""

    def __init__(self, folder: Path) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        durable.make_folder(folder)
        self.path, self.problem = folder / FILE, ""
        if (fault := _fault(self.path)) is not None:
            aside = _set_aside(self.path)
            self.problem = f"{FILE}: {fault}; set aside as {aside.name}, and the search begins anew"
        self._storage = self._open()
        self.study = optuna.create_study(
            study_name=NAME, storage=self._storage, direction="maximize", load_if_exists=True
        )
        self._id = self._storage.get_study_id_from_name(NAME)
        durable.fsync_folder(folder)

    def _open(self) -> RDBStorage:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # the heartbeat
            return RDBStorage(
                f"sqlite:///{self.path.as_posix()}",
                engine_kwargs={"creator": lambda: _connect(self.path)},
                heartbeat_interval=HEARTBEAT_S,
            )

    def close(self) -> None:
        """Let go of the file."""
        self._storage.remove_session()
        self._storage.engine.dispose()

    def finished(self) -> list[FrozenTrial]:
        """In the order of their numbers."""
        return [trial for trial in self.study.get_trials(deepcopy=False) if trial.state.is_finished()]

    def running(self) -> FrozenTrial | None:
        """The trial that was begun and not ended: one at most, because they follow each other."""
        found = [trial for trial in self.study.get_trials(deepcopy=False) if not trial.state.is_finished()]
        assert len(found) <= 1
        return found[0] if found else None

    def begin(self, params: "Params", ranges: Mapping[str, BaseDistribution]) -> FrozenTrial:
        """A new trial, durable with its parameters."""
        template = create_trial(state=TrialState.RUNNING, params=params, distributions=dict(ranges))
        return self._storage.get_trial(self._storage.create_new_trial(self._id, template))

    def report(self, trial: FrozenTrial, reports: Mapping[int, float]) -> None:
        """Rewards on the way by their place; the same may be told again."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self._storage.record_heartbeat(trial._trial_id)
        for place, reward in reports.items():
            self._storage.set_trial_intermediate_value(trial._trial_id, place, reward)

    def end(self, trial: FrozenTrial, state: TrialState, value: float | None, reason: str = "") -> None:
        """How it ended; durable when this returns."""
        if reason:
            self._storage.set_trial_user_attr(trial._trial_id, "reason", reason)
        self._storage.set_trial_state_values(trial._trial_id, state, None if value is None else [value])


def table(trials: list[FrozenTrial]) -> list[dict[str, Any]]:
    """What was tried and what came of it, without any time."""
    return [
        {
            "number": trial.number,
            "state": trial.state.name,
            "params": dict(sorted(trial.params.items())),
            "reward": trial.value if trial.state == TrialState.COMPLETE else None,
            "on_the_way": {str(place): value for place, value in sorted(trial.intermediate_values.items())},
        }
        for trial in trials
    ]


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=30, check_same_thread=False)
    # A rollback journal leaves nothing beside the closed file; FULL survives power loss.
    connection.execute("PRAGMA journal_mode=DELETE")
    connection.execute("PRAGMA synchronous=FULL")
    return connection


def _fault(path: Path) -> str | None:
    """What is wrong with the file; None where it is whole, or not there."""
    if not path.exists():
        return None
    try:
        connection = _connect(path)
        try:
            (verdict,) = connection.execute("PRAGMA integrity_check").fetchone()
        finally:
            connection.close()
    except sqlite3.DatabaseError as error:
        return str(error)
    return None if verdict == "ok" else str(verdict)


def _set_aside(path: Path) -> Path:
    number = 1
    while (target := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    durable.replace(path, target)
    # A journal of the damaged file must not be played into the new one.
    path.with_name(path.name + "-journal").unlink(missing_ok=True)
    return target
