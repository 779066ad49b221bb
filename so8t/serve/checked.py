"""Is a model file the one that was made? By the manifest of the artifact, or the SHA256SUMS of the repository, it lies in."""

from pathlib import Path

from pydantic import ValidationError

from so8t.artifacts import MANIFEST, hash_file, load
from so8t.errors import InputError

SUMS = "SHA256SUMS"
MAGIC = b"GGUF"
# <key>/gguf/NAME.gguf, <key>/repository/gguf/NAME.gguf
LEVELS = 3


def check(path: Path) -> str:
    """The file's sha256. InputError for one that is absent or no GGUF, or that is not what was written down."""
    try:
        with path.open("rb") as file:
            magic = file.read(len(MAGIC))
    except OSError as error:
        raise InputError(
            f"cannot read {path} ({error.strerror})", "a GGUF file", "so8t status names the artifacts"
        ) from None
    if magic != MAGIC:
        raise InputError(f"{path} is no GGUF file", "a file that begins with GGUF", "a Git-LFS pointer looks like this")
    found = hash_file(path)
    for wanted, source in _recorded(path.resolve()):
        if found != wanted:
            raise InputError(
                f"{path} is damaged: sha256 {found[:12]}.., {source} says {wanted[:12]}..",
                "the bytes that were written",
                "`so8t verify` sets a damaged artifact aside, `so8t run` makes it again; or download it again",
            )
    return found


def _recorded(path: Path) -> list[tuple[str, Path]]:
    """(sha256, where it is written) of every list that stands above the file and names it."""
    found = []
    for folder in path.parents[:LEVELS]:
        name = path.relative_to(folder).as_posix()
        for source, hashes in ((folder / MANIFEST, _manifest), (folder / SUMS, _sums)):
            if source.is_file() and name in (known := hashes(source)):
                found.append((known[name], source))
    return found


def _manifest(path: Path) -> dict[str, str]:
    try:
        return {entry.path: entry.sha256 for entry in load(path.parent).manifest.files}
    except (ValidationError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read ({type(error).__name__})",
            "the manifest of the artifact that the model lies in",
            "run `so8t verify`, then `so8t run`; or move the model away from a manifest.json that is not its own",
        ) from None


def _sums(path: Path) -> dict[str, str]:
    lines = (line.split(maxsplit=1) for line in path.read_text(encoding="utf-8").splitlines())
    return {name.removeprefix("*"): digest for digest, name in (line for line in lines if len(line) == 2)}
