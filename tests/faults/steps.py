"""Two steps that do what a test tells them, and the tries of the second as a task makes them."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from so8t.artifacts import Artifact, Store
from so8t.config import Config, load_config
from so8t.recovery.attempts import Attempts
from so8t.section import Section
from so8t.session import SessionFile
from so8t.step import Ref, Step, execute, plan
from so8t.wiring import STEPS
from tests.conftest import ROOT

RUN = "run-0f7c1f1e-0000-4000-8000-000000000000"
QUICK = (
    "recovery.disk_check_s=0.05", "recovery.network_pause_s=0.05", "recovery.network_pause_max_s=0.2",
    "recovery.fresh_process_delay_s=0.05", "recovery.disk_room_mb=0.05",
)  # fmt: skip
FIRST, SECOND = Ref("first"), Ref("second")


def declare(monkeypatch: Any, second: Callable[[Config, Path], dict[str, Any]]) -> list[str]:
    """Steps `first` and `second`, which needs it; who has run, in order."""
    ran: list[str] = []

    def first(section, inputs, out, progress):
        ran.append("first")
        (out / "data").write_bytes(b"the same each time")
        return {}

    def run_second(section, inputs, out, progress):
        ran.append("second")
        return second(progress.machine, out)

    modules = {"faults_first": SimpleNamespace(run=first), "faults_second": SimpleNamespace(run=run_second)}
    for name, module in modules.items():
        monkeypatch.setitem(__import__("sys").modules, name, module)
    nothing = lambda config, part: Section()  # noqa: E731
    monkeypatch.setitem(STEPS, "first", Step("first", "faults_first", 1, nothing, lambda config, part: {}))
    monkeypatch.setitem(STEPS, "second", Step("second", "faults_second", 1, nothing, lambda c, part: {"in": FIRST}))
    return ran


class Walk:
    """A home with `first` made, and a run's session."""

    def __init__(self, home: Path, *settings: str) -> None:
        self.config = load_config(ROOT / "configs" / "smoke.yaml", [*QUICK, *settings], home)
        self.store, self.said = Store(home), list[str]()
        self.run = SessionFile.open(home, RUN, "run")
        execute(FIRST, self.config, self.store)

    def second(self) -> Artifact:
        """`second`, with what recovery does about its faults."""
        key = plan(SECOND, self.config, self.store).key
        tries = Attempts(SECOND, key, self.config, self.store, self.said.append, self.run)
        return tries.make(lambda config: execute(SECOND, config, self.store))
