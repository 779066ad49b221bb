"""One start of a process: its folder `logs/attempt_<n>/` with console, errors and summary."""

import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from so8t import durable
from so8t.artifacts import Store, load
from so8t.errors import Interrupted
from so8t.notify import notify
from so8t.session import SessionFile

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
def recorded(home: Path, session: SessionFile | None) -> Iterator[list[dict[str, Any]]]:
    """Give a list for the references to what is made; leave `summary.json` and `errors.jsonl` however it ends."""
    logs, made, started = logs_of(home), list[dict[str, Any]](), time.monotonic()
    summary: dict[str, Any] = {"state": "failed"}
    try:
        yield made
        summary = {"state": "completed"}
    except BaseException as error:
        stopped = isinstance(error, Interrupted) or not isinstance(error, Exception)
        summary = {"state": "interrupted" if stopped else "failed", "error": str(error)}
        log_error(logs, error)
        if not stopped:
            notify(home, "so8t: the run failed", f"{error}\nLogs: {logs}")
        raise
    finally:
        summary |= {**summarise(home, made), "seconds": round(time.monotonic() - started, 3)}
        durable.write_json(logs / "summary.json", summary)
        if session is not None:
            session.end(summary["state"])


def log_error(logs: Path, error: BaseException) -> None:
    """Append an error to the attempt's `errors.jsonl`."""
    line = {"time": time.time(), "type": type(error).__name__, "message": str(error)}
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
