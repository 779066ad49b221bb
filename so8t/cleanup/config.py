"""Config of cleanup."""

from typing import Annotated

from pydantic import Field

from so8t.section import Section

Days = Annotated[float, Field(ge=0)]


class Cleanup(Section):
    """What is kept. What this run or an unfinished one uses, what has a tag, and what a process works on always is."""

    apply: bool = True
    """Remove what the plan names; false writes the plan alone."""
    keep_per_step: Annotated[int, Field(ge=1)] = 2
    """Newest artifacts of each step that are kept, together with everything that they were made from."""
    keep_runs: Annotated[int, Field(ge=1)] = 2
    """Newest runs of which everything is kept, also where newer artifacts of each step exist."""
    unpublished_days: Days = 30.0
    """An artifact that no upload was made from is kept for as long, together with everything that it was made from."""
    partial_days: Days = 14.0
    """An unfinished step that nobody works on is kept for as long, because the next run would continue it."""
    damaged_days: Days = 30.0
    """A damaged artifact that was set aside is kept for as long."""
    session_days: Days = 30.0
    """A session, with its checkpoints, is kept for as long after it ended or expired; one with a tagged checkpoint stays."""
    expiry_days: Days = 7.0
    """A session that was interrupted counts as unfinished for as long after its last progress."""
    keep_logs: Annotated[int, Field(ge=1)] = 50
    """Newest logs of attempts that are kept."""
    keep_logs_days: Days = 90.0
    """Logs older than this are removed although they are among the newest, the very newest excepted."""
    remove_autostart: bool = False
    """When a run has completed with a verified upload and none is open, remove the entry that starts `so8t up` at logon."""
