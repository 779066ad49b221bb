"""What to try next, as a pure function of what was tried: no sampler keeps a state between two trials.

A sampler's own generator is not part of Optuna's storage, so a process that comes back would draw other numbers
than the one that was killed. Here each trial has a sampler of its own, seeded by the trial's number.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

Params = dict[str, Any]


def propose(
    finished: "Sequence[FrozenTrial]", ranges: "Mapping[str, BaseDistribution]", seed: int, startup: int
) -> Params:
    """Parameters of trial number `len(finished)`, by TPE (Bergstra et al. 2011); the objective is maximised.

    The first `startup` trials, those that were given counted, are drawn at random. Pruned trials count by how far
    they came, failed ones by nothing but their number.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    own_seed = int(np.random.SeedSequence([seed, len(finished)]).generate_state(1)[0])
    sampler = optuna.samplers.TPESampler(seed=own_seed, n_startup_trials=startup)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.add_trials(finished)
    return dict(study.ask(dict(ranges)).params)


def completed(params: Params, ranges: "Mapping[str, BaseDistribution]", value: float) -> "FrozenTrial":
    """A finished trial as `propose` reads it."""
    from optuna.trial import create_trial

    return create_trial(params=params, distributions=dict(ranges), value=value)


def worth_going_on(
    finished: "Sequence[FrozenTrial]", params: Params, ranges: "Mapping[str, BaseDistribution]",
    reports: Mapping[int, float], startup: int,
) -> bool:  # fmt: skip
    """Whether a trial is no worse, where it is now, than the median of those that were finished (Golovin et al. 2017)."""
    import optuna

    study = optuna.create_study(direction="maximize")
    study.add_trials(finished)
    running = optuna.trial.create_trial(
        state=optuna.trial.TrialState.RUNNING, params=params, distributions=dict(ranges),
        intermediate_values=dict(reports),
    )  # fmt: skip
    pruner = optuna.pruners.MedianPruner(n_startup_trials=startup, n_warmup_steps=0)
    return not pruner.prune(study, running)
