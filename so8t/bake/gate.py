"""A gate: one number, its limit, and the table that shows them all."""

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from so8t import durable
from so8t.errors import GateFailed


@dataclass(frozen=True)
class Gate:
    """A measured number and what it must not pass; NaN never passes."""

    name: str
    value: float
    limit: float
    sense: Literal["<=", ">="] = "<="
    detail: str = ""

    @property
    def passed(self) -> bool:
        """Whether the number keeps to its limit."""
        if not math.isfinite(self.value):
            return False
        return self.value <= self.limit if self.sense == "<=" else self.value >= self.limit

    def __str__(self) -> str:
        wanted = f"{self.name}: {self.value:.6g}, wanted {self.sense} {self.limit:.6g}"
        if not self.passed:
            wanted += f", missed by {abs(self.value - self.limit):.3g}"
        return f"{wanted} ({self.detail})" if self.detail else wanted


def write_gates(out: Path, gates: list[Gate]) -> None:
    """Write gates.json and gates.md, then GateFailed if any was missed."""
    rows: list[dict[str, Any]] = [
        {**asdict(gate), "value": gate.value if math.isfinite(gate.value) else str(gate.value), "passed": gate.passed}
        for gate in gates
    ]
    durable.write_json(out / "gates.json", rows)
    lines = ["# Gates", "", "| gate | measured | wanted | |", "|---|---|---|---|"]
    for gate in gates:
        lines.append(
            f"| {gate.name} | {gate.value:.6g} | {gate.sense} {gate.limit:.6g} | {'passed' if gate.passed else 'MISSED'} |"
        )
    missed = [gate for gate in gates if not gate.passed]
    lines += ["", f"{len(gates) - len(missed)} of {len(gates)} passed."]
    durable.write_text(out / "gates.md", "\n".join(lines) + "\n")
    if missed:
        raise GateFailed(f"{len(missed)} of {len(gates)} gates missed:\n" + "\n".join(f"  - {gate}" for gate in missed))
