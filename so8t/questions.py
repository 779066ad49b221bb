"""Where a benchmark's questions come from: files of a dataset at a pinned commit, or local files with their hashes.

Shared by the step that fetches them and the step that asks them. They are never trained on, so their licence is
recorded rather than limited to what training data may carry.
"""

from typing import Annotated, Literal

from pydantic import Field

from so8t.local_files import LocalFiles
from so8t.section import Repository


class HubQuestions(Repository):
    """Files of a dataset on the Hub."""

    kind: Literal["hub"]
    files: Annotated[tuple[str, ...], Field(min_length=1)]
    """Paths in the repository, or patterns; Parquet, JSONL (also .gz), JSON or CSV."""
    licence: Annotated[str, Field(min_length=1)]
    """What the dataset's card must state. A card that states another stops the step."""
    checked: str = ""
    """Where you read the terms, if the card states none; kept as evidence."""


class FileQuestions(LocalFiles):
    """Local files."""

    kind: Literal["files"]
    licence: Annotated[str, Field(min_length=1)]
    """Licence that you declare."""
    origin: Annotated[str, Field(min_length=1)]
    """Where they come from, with the version: for example owner/name@commit. Shown in the report."""


Questions = Annotated[HubQuestions | FileQuestions, Field(discriminator="kind")]
