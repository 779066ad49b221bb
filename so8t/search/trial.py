"""Phase `trial`: a few PPO updates with settings of its own, stopped early where others were better by then."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from so8t.loop.phase import Commit, Metrics
from so8t.train.policy import Policy

NAME = "trial"
Reports = dict[int, float]


class Trial:
    """Wraps the training's own PPO phase; the held-out reward is looked at between two of its steps."""

    name = NAME

    def __init__(
        self,
        policy: Policy,
        every: int,
        judge: Callable[[], float],
        prune: Callable[[Reports], bool],
        told: Callable[[Reports], None],
    ) -> None:
        """`every`: steps between two looks. `prune` decides from the rewards so far; `told` writes them down."""
        self.policy, self.every, self._judge, self._prune, self._told = policy, every, judge, prune, told
        self.steps = policy.steps
        self.reports: Reports = {}
        self.pruned = False
        self.fault = ""

    def begin(self) -> None:
        """See `Phase`."""
        self.policy.begin()

    def step(self, position: int) -> Commit:
        """One optimizer step; where a look is due, that first."""
        reports = self.reports
        if position and position % self.every == 0:
            reports = {**reports, position // self.every: self._judge()}
            if self._prune(reports):
                return lambda: self._stop(position, reports)
        commit = self.policy.step(position)

        def both() -> Metrics:
            measures = commit()
            self._note(reports)
            if "rolled_back" in measures:
                # A training would try again with a smaller learning rate: no longer the settings on trial.
                self.fault, self.steps = self.policy.recovery.events[-1]["why"], position + 1
            return measures

        return both

    def _note(self, reports: Reports) -> None:
        if len(reports) > len(self.reports):
            self.reports = reports
            self._told(reports)

    def _stop(self, position: int, reports: Reports) -> Metrics:
        self._note(reports)
        self.pruned, self.steps = True, position + 1
        return {"reward": reports[position // self.every]}

    def finish(self) -> Callable[[], dict[str, Any]]:
        """The held-out reward at the end; of a pruned trial the last one seen, and none of one that went wrong."""
        self.policy.optimizer.freeze()
        result: dict[str, Any] = {"pruned": self.pruned, "fault": self.fault}
        if not self.fault:
            result["reward"] = self.reports[max(self.reports)] if self.pruned else self._judge()
        return lambda: result

    def tensors(self) -> dict[str, Tensor]:
        """Those of PPO."""
        return self.policy.tensors()

    def values(self) -> dict[str, Any]:
        """Those of PPO, and the rewards so far."""
        return {
            "policy": self.policy.values(),
            "reports": sorted(self.reports.items()),
            "pruned": self.pruned,
            "fault": self.fault,
            "steps": self.steps,
        }

    def restore(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """See `Phase`."""
        self.policy.restore(tensors, values["policy"])
        self.reports = {int(place): float(reward) for place, reward in values["reports"]}
        self.pruned, self.fault, self.steps = values["pruned"], values["fault"], values["steps"]
