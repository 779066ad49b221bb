"""One line of the look: what was found, what was wanted, what to do."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from so8t.errors import ResourceError

State = Literal["ok", "warn", "fail", "not looked at"]
GIB = 1 << 30


@dataclass(frozen=True)
class Finding:
    """`ok` is said only of what was checked; what was not says why in `found`."""

    check: str
    state: State
    found: str
    wanted: str = ""
    do: str = ""
    # A fail that may mend itself while the steps wait, such as a router that is still booting.
    passing: bool = False

    @property
    def stops(self) -> bool:
        """Whether a run that began now would end for it."""
        return self.state == "fail" and not self.passing


def gib(size_bytes: float) -> str:
    """For people: two digits below 10 GiB."""
    return f"{size_bytes / GIB:.2f} GiB" if size_bytes < 10 * GIB else f"{size_bytes / GIB:.0f} GiB"


def tally(findings: Iterable[Finding]) -> str:
    """How many of each state, in words."""
    states = [finding.state for finding in findings]
    return ", ".join(f"{states.count(state)} {state}" for state in get_args(State) if state in states)


def demand(findings: Iterable[Finding]) -> None:
    """ResourceError with everything that would end the run."""
    stopping = [finding for finding in findings if finding.stops]
    if stopping:
        raise ResourceError(
            "; ".join(f"{finding.check}: {finding.found}" for finding in stopping),
            "; ".join(finding.wanted for finding in stopping if finding.wanted),
            "; ".join(finding.do for finding in stopping if finding.do)
            + " (preflight.stop=false begins all the same; `so8t doctor` looks again)",
        )
