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
    """Seed of weights, of the text and of its order."""
    steps: Annotated[int, Field(ge=1)] = 120
    """Pretraining steps."""
    batch: Annotated[int, Field(ge=1)] = 12
    """Windows of text a step."""
    length: Annotated[int, Field(ge=8, le=512)] = 128
    """Tokens a window."""
    learning_rate: Annotated[float, Field(gt=0, le=0.1)] = 3.0e-3
    """Peak rate of AdamW: linear warm-up, then a cosine to a tenth."""
    vocabulary: Annotated[int, Field(ge=1000, le=4000)] = 2000
    """SentencePiece pieces, the 256 bytes included."""
    hidden: Annotated[int, Field(ge=64, multiple_of=64)] = 256
    """Width; one attention head for each 64. K-quants need a multiple of 256."""
    layers: Annotated[int, Field(ge=2)] = 4
    """Transformer blocks."""


class LocalBase(Section):
    """A Phi-3-family model in a local folder laid out like a Hub repository.

    The key knows the path, not the files in it: after they change, name the folder differently
    or remove the finished artifact.
    """

    kind: Literal["local"]
    path: Path
    """The folder. Its files are copied, so it may go away afterwards."""


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

    sources: Annotated[
        tuple[Annotated[DemoSource | FilesSource, Field(discriminator="kind")], ...], Field(min_length=1)
    ]
    licences: tuple[str, ...] = ("mit", "apache-2.0")
    """Licences that pass the gate; anything else, or none, is refused."""
