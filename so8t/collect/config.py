"""Config of the base model and of the data sources."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from so8t.collect.web.config import WebSource
from so8t.local_files import LocalFiles
from so8t.section import Repository, Revision, Section, UserPath

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
ClassName = Literal["", "ALLOW", "ESCALATION", "DENY", "REFUSE"]


class DemoBase(Section):
    """A small Phi-3 made and briefly pretrained here."""

    kind: Literal["demo"]
    seed: int = 0
    """Seed of weights, of the text and of its order."""
    steps: Annotated[int, Field(ge=1)] = 120
    """Pretraining steps."""
    batch: Annotated[int, Field(ge=1)] = 8
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
    or remove the finished artifact. Preflight says where they have changed.
    """

    kind: Literal["local"]
    path: UserPath
    """The folder. Its files are copied, so it may go away afterwards."""


class HubBase(Repository):
    """A Phi-3-family model on the Hub at a pinned revision."""

    kind: Literal["hub"]


Base = Annotated[DemoBase | LocalBase | HubBase, Field(discriminator="kind")]


class DemoSource(Section):
    """A source that comes with the package."""

    kind: Literal["demo"]
    name: Name
    """Name of the part."""
    set: Literal["digits", "tones", "prompts"]
    """Digits: 8x8 scans. Tones: the 16 keys of a telephone. Prompts: four classes, Japanese and English."""
    seed: int = 0
    """Seed of the tones' noise, level, frequency offset and timing."""
    count: Annotated[int, Field(ge=16)] = 1200
    """How many tones, spread evenly over the keys. Digits and prompts have a fixed number."""
    accept: tuple[str, ...] = ()
    """Further licences that you accept for this source alone: the digits are cc-by-4.0."""


class FilesSource(LocalFiles):
    """Local files in this project's row format, with pictures and sounds beside them."""

    kind: Literal["files"]
    name: Name
    """Name of the part."""
    paths: Annotated[tuple[UserPath, ...], Field(min_length=1)]
    """The files; the end of the name says which format: .parquet as collect writes it, .jsonl (also .gz), .json, .csv, or
    a .zip, .tar or .tar.gz of such. A row's `media` names a PNG, JPEG, WebP, WAV, FLAC or Ogg file relative to its own. A
    file that was changed is collected again; a changed medium outside an archive counts once its row's file changes."""
    licence: str
    """Licence that you declare for rows that state none."""
    label: ClassName = ""
    """Class of rows that come without one, where you vouch for all of them; their label_source is `rule`."""
    accept: tuple[str, ...] = ()
    """Further licences that you accept for this source alone."""
    nsfw: bool = False
    """All rows belong to the NSFW pool."""


class HubSource(Section):
    """Files of a dataset on the Hub at a pinned revision."""

    kind: Literal["hub"]
    name: Name
    """Name of the part."""
    id: Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")]
    """Dataset, owner/name."""
    revision: Revision | Literal["unpinned"]
    """Commit, 40 hex digits. With `unpinned` the config loads but nothing is fetched; `so8t plan --pin` asks the Hub."""
    files: Annotated[tuple[str, ...], Field(min_length=1)]
    """Paths in the repository, or patterns such as data/*.parquet; Parquet, JSONL (also .gz), JSON or CSV."""
    columns: dict[str, str]
    """Our field -> their column; `prompt` or `messages` is needed. Fields: prompt, response, answer, category, label,
    language, group; messages (a conversation, of which the first turn is taken); media (pictures or sounds)."""
    language: Literal["ja", "en"]
    """Language of rows without a language column."""
    label: ClassName = ""
    """Class of rows that come without one, where you vouch for all of them; their label_source is `rule`."""
    rows_max: Annotated[int, Field(ge=1)] = 50_000
    """Rows taken from each file, from its start."""
    licences: tuple[str, ...] = ("mit", "apache-2.0")
    """What the dataset's card may state; otherwise nothing but its metadata is read."""
    accept: tuple[str, ...] = ()
    """Further licences that you accept for this source alone."""
    checked_upstreams: dict[str, str] = Field(default_factory=dict)
    """Upstream that the dataset (or its README) names -> where you read that its terms allow this use; kept as evidence."""
    nsfw: bool = False
    """All rows belong to the NSFW pool; so they do where the dataset's tags say it."""
    unavailable: Literal["skip", "fail"] = "skip"
    """A gated, private or absent dataset: `skip` leaves the source empty and says why, `fail` stops. With a new token
    set `fail`: the skipped source is then asked for again."""

    @field_validator("columns")
    @classmethod
    def _known_columns(cls, columns: dict[str, str]) -> dict[str, str]:
        known = {"prompt", "messages", "response", "answer", "category", "label", "language", "group", "media"}
        if len({"prompt", "messages"} & set(columns)) != 1 or set(columns) - known:
            raise ValueError(f"wants either prompt or messages, and any of {sorted(known)}, found {sorted(columns)}")
        return columns


class HubQuery(Section):
    """Datasets that the Hub lists under a language and an allowed licence; card, tags and files of each decide.

    What the Hub lists changes, so the finished artifact, not the config, says what was taken. For a run that others
    can repeat, name the datasets as `hub` sources at the commits that it found.
    """

    kind: Literal["hub_query"]
    name: Name
    """Name of the part."""
    language: Literal["ja", "en"]
    """Language that the datasets declare, and of rows without a language column."""
    licences: Annotated[tuple[str, ...], Field(min_length=1)] = ("mit", "apache-2.0")
    """Each is asked for in a listing of its own; also what a card may state."""
    accept: tuple[str, ...] = ()
    """Further licences that a card may state."""
    datasets_max: Annotated[int, Field(ge=1, le=100)] = 5
    """Datasets taken, most downloaded first."""
    bytes_max: Annotated[int, Field(ge=1)] = 2_000_000_000
    """A dataset whose data files are larger is left out."""
    rows_max: Annotated[int, Field(ge=1)] = 50_000
    """Rows taken from each file, from its start."""
    exclude: tuple[str, ...] = ()
    """Ids that are never taken."""


Source = Annotated[DemoSource | FilesSource | HubSource | HubQuery | WebSource, Field(discriminator="kind")]


class Collect(Section):
    """Which data is gathered."""

    sources: Annotated[tuple[Source, ...], Field(min_length=1)]
    """Each is a part of its own: fetched, cached and retried alone."""
    licences: tuple[str, ...] = ("mit", "apache-2.0")
    """Licences that pass the gate; anything else, or none, is refused."""

    @field_validator("sources")
    @classmethod
    def _names_differ(cls, sources: tuple[Source, ...]) -> tuple[Source, ...]:
        names = [source.name for source in sources]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two sources are named {', '.join(twice)}")
        return sources
