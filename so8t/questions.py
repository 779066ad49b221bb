"""Where a benchmark's questions come from: files of a dataset at a pinned commit, or local files with their hashes.

Shared by the step that fetches them and the step that asks them. They are never trained on, so their licence is
recorded rather than limited to what training data may carry.
"""

from functools import cache
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field

from so8t.artifacts import hash_file
from so8t.errors import InputError
from so8t.section import Repository, Section, UserPath


def content_of(path: Path) -> str:
    """A local file's hash; computed again only where its size or time of change is another."""
    found = path.stat()
    return _hash(path, found.st_size, found.st_mtime_ns)


@cache
def _hash(path: Path, size_bytes: int, changed_ns: int) -> str:
    return hash_file(path)


class HubQuestions(Repository):
    """Files of a dataset on the Hub."""

    kind: Literal["hub"]
    files: Annotated[tuple[str, ...], Field(min_length=1)]
    """Paths in the repository, or patterns; Parquet, JSONL (also .gz), JSON or CSV."""
    licence: Annotated[str, Field(min_length=1)]
    """What the dataset's card must state. A card that states another stops the step."""
    checked: str = ""
    """Where you read the terms, if the card states none; kept as evidence."""


class FileQuestions(Section):
    """Local files."""

    kind: Literal["files"]
    paths: Annotated[tuple[UserPath, ...], Field(min_length=1)]
    """Parquet, JSONL (also .gz), JSON or CSV."""
    licence: Annotated[str, Field(min_length=1)]
    """Licence that you declare."""
    origin: Annotated[str, Field(min_length=1)]
    """Where they come from, with the version: for example owner/name@commit. Shown in the report."""
    sha256: tuple[str, ...] = ()
    """Of each file; empty takes the files as they are."""

    def pinned(self) -> Self:
        """With the files' hashes, which decide the key; InputError for files that are absent or others."""
        absent = [str(path) for path in self.paths if not path.is_file()]
        if absent:
            raise InputError(f"no file {', '.join(absent)}", "the files of benchmark.data", "mend the path")
        found = tuple(content_of(path) for path in self.paths)
        if self.sha256 and self.sha256 != found:
            raise InputError(f"{', '.join(map(str, self.paths))} have the hashes {found}", f"{self.sha256}")
        return self.model_copy(update={"sha256": found})


Questions = Annotated[HubQuestions | FileQuestions, Field(discriminator="kind")]
