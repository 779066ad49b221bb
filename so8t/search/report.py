"""What a search leaves: best values, table of trials, Optuna's plots, and the study itself."""

from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from so8t import durable
from so8t.errors import StepFailed
from so8t.search.config import SearchRun
from so8t.search.study import FILE, StudyFile, table
from so8t.study.pictures import draw, page
from so8t.train.warm import BEST


def write_report(config: SearchRun, study: StudyFile, out: Path) -> dict[str, Any]:
    """Write the files and give the facts. StepFailed where no trial came to its end."""
    trials = study.finished()
    done = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    failed = {
        str(trial.number): trial.user_attrs.get("reason", "") for trial in trials if trial.state == TrialState.FAIL
    }
    if not done:
        raise StepFailed(
            f"none of {len(trials)} trials came to its end: "
            + "; ".join(f"trial {number}: {reason}" for number, reason in failed.items())
        )
    # The first of equals: the config's own values win a tie.
    winner = max(done, key=lambda trial: trial.value or 0.0)
    best = {
        "values": dict(sorted(winner.params.items())),
        "trial": winner.number,
        "reward": winner.value,
        "reward_of_config": trials[0].value if trials[0].state == TrialState.COMPLETE else None,
    }
    durable.write_json(out / BEST, best)
    durable.write_json(out / "trials.json", table(trials))
    pictures = draw(study.study)
    for name, data in pictures.items():
        durable.write_bytes(out / "plots" / name, data)
    durable.write_text(out / "search.md", page(_text(config, best, trials, failed), pictures))
    durable.write_bytes(out / FILE, study.path.read_bytes())
    counts = {state.name.lower(): sum(trial.state == state for trial in trials) for state in TrialState}
    return {
        "best": best["values"],
        "best_trial": winner.number,
        "reward": winner.value,
        "reward_of_config": best["reward_of_config"],
        "trials": {name: count for name, count in counts.items() if count},
        "failed": failed,
    }


def _text(config: SearchRun, best: dict[str, Any], trials: list[FrozenTrial], failed: dict[str, str]) -> str:
    names = sorted(best["values"])
    rows = [
        f"| {trial.number} | {trial.state.name.lower()} | "
        + " | ".join(f"{trial.params[name]:.4g}" for name in names)
        + f" | {'' if trial.value is None else f'{trial.value:.4f}'} |"
        for trial in trials
    ]
    return "\n".join([
        f"# Trial {best['trial']} of {len(trials)}",
        "",
        *(f"- `train.{name}` = {best['values'][name]:.6g}" for name in names),
        "",
        f"Reward {best['reward']:.4f} on {config.search.prompts} held-out prompts after {config.search.updates} updates. "
        "It is the largest of several noisy numbers, so it flatters the winner.",
        "",
        "| trial | state | " + " | ".join(names) + " | reward |",
        "|---|---|" + "---|" * (len(names) + 1),
        *rows,
        "",
        *(f"Trial {number} failed: {reason}" for number, reason in failed.items()),
    ])  # fmt: skip
