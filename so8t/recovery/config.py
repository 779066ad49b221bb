"""Section `recovery`: what is done about which fault, and for how long. Outside every key."""

from typing import Annotated, Literal

from pydantic import Field

from so8t.section import Section


class Recovery(Section):
    """What is done by itself when a step fails; docs/operations.md has a row for each fault."""

    retries: Annotated[int, Field(ge=0)] = 3
    """How often a step that failed is tried again in a run, for faults that no rule below knows or settles."""
    retry_delay_s: Annotated[float, Field(ge=0)] = 300.0
    """Pause before such a try."""
    memory: Literal["smaller", "again", "stop"] = "smaller"
    """host-memory and gpu-memory. smaller: a fresh process with half the micro-batch and twice the passes (a training;
    the effective batch stays), or once alone with half the threads (any other step); again: one of `retries`."""
    halvings_max: Annotated[int, Field(ge=0)] = 4
    """How often one training may be made smaller from outside."""
    disk: Literal["free-and-wait", "wait", "stop"] = "free-and-wait"
    """disk-full. free-and-wait removes our own temporary files and surplus checkpoints, then waits for room."""
    disk_check_s: Annotated[float, Field(gt=0)] = 60.0
    """Between two looks for room."""
    disk_wait_max_s: Annotated[float, Field(ge=0)] = 24 * 3600.0
    """After so long without room the run fails; the same command goes on from there."""
    disk_room_mb: Annotated[float, Field(ge=0)] = 1024.0
    """Free space that counts as room; more where as much was free and did not do."""
    network: Literal["wait", "again", "stop"] = "wait"
    """network and rate-limit. wait: until the endpoint answers, which costs no retry; again: one of `retries`."""
    network_pause_s: Annotated[float, Field(gt=0)] = 2.0
    """First pause; the longest that the next may be doubles each time, and each is drawn from all below it."""
    network_pause_max_s: Annotated[float, Field(gt=0)] = 900.0
    """Longest such pause. What the server asks for (Retry-After) is waited for in any case."""
    network_wait_max_s: Annotated[float, Field(ge=0)] = 24 * 3600.0
    """After so long without an answer the run fails; the same command goes on from there."""
    divergence: Literal["lower-rate", "stop"] = "lower-rate"
    """not-finite in a training. lower-rate: on from the newest checkpoint, the second time from the one before it, and
    so on, with learning rates times `rate_factor`."""
    rate_factor: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """What all learning rates of the training are multiplied with each time."""
    divergences_max: Annotated[int, Field(ge=0)] = 2
    """How often one training may be taken back so."""
    lost: Literal["fresh-process", "again", "stop"] = "fresh-process"
    """gpu-lost and hang. fresh-process: at most `fresh_processes_max` for each of the two within
    `fresh_processes_hours`, then it stops and tells you."""
    fresh_processes_max: Annotated[int, Field(ge=0)] = 2
    """How often one step of a run is begun anew so."""
    fresh_processes_hours: Annotated[float, Field(gt=0, le=8760)] = 24.0
    """What lies further back counts no more, once the step has come further than it was then. A step that keeps no
    session (any but collecting, training, benchmarking and uploading) has its count for the whole run."""
    fresh_process_delay_s: Annotated[float, Field(ge=0)] = 60.0
    """Pause before it: a driver needs time to bring a GPU back."""
    damaged: Literal["remake", "stop"] = "remake"
    """Inputs whose bytes are not those of their manifest. remake: set aside, and made again by their own step, once."""
