"""The config that a run was asked for, kept beside its session: whoever looks later need not name it again."""

from pathlib import Path

from pydantic import ValidationError

from so8t import durable
from so8t.config import Config
from so8t.session import sessions

FILE = "config.json"


def note(folder: Path, config: Config) -> None:
    """Keep the config in a run's session folder; without the home, which may be moved."""
    durable.write_text(folder / FILE, config.model_dump_json(indent=2, exclude={"machine": {"home"}}) + "\n")


def newest(home: Path) -> Config | None:
    """The config of the run with the newest progress; None without one, or where this version cannot read it."""
    for session in sessions(home):
        path = home / "sessions" / session.session_id / FILE
        if session.kind == "run" and path.is_file():
            try:
                config = Config.model_validate(durable.read_json(path))
            except (ValueError, ValidationError):
                return None
            return config.model_copy(update={"machine": config.machine.model_copy(update={"home": home})})
    return None
