"""What a cut, a bad disk or a careless hand does to a checkpoint folder.

Each damage takes the newest checkpoint's folder; its files and the folder of the one before are given too.
"""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

Damage = Callable[[Path], None]


def truncate(path: Path) -> None:
    """The end is lost."""
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])


def flip(path: Path) -> None:
    """One bit, in the middle."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def zero(path: Path) -> None:
    """The length is on the disk and the data is not."""
    path.write_bytes(bytes(path.stat().st_size))


def empty(path: Path) -> None:
    """Created, never written."""
    path.write_bytes(b"")


def remove(path: Path) -> None:
    """Never created."""
    path.unlink()


def of_files(names: Sequence[str]) -> dict[str, Damage]:
    """Five kinds for each file."""
    kinds = {"truncated": truncate, "bit flip": flip, "zeros": zero, "empty": empty, "missing": remove}

    def at(name: str, kind: Damage) -> Damage:
        return lambda folder: kind(folder / name)

    return {f"{name}: {words}": at(name, kind) for name in names for words, kind in kinds.items()}


def torn_tail(name: str) -> Damage:
    """The last pages were never written: the size is right."""

    def damage(folder: Path) -> None:
        data = (folder / name).read_bytes()
        kept = max(0, len(data) - 4096) if len(data) > 8192 else len(data) // 2
        (folder / name).write_bytes(data[:kept] + bytes(len(data) - kept))

    return damage


def half_written_newer(name: str, suffix: str = "") -> Damage:
    """A newer checkpoint of which only half of one file exists."""

    def damage(folder: Path) -> None:
        kind, _, number = folder.name.rpartition("-")
        newer = folder.with_name(f"{kind}-{int(number) + 1}{suffix}")
        newer.mkdir()
        shutil.copy(folder / name, newer / name)
        truncate(newer / name)

    return damage


def swap_in(name: str, before: Callable[[Path], Path]) -> Damage:
    """A file of the checkpoint before."""
    return lambda folder: shutil.copy(before(folder) / name, folder / name)


def empty_folder(folder: Path) -> None:
    """Only the folder's entry reached the disk."""
    shutil.rmtree(folder)
    folder.mkdir()
