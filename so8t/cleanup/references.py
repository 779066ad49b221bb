"""Who needs which artifacts: runs by what their sessions note, tags, and configs that name one by its folder."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from so8t import durable, fence, session
from so8t import tags as kept_tags
from so8t.cleanup.config import Cleanup
from so8t.cleanup.disk import age_days, children
from so8t.session import Session

FINISHED = frozenset({"completed", "failed"})
RUN = "run"
CONFIG = "config.json"  # beside the session of a run: what it was asked for


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
        *(_holder(home, one, f"{one.session_id} is unfinished and uses it") for one in open_runs),
        *(_holder(home, one, f"of the newest {config.keep_runs} runs") for one in ended[: config.keep_runs]),
    ]


def unclear_sessions(config: Cleanup, home: Path) -> list[str]:
    """Sessions that will be taken up again and do not name what they use: of steps, and of runs of an older version."""
    current = fence.current()
    own = current.session.session_id if current else ""
    return [
        folder.name
        for folder, one in _sessions(home)
        if _is_open(config, folder, one)
        if one.kind != RUN or _asked(folder) is None or not (one.artifacts or folder.name == own)
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


def named(config: Any) -> Iterator[tuple[str, str]]:
    """(folder, content) of every artifact that a config, as JSON, names so; the content is "" until it is pinned."""
    if isinstance(config, dict) and isinstance(config.get("folder"), str) and isinstance(config.get("content"), str):
        yield config["folder"], config["content"]
    for part in config.values() if isinstance(config, dict) else config if isinstance(config, list) else ():
        yield from named(part)


def _holder(home: Path, one: Session, reason: str) -> Holder:
    """Also of what its config names: no manifest does, until the step that reads it has ended."""
    folders = [Path(folder).resolve() for folder, _ in named(_asked(home / "sessions" / one.session_id))]
    beside = [(folder.parent.name, folder.name) for folder in folders if folder.is_relative_to(home.resolve())]
    return Holder([*(_split(name) for name in one.artifacts), *beside], reason, one.session_id)


def _asked(folder: Path) -> Any:
    """The config that a run was asked for; {} where an older version kept none, None where it cannot be read."""
    try:
        return durable.read_json(folder / CONFIG) if (folder / CONFIG).exists() else {}
    except (OSError, ValueError):
        return None


def _split(name: str) -> tuple[str, str]:
    step, _, key = name.partition("/")
    return step, key
