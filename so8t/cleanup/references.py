"""Who needs which artifacts: runs by what their sessions note, and tags."""

from dataclasses import dataclass
from pathlib import Path

from so8t import durable, fence, session
from so8t import tags as kept_tags
from so8t.cleanup.config import Cleanup
from so8t.cleanup.disk import age_days, children
from so8t.session import Session

FINISHED = frozenset({"completed", "failed"})
RUN = "run"


@dataclass(frozen=True)
class Holder:
    """A run or tag with what it needs, as (step, key), and the reason that the plan tells."""

    artifacts: list[tuple[str, str]]
    reason: str
    session: str = ""


def runs(config: Cleanup, home: Path) -> list[Holder]:
    """Unfinished runs, and the newest finished ones."""
    found = [(folder, one) for folder, one in _sessions(home) if one.kind == RUN]
    open_runs = [one for folder, one in found if _is_open(config, folder, one)]
    ended = sorted((one for _, one in found if one.status in FINISHED), key=lambda one: one.end_time, reverse=True)
    return [
        *(_holder(one, f"{one.session_id} is unfinished and uses it") for one in open_runs),
        *(_holder(one, f"of the newest {config.keep_runs} runs") for one in ended[: config.keep_runs]),
    ]


def unclear_sessions(config: Cleanup, home: Path) -> list[str]:
    """Sessions that will be taken up again and do not name what they use: of steps, and of runs of an older version."""
    current = fence.current()
    own = current.session.session_id if current else ""
    return [
        folder.name
        for folder, one in _sessions(home)
        if _is_open(config, folder, one) and not (one.kind == RUN and (one.artifacts or folder.name == own))
    ]


def tags(home: Path) -> list[Holder]:
    """What a person has given a name."""
    return [Holder([_split(name) for name in names], f"tagged {tag}") for tag, names in kept_tags.read(home).items()]


def checkpoint_tag(folder: Path) -> str:
    """The tag of a checkpoint that was saved by hand in this session; empty where there is none."""
    for manifest in sorted(folder.glob("checkpoints/*/manifest.json")):
        try:
            if tag := str(durable.read_json(manifest).get("tag", "")):
                return tag
        except (OSError, ValueError, AttributeError):
            continue  # `so8t checkpoint verify` tells of damage
    return ""


def _sessions(home: Path) -> list[tuple[Path, Session]]:
    return [(folder, one) for folder in children(home / "sessions") if (one := session.read(folder)) is not None]


def _is_open(config: Cleanup, folder: Path, one: Session) -> bool:
    return one.status not in FINISHED and age_days(folder) < config.expiry_days


def _holder(one: Session, reason: str) -> Holder:
    return Holder([_split(name) for name in one.artifacts], reason, one.session_id)


def _split(name: str) -> tuple[str, str]:
    step, _, key = name.partition("/")
    return step, key
