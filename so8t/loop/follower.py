"""The loop of a process that helps the first one of several (`ranks.py`): the same steps, and nothing written."""

from collections.abc import Sequence

from so8t import asked
from so8t.loop import ranks
from so8t.loop.checkpoint import Snapshot
from so8t.loop.phase import Phase, Trainee, under
from so8t.loop.rng import restore_rng, seed_all


def follow(trainee: Trainee, phases: Sequence[Phase], seed: int) -> None:
    """Train from wherever the first process goes on, to the end; its stop is the end of this process too."""
    seed_all(seed)
    snapshot = ranks.snapshot_of_first(None)
    number = position = 0
    if snapshot is None:
        phases[0].begin()
    else:
        number, position = take_over(trainee, phases, snapshot)
    while number < len(phases):
        phase = phases[number]
        while position < phase.steps:
            phase.step(position)()
            position += 1
        phase.finish()()
        number, position = number + 1, 0
        if number < len(phases):
            enter(trainee, phases[number])


def enter(trainee: Trainee, phase: Phase) -> None:
    """Begin the next phase; what a phase made in each process for itself may differ where their devices do."""
    ranks.same(trainee.tensors())
    phase.begin()


def take_over(trainee: Trainee, phases: Sequence[Phase], snapshot: Snapshot) -> tuple[int, int]:
    """Become what the snapshot holds; the phase's number and the position in it."""
    values = snapshot.values
    with asked.gone_on_from(int(values.get("halvings", 0))):
        trainee.restore(under("learner.", snapshot.tensors))
        if values["phase"] < len(phases):
            phase = phases[values["phase"]]
            phase.begin()
            if values["inside"]:
                phase.restore(under("phase.", snapshot.tensors), values["phase_values"])
    restore_rng(values["rng"], snapshot.tensors)
    return values["phase"], values["position"]
