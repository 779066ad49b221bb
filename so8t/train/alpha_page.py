"""`alpha.md`: which alpha was chosen, from which candidates, and by how much."""

from pathlib import Path
from typing import Any

from so8t import durable
from so8t.study.pictures import draw, page
from so8t.study.propose import completed
from so8t.train.crosswise import Tried


def write_page(result: dict[str, Any], out: Path) -> None:
    """`result` is what the phase measured; nothing is written where it was left out."""
    if not result["candidates"]:
        return
    import optuna

    tried = [Tried.of(one) for one in result["tried"]]
    ends = [one.alpha for one in tried]
    ranges = {"alpha": optuna.distributions.FloatDistribution(min(ends), max(ends))}
    study = optuna.create_study(direction="maximize")
    study.add_trials([completed({"alpha": one.alpha}, ranges, one.mean) for one in tried])
    durable.write_text(out / "alpha.md", page(_text(result, tried), draw(study)))


def _text(result: dict[str, Any], tried: list[Tried]) -> str:
    rows = [
        f"| {one.alpha:.4f} | {one.mean:.5f} | {min(one.objective):.5f} to {max(one.objective):.5f} "
        f"| {sum(one.log_likelihood) / len(one.log_likelihood):.5f} | {sum(one.macro_f1) / len(one.macro_f1):.4f} |"
        for one in sorted(tried, key=lambda one: one.alpha)
    ]
    return "\n".join([
        f"# alpha = {result['alpha']:.4f}",
        "",
        f"{result['rows']} held-out rows in {result['folds']} folds. The best candidate, {result['best_candidate']:.4f}, "
        f"gains {result['gain']:.5f} over alpha = 1 on the rows that chose it, and crosswise "
        f"{result['gain_crosswise']:.5f} (standard error {result['gain_crosswise_se']:.5f}); "
        "it is taken where that exceeds its standard error.",
        "",
        "| alpha | objective | over the folds | log-likelihood a token | macro-F1 |",
        "|---|---|---|---|---|",
        *rows,
    ])  # fmt: skip
