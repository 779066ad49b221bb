"""The parent of every config section: typed once, frozen, unknown keys refused."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Revision = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]


class Section(BaseModel):
    """A config section. Field docstrings are the documentation (`so8t config schema` prints them)."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Repository(Section):
    """A repository on the Hub at a pinned commit."""

    id: Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")]
    """Owner/name."""
    revision: Revision
    """Commit, 40 hex digits."""
