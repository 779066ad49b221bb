"""Section `monitor:`: how `so8t up` looks after runs, and `so8t monitor` by hand. Outside every key."""

from typing import Annotated

from pydantic import Field

from so8t.section import Section


class Monitor(Section):
    """What is looked at, and from when on it is told or acted on."""

    enabled: bool = True
    """`so8t up` looks by itself, by the schedule of the deployment so8t-monitor/so8t."""
    recover: bool = True
    """Do something about what is found: end what hangs, remove own leftovers, stop a crash loop. False only tells."""
    interval_s: Annotated[float, Field(gt=0)] = 300.0
    """Between two looks."""
    stall_minutes: Annotated[float, Field(gt=0)] = 30.0
    """A step's process that has reported nothing for as long hangs: its stacks are written down, it is ended and begins
    again from its newest checkpoint. A run that waits between two steps has twice the time."""
    stall_grace_s: Annotated[float, Field(gt=0)] = 30.0
    """Between asking a hanging process to save and end, and killing it."""
    disk_free_min_gib: Annotated[float, Field(ge=0)] = 2.0
    """Told, and own leftovers are removed, from less free space on."""
    memory_free_min_percent: Annotated[float, Field(ge=0, lt=100)] = 3.0
    """Told from less available memory on."""
    gpu_temperature_max_c: Annotated[float, Field(gt=0, le=120)] = 90.0
    """Told from a hotter GPU on."""
    forecast_hours: Annotated[float, Field(gt=0)] = 3.0
    """Disk or memory that will be full within as long at the present rate is told."""
    forecast_samples: Annotated[int, Field(ge=4, le=48)] = 6
    """No forecast from fewer looks since the machine was switched on; the newest 48 count."""
    crash_loop_restarts: Annotated[int, Field(ge=2)] = 10
    """A run that is started as often within crash_loop_minutes without a new checkpoint, artifact or step is stopped,
    whatever ended its attempts, power cuts too: a power supply that gives in under load looks like one each time."""
    crash_loop_minutes: Annotated[float, Field(gt=0)] = 60.0
    """See crash_loop_restarts."""
    keep_runs: Annotated[int, Field(ge=1)] = 288
    """Looks that the UI keeps; older ones are deleted with their artifacts."""
