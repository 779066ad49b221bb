"""Config of the base model and of the data sources."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from so8t.section import Section

Revision = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]


class DemoBase(Section):
    """A small Phi-3 made and briefly pretrained here."""

    kind: Literal["demo"]
    seed: int = 0
    """Seed of weights and of the order of the text."""
    steps: Annotated[int, Field(ge=1)] = 200
    """Pretraining steps."""


class LocalBase(Section):
    """A Phi-3-family model in a local folder laid out like a Hub repository."""

    kind: Literal["local"]
    path: Path
    """The folder."""


class HubBase(Section):
    """A Phi-3-family model on the Hub at a pinned revision."""

    kind: Literal["hub"]
    id: str
    """Repository, owner/name."""
    revision: Revision
    """Commit, 40 hex digits."""


Base = Annotated[DemoBase | LocalBase | HubBase, Field(discriminator="kind")]


class DemoSource(Section):
    """A source that comes with the package."""

    kind: Literal["demo"]
    name: Name
    """Name of the part."""
    set: Literal["digits", "tones", "prompts"]
    """Which one."""
    seed: int = 0


class FilesSource(Section):
    """Local Parquet or JSONL files in this project's row format."""

    kind: Literal["files"]
    name: Name
    paths: Annotated[tuple[Path, ...], Field(min_length=1)]
    licence: str
    """Licence that you declare for these files; it must be an allowed one."""


class Collect(Section):
    """Which data is gathered."""

    sources: Annotated[tuple[Annotated[DemoSource | FilesSource, Field(discriminator="kind")], ...], Field(min_length=1)]
    licences: tuple[str, ...] = ("mit", "apache-2.0")
    """Licences that pass the gate; anything else, or none, is refused."""
