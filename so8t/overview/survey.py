"""What the store holds of a config's steps, and which runs are open; reads only."""

from typing import Any

from so8t.artifacts import Store
from so8t.config import Config
from so8t.errors import InputError
from so8t.session import is_alive, sessions
from so8t.step import Known, NotReady, Ref, parts_of, plan, steps


def open_runs(store: Store) -> list[dict[str, Any]]:
    """Runs that work or wait to be gone on with, the newest progress first."""
    return [
        {
            "run": session.session_id.removeprefix("run-"),
            "state": "running" if is_alive(session) else "interrupted",
            "attempts": session.attempts,
            "last_progress": session.last_progress_time or session.start_time,
            "doing": session.phase,
        }
        for session in sessions(store.home)
        if session.kind == "run" and session.status in ("running", "interrupted")
    ]


def survey(config: Config, store: Store) -> dict[str, dict[str, Any]]:
    """State of every step and part: done, partial, ready or waiting.

    A step that the pipeline does not ask for (the four-class flow's) is told of once it has been begun.
    """
    rows: dict[str, dict[str, Any]] = {}
    asked, known = needed(config), Known()
    for step in steps().values():
        try:
            parts = parts_of(step, config, store, read_only=True, known=known)
        except InputError:  # of a counted step nothing can be told yet
            parts = []
        for part in parts:
            ref = Ref(step.name, part)
            try:
                planned = plan(ref, config, store, read_only=True, known=known)
            except NotReady as error:
                if ref in asked:
                    rows[str(ref)] = {"state": "waiting", "detail": f"for {error.missing}"}
                continue
            except InputError as error:
                # A file of the user's own: the other steps can be told of all the same.
                rows[str(ref)] = {"state": "waiting", "detail": f"for a mended config: {error.found}"}
                continue
            found = known.get(ref) or store.peek(step.name, planned.key)
            row: dict[str, Any] = {"key": planned.key}
            if found is not None:
                known[ref] = found
                row |= {
                    "state": "done",
                    "content": found.content,
                    "seconds": found.seconds,
                    "facts": found.manifest.facts,
                }
            elif (store.root / step.name / f"{planned.key}.partial").exists():
                row |= {"state": "partial", "detail": "begun; the next run goes on from there"}
            elif ref in asked or step.counted:
                row |= {"state": "ready", "detail": "not begun"}
            else:
                continue
            rows[str(ref)] = row
    return rows


def needed(config: Config) -> set[Ref]:
    """The last step's ref and all that it needs, directly or not."""
    found: set[Ref] = set()
    left = [Ref("cleanup")]
    while left:
        ref = left.pop()
        if ref not in found:
            found.add(ref)
            left += steps()[ref.step].needs(config, ref.part).values()
    return found
