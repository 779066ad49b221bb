"""One start of a process: its folder `logs/attempt_<n>/` with console, errors and summary."""

import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from so8t import durable, faults
from so8t.artifacts import Store, load
from so8t.config import Notify
from so8t.errors import Interrupted
from so8t.notify import notify
from so8t.session import SessionFile, Status

LOGS_VARIABLE = "SO8T_LOGS"


def begin(home: Path) -> Path:
    """Make the next folder and name it to everything that this process starts."""
    number = 1
    while True:
        folder = home / "logs" / f"attempt_{number}"
        try:
            with durable.explain_full_disk(folder):
                durable.make_folder(folder.parent)
                folder.mkdir()
                durable.fsync_folder(folder.parent)
        except FileExistsError:
            number += 1
        else:
            os.environ[LOGS_VARIABLE] = str(folder)
            return folder


def logs_of(home: Path) -> Path:
    """The folder of this process; made at the first call where nobody has yet."""
    named = os.environ.get(LOGS_VARIABLE)
    return Path(named) if named else begin(home)


@contextmanager
def recorded(home: Path, session: SessionFile | None, settings: Notify) -> Iterator[list[dict[str, Any]]]:
    """Give a list for the references to what is made; leave `summary.json` and `errors.jsonl` however it ends.

    A run whose notes cannot be written has not completed; but what ends a run arrives as it is, noted or not: on a
    full disk a stop is still a stop.
    """
    logs, made, started = logs_of(home), list[dict[str, Any]](), time.monotonic()

    def note(state: Status, **more: str) -> None:
        seconds = round(time.monotonic() - started, 3)
        durable.write_json(logs / "summary.json", {"state": state, **more, **summarise(home, made), "seconds": seconds})
        if session is not None:
            session.end(state)

    try:
        yield made
    except BaseException as error:
        stopped = isinstance(error, Interrupted) or not isinstance(error, Exception)
        if not stopped:
            fault = faults.classify(error)
            told = f"{error}\nTo do: {faults.POLICIES[fault].do}\nLogs: {logs}"
            notify(home, "failed", f"so8t: the run failed ({fault})", told, settings)
        with durable.replacing_no_error(logs):
            log_error(logs, error, session.session.session_id if session is not None else "")
            note("interrupted" if stopped else "failed", error=faults.without_password(str(error)))
        raise
    note("completed")
    minutes = (time.monotonic() - started) / 60
    notify(
        home, "completed", "so8t: the run completed", f"{len(made)} steps in {minutes:.0f} min\nLogs: {logs}", settings
    )


def log_error(logs: Path, error: BaseException, run: str = "") -> None:
    """Append an error to the attempt's `errors.jsonl`; `run` is the session of the run that it ended."""
    line = {
        "time": time.time(), "run": run, "type": type(error).__name__, "fault": faults.classify(error),
        "message": faults.without_password(str(error)),
    }  # fmt: skip
    with (logs / "errors.jsonl").open("a", encoding="utf-8", newline="\n") as file:
        file.write(json.dumps(line, ensure_ascii=False) + "\n")


def summarise(home: Path, made: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Steps and artifacts of a run, read from the manifests on disk."""
    store = Store(home)
    steps: dict[str, Any] = {}
    artifacts: dict[str, str] = {}
    for reference in made:
        name = f"{reference['step']}[{reference['part']}]" if reference["part"] else reference["step"]
        artifact = load(store.path(reference["step"], reference["key"]))
        steps[name] = {
            "key": artifact.manifest.key,
            "content": artifact.content,
            "cached": reference["cached"],
            "seconds": round(artifact.seconds, 3),
            "facts": artifact.manifest.facts,
        }
        artifacts[name] = str(artifact.path)
    return {"steps": steps, "artifacts": artifacts}
