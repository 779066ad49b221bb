"""Config of the look before a run."""

from typing import Annotated

from pydantic import Field

from so8t.section import Section


class Preflight(Section):
    """The look at this machine before a run. Outside every key."""

    stop: bool = True
    """Stop a run at its start where something would end it later: too little disk, a token that may not publish. false
    only says so."""
    disk_spare_gib: Annotated[float, Field(ge=0)] = 2.0
    """Room that should be left beside what the run still needs; with less than that it warns."""
    data_gib: Annotated[float, Field(ge=0)] = 0.0
    """What the sources on the Hub and the web will bring, which no config tells; counted into the disk's need, four times
    over: as collected, in shards, joined, and in what the benchmark asks."""
    shrink: bool = True
    """Where the planned training does not fit this machine's memory, lower the micro-batch (machine.micro_batch_max) and
    then recompute activations (machine.save_memory), for this run alone; the effective batch stays."""
    network_timeout_s: Annotated[float, Field(gt=0, le=60)] = 3.0
    """How long the Hub may take to answer."""
    clock_skew_s: Annotated[float, Field(gt=0)] = 120.0
    """How far this machine's clock may be from the Hub's, and behind what this home has noted before."""
