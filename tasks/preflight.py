"""The look at this machine as a run's first task, and the config that the run goes on with."""

from dataclasses import asdict
from typing import Any

from prefect import get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE

from so8t import fence
from so8t.config import Config
from so8t.preflight.finding import demand, tally
from so8t.preflight.look import look
from so8t.preflight.profile import applied, taken_over
from so8t.step import Ref
from tasks.steps import terminal

SHOWN = ("check", "state", "found", "wanted", "do")


@task(name="preflight", task_run_name="preflight", cache_policy=NO_CACHE, persist_result=False, retries=0)
def preflight(config: Config, last: Ref) -> dict[str, float]:
    """Show every finding; ResourceError where one would end the run. Gives what the run takes over for this machine."""
    report, logger = look(config, last), get_run_logger()
    rows: list[dict[str, Any]] = [
        {name: value for name, value in asdict(finding).items() if name in SHOWN} for finding in report.findings
    ]
    create_table_artifact(table=rows, key="preflight", description="this machine, before the run")
    for finding in report.findings:
        if finding.state in ("warn", "fail"):
            said = f"{finding.state}: {finding.found}" + (f"; {finding.do}" if finding.do else "")
            logger.warning("%s: %s", finding.check, said)
            _show(f"preflight: {finding.check}", said)
    _show("preflight", tally(report.findings))
    if config.preflight.stop:
        demand(report.findings)
    return report.overrides


def looked_at(config: Config, last: Ref) -> Config:
    """The config for this run on this machine. What an earlier attempt of the run took over stays, so its bytes do."""
    overrides = preflight(config, last)
    if (session := fence.current()) is not None:
        overrides = taken_over(config.home(), session, overrides)
    return config.model_copy(update={"machine": applied(config.machine, overrides)})


def _show(name: str, said: str) -> None:
    for sink in terminal:
        sink.report(name, 1, 1, said, {})
