"""The parent of every config section: typed once, frozen, unknown keys refused."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Revision = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
# A shipped config cannot know which commit you looked at; with this, nothing is fetched.
UNPINNED = "unpinned"


class Section(BaseModel):
    """A config section. Field docstrings are the documentation (`so8t config schema` prints them)."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Repository(Section):
    """A repository on the Hub at a pinned commit."""

    id: Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")]
    """Owner/name."""
    revision: Revision | Literal["unpinned"]
    """Commit, 40 hex digits. With `unpinned` the config loads but nothing is fetched; `so8t plan --pin` asks the Hub."""
