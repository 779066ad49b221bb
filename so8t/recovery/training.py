"""What a training is asked to do otherwise: it lies in its session, as overrides, and the next start obeys.

`halvings`: how often the micro-batch is halved beside what the training finds out by itself; the effective batch stays.
`rate`: what every learning rate is multiplied with. `divergences`: how often it was taken back.
"""

from pathlib import Path

from so8t.config import Config
from so8t.recoveries import session_of
from so8t.session import Session, SessionFile, read
from so8t.step import Ref

HALVINGS, RATE, DIVERGENCES = "halvings", "rate", "divergences"


def session_file(home: Path, ref: Ref, key: str) -> SessionFile:
    """The training's session, which no process has now, without beginning an attempt."""
    name = session_of(ref.step, key)
    folder = home / "sessions" / name
    return SessionFile(folder, read(folder) or Session(session_id=name, kind=ref.step))


def smaller(file: SessionFile, most: int) -> int | None:
    """Ask for one more halving; how many that makes, None where it would be more than `most`."""
    asked = int(file.session.overrides.get(HALVINGS, 0)) + 1
    if asked > most:
        return None
    _override(file, {HALVINGS: float(asked)})
    return asked


def slower(file: SessionFile, factor: float, most: int, config: Config) -> tuple[float, list[str]] | None:
    """Ask for a lower rate, from the second time on behind the newest checkpoint too; None after `most` times.

    Gives the rate, and what the checkpoints are called now that were passed over.
    """
    times = int(file.session.overrides.get(DIVERGENCES, 0)) + 1
    if times > most:
        return None
    passed = _behind_the_newest(file, config.machine.checkpoint_keep) if times > 1 else []
    rate = file.session.overrides.get(RATE, 1.0) * factor
    _override(file, {RATE: rate, DIVERGENCES: float(times)})
    return rate, passed


def _behind_the_newest(file: SessionFile, keep: int) -> list[str]:
    """Set the newest checkpoint aside where there is one before it: it may be on the way to the divergence."""
    from so8t.loop.checkpoint import Checkpoints

    checkpoints = Checkpoints(file.folder / "checkpoints", keep)
    names = checkpoints.names()
    return checkpoints.pass_over(int(names[-2].rpartition("-")[2])) if len(names) > 1 else []


def _override(file: SessionFile, changes: dict[str, float]) -> None:
    file.update(heartbeat=file.session.heartbeat, overrides={**file.session.overrides, **changes})
