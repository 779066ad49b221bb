"""Local files that a config names: they count by their content, not by their names."""

from functools import cache
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field

from so8t.artifacts import hash_file
from so8t.errors import InputError
from so8t.section import Section, UserPath


def content_of(path: Path) -> str:
    """A local file's hash; computed again only where its size or time of change is another."""
    found = path.stat()
    return _hash(path, found.st_size, found.st_mtime_ns)


@cache
def _hash(path: Path, size_bytes: int, changed_ns: int) -> str:
    return hash_file(path)


class LocalFiles(Section):
    """One file or more."""

    paths: Annotated[tuple[UserPath, ...], Field(min_length=1)]
    """Parquet, JSONL (also .gz), JSON or CSV."""
    sha256: tuple[str, ...] = ()
    """Of each file; empty takes the files as they are."""

    def pinned(self) -> Self:
        """With the files' hashes, which decide the key; InputError for files that are absent or others."""
        if absent := [str(path) for path in self.paths if not path.is_file()]:
            raise InputError(f"no file {', '.join(absent)}", "the files that the config names", "mend the path")
        found = tuple(content_of(path) for path in self.paths)
        if self.sha256 and self.sha256 != found:
            raise InputError(f"{', '.join(map(str, self.paths))} have the hashes {found}", f"{self.sha256}")
        return self.model_copy(update={"sha256": found})
