"""What a training has recovered from by itself, told where every recovery is told."""

import torch

from so8t import asked, recoveries
from so8t.faults import Fault
from so8t.loop.phase import Metrics
from so8t.progress import Progress

# Metrics that a commit gives only when a recovery has changed the setting of that name.
RECOVERED = ("micro_batch", "generation_batch")
ROLLED_BACK = "rolled_back"


def told_of(progress: Progress, session: str, phase: str, step: int, metrics: Metrics) -> None:
    """Record what this step's metrics tell of: a smaller batch a pass, or the way back to a good state."""
    memory = Fault.GPU_MEMORY if torch.cuda.is_available() else Fault.HOST_MEMORY
    for name in RECOVERED:
        if name in metrics:
            whole = f", and the effective batch stays {metrics['effective_batch']:g}" if name == "micro_batch" else ""
            detail = f"{phase}.{name} is {metrics[name]:g} from step {step} on{whole}"
            outcome = "obeyed" if asked.now().halvings else "went on"
            _record(progress, session, memory, "smaller", detail, outcome)
    if ROLLED_BACK in metrics:
        detail = f"{phase} went back to its newest good state at step {step}, on with {metrics['rate']:g} of its rate"
        _record(progress, session, Fault.DIVERGED, "lower-rate", detail, "went on")


def _record(progress: Progress, session: str, fault: Fault, policy: str, detail: str, outcome: str) -> None:
    recoveries.record(
        progress.home, session, step=progress.step, fault=fault, policy=policy, detail=detail, outcome=outcome
    )
