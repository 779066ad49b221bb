"""Numbers kept as soon as they are known, so that what a kill leaves behind is not measured again."""

import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from so8t import durable
from so8t.bake.gate import Gate
from so8t.bake.parity import Parity

FILE = "measured.json"


class Measured:
    """Parities and gates of a step's working folder, which stands for one base, adapter, data and config.

    Each is also bound to the hash of the file that was measured: another file under the same name is measured anew.
    """

    def __init__(self, out: Path) -> None:
        self._path = out / FILE
        self._known: dict[str, Any] = durable.read_json(self._path) if self._path.is_file() else {}
        self.parities: dict[str, Parity] = {}

    def parity(self, name: str, sha256: str, measure: Callable[[], Parity]) -> Parity:
        """The parity kept under this name, or a new one."""
        known = self._get(name, sha256)
        found = measure() if known is None else Parity(**known)
        if known is None:
            self._keep(name, sha256, asdict(found))
        self.parities[name] = found
        return found

    def gates(self, name: str, sha256: str, measure: Callable[[], list[Gate]]) -> list[Gate]:
        """The gates kept under this name, or new ones."""
        known = self._get(name, sha256)
        found = measure() if known is None else [Gate(**row) for row in known]
        if known is None:
            self._keep(name, sha256, [asdict(gate) for gate in found])
        return found

    def has(self, name: str, sha256: str) -> bool:
        """Whether it need not be measured."""
        return self._get(name, sha256) is not None

    def _get(self, name: str, sha256: str) -> Any:
        row = self._known.get(name, {})
        return row["value"] if row.get("sha256") == sha256 else None

    def _keep(self, name: str, sha256: str, value: Any) -> None:
        # JSON has no NaN. What is not finite misses its gate, and is measured again after a kill.
        if _finite(value):
            self._known[name] = {"sha256": sha256, "value": value}
            durable.write_json(self._path, self._known)


def _finite(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(_finite, value.values()))
    if isinstance(value, list):
        return all(map(_finite, value))
    return not isinstance(value, float) or math.isfinite(value)
