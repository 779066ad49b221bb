"""A whole search in seconds, and the same as a program of its own:
`python -m tests.search.small WORLD HOME [KILL_AT [CRASH_IN [TRIES]]]`.

KILL_AT: the process is killed before the study's file gets its so manieth write; 0 never. CRASH_IN: it is killed
whenever the trial of this number begins its second step; -1 none. TRIES: deaths after which a trial fails.
"""

import os
import signal
import sqlite3
import sys
from pathlib import Path

from so8t import durable
from so8t.artifacts import hash_file
from so8t.config import Machine
from so8t.errors import So8tError
from so8t.progress import JsonLines, Progress
from so8t.search.config import Search, SearchRun
from so8t.session import SessionFile
from so8t.step import steps
from tests.train import tiny

# What Optuna would import at its first use, in every process anew.
IMPORTED = (
    "so8t.search.run", "optuna.samplers", "optuna.pruners", "optuna.storages._rdb.storage"
)  # fmt: skip
SESSION = f"train.search-{tiny.KEY[:12]}"
SEARCH = Search.model_validate({
    "trials": 5, "updates": 2, "report_every": 1, "prompts": 4, "startup": 1, "tries_max": 2,
    "parameters": [
        {"name": "ppo.learning_rate", "low": 1e-5, "high": 0.1, "log": True},
        {"name": "ppo.epochs", "low": 1, "high": 2},
        {"name": "reward.quality", "low": 0.5, "high": 2.0},
    ],
})  # fmt: skip


def config(**changes: object) -> SearchRun:
    return SearchRun(search=SEARCH.model_copy(update=changes), train=tiny.CONFIG)


def search(world: Path, home: Path, wanted: SearchRun | None = None) -> dict[str, object]:
    """Run the step; the result lies in `tiny.output(home)`."""
    from so8t.search import run

    run._Search._judge = distance
    machine = Machine(
        threads=1, device="cpu", checkpoint_interval_s=0.01, checkpoint_stall_share=1, progress_interval_s=0.01
    )
    out = tiny.output(home)
    out.mkdir(parents=True, exist_ok=True)
    session = SessionFile.open(home, SESSION, "train.search")
    progress = Progress("train.search", machine, home, (JsonLines(home / "progress.jsonl", 0.0),), session)
    inputs = {
        "base": tiny.artifact(world / "base", "collect.base"), "data": tiny.artifact(world / "data", "preprocess")
    }  # fmt: skip
    return run.run(wanted or config(), inputs, out, progress)


def distance(self: object) -> float:
    """How far a trial has gone from the warm-up, negative: a random model's replies are all worth the same.

    It falls with the learning rate whatever the model is, so the same trials are pruned.
    """
    parameters = self.learner.text.parameters()
    return -sum(float((p.detach() - self.warm[f"text.{name}"]).abs().mean()) for name, p in parameters.items())


def lasting_bytes(home: Path) -> dict[str, str]:
    """Hash of every file of the result that the clock does not decide."""
    root, loose = tiny.output(home), steps()["train.search"].volatile
    names = {path.relative_to(root).as_posix(): path for path in sorted(root.rglob("*")) if path.is_file()}
    return {name: hash_file(path) for name, path in names.items() if not name.startswith(tuple(loose))}


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def kill_at_write(number: int) -> None:
    """Die before the so manieth statement that changes the study's file."""
    from so8t.search import study

    connect, seen = study._connect, 0

    def watch(statement: str) -> None:
        nonlocal seen
        if statement.lstrip().upper().startswith(("INSERT", "UPDATE", "DELETE", "COMMIT", "CREATE")):
            seen += 1
            if seen == number:
                die()

    def watched(path: Path) -> sqlite3.Connection:
        connection = connect(path)
        connection.set_trace_callback(watch)
        return connection

    study._connect = watched


def crash_in(trial: int) -> None:
    """Die in the second step of a trial, every time."""
    from so8t.search import run

    run_trial, inner = run._Search._run_trial, run.Trial.step

    def step(self: object, position: int) -> object:
        if step.trial == trial and position == 1:
            die()
        return inner(self, position)

    def noted(self: object, study: object, frozen: object, begun: int) -> None:
        step.trial = frozen.number
        run_trial(self, study, frozen, begun)

    run._Search._run_trial, run.Trial.step = noted, step


def main(arguments: list[str]) -> int:
    """Search; the exit code. `error.txt` says what went wrong."""
    from so8t.cli import raise_on_signals

    raise_on_signals()
    from so8t.search import report

    # Seconds of each process for what nobody compares; the search in the tests' own process draws.
    report.draw = lambda study: {}
    world, home, kill_at, crashing, tries = [*arguments, *["0", "-1", "2"][len(arguments) - 2 :]]
    if int(kill_at):
        kill_at_write(int(kill_at))
    if int(crashing) >= 0:
        crash_in(int(crashing))
    try:
        search(Path(world), Path(home), config(tries_max=int(tries)))
    except So8tError as error:
        durable.write_text(Path(home) / "error.txt", str(error))
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
