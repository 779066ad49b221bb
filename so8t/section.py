"""The parent of every config section: typed once, frozen, unknown keys refused."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo

Revision = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
# A shipped config cannot know which commit you looked at; with this, nothing is fetched.
UNPINNED = "unpinned"


def _beside(path: Path, info: ValidationInfo) -> Path:
    """Against the folder of the config file, where there is one: whoever runs it later stands elsewhere."""
    return Path((info.context or {}).get("folder", ""), path.expanduser())


# A relative path in a config file is meant from that file's folder, in --set too.
UserPath = Annotated[Path, AfterValidator(_beside)]


class Section(BaseModel):
    """A config section. Field docstrings are the documentation (`so8t config schema` prints them)."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Repository(Section):
    """A repository on the Hub at a pinned commit."""

    id: Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")]
    """Owner/name."""
    revision: Revision | Literal["unpinned"]
    """Commit, 40 hex digits. With `unpinned` the config loads but nothing is fetched; `so8t plan --pin` asks the Hub."""
