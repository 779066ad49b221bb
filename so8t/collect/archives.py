"""Archives with rows and media: looked through before anything is read, and never unpacked under their own names."""

import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO

from so8t.errors import InputError

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")
MEMBERS_MAX = 1_000_000
MEMBER_BYTES_MAX = 64 << 30
# Text packs to a tenth; what packs to a thousandth is made to fill disks.
RATIO_MAX = 1000


def is_archive(path: Path) -> bool:
    """Whether a file is read as an archive."""
    return path.name.lower().endswith(SUFFIXES)


def leaves_its_folder(name: str) -> bool:
    """Whether a relative name, read on any system, points out of the folder that it is relative to."""
    parts = {*PurePosixPath(name).parts, *PureWindowsPath(name).parts}
    windows = PureWindowsPath(name)
    return not name or ".." in parts or name.startswith(("/", "\\")) or bool(windows.drive) or "\x00" in name


@dataclass
class Archive:
    """An archive whose members were all looked at."""

    shown: str
    file: zipfile.ZipFile | tarfile.TarFile
    members: dict[str, int]  # name -> size in bytes

    @contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        """A member's bytes; InputError where they cannot be unpacked."""
        try:
            if isinstance(self.file, zipfile.ZipFile):
                with self.file.open(name) as member:
                    yield member
            else:
                unpacked = self.file.extractfile(name)
                assert unpacked is not None, "only regular files are members"
                with unpacked:
                    yield unpacked
        except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError) as error:
            raise InputError(f"{self.shown}: {name} is broken: {error}", "a whole archive") from error


@contextmanager
def opened(path: Path) -> Iterator[Archive]:
    """The archive; InputError where a member would leave the folder, is a link or a device, or unpacks without end."""
    try:
        if path.name.lower().endswith(".zip"):
            with zipfile.ZipFile(path) as packed:
                yield Archive(path.name, packed, _of_zip(path, packed))
        else:
            with tarfile.open(path, "r:*") as unpacked:
                yield Archive(path.name, unpacked, _of_tar(path, unpacked))
    except FileNotFoundError:
        raise InputError(f"{path} is not there", "an archive") from None
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError) as error:
        raise InputError(
            f"{path} is no whole archive: {error}", "a whole .zip or .tar file", "fetch it again"
        ) from error


def _of_zip(path: Path, packed: zipfile.ZipFile) -> dict[str, int]:
    members: dict[str, int] = {}
    for entry in packed.infolist():
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if entry.is_dir():
            _admit(path, entry.filename, 0, members)
            continue
        # Python turns backslashes into slashes on Windows alone; the name as written counts.
        name = entry.orig_filename
        fault = (
            "is a link or a device" if kind not in (0, stat.S_IFREG) else "is encrypted" if entry.flag_bits & 1 else ""
        )
        if not fault and entry.file_size > RATIO_MAX * max(1, entry.compress_size):
            fault = f"unpacks to more than {RATIO_MAX} times its size"
        _admit(path, name, entry.file_size, members, fault)
        members[entry.filename] = entry.file_size
    return members


def _of_tar(path: Path, unpacked: tarfile.TarFile) -> dict[str, int]:
    members: dict[str, int] = {}
    packed_bytes = path.stat().st_size
    for entry in unpacked:
        fault = "" if entry.isfile() or entry.isdir() else "is a link or a device"
        if entry.size > RATIO_MAX * packed_bytes:
            fault = f"unpacks to more than {RATIO_MAX} times the archive"
        _admit(path, entry.name, entry.size, members, fault)
        if entry.isfile():
            members[entry.name] = entry.size
    return members


def _admit(path: Path, name: str, size_bytes: int, members: dict[str, int], fault: str = "") -> None:
    """InputError for a member that a careful reader leaves alone; then nothing of the archive is read."""
    if leaves_its_folder(name):
        fault = "points out of the archive's folder"
    elif name in members:
        fault = "is there twice"
    elif len(members) >= MEMBERS_MAX or size_bytes > MEMBER_BYTES_MAX:
        fault = "is one too many, or too large"
    if fault:
        raise InputError(
            f"{path}: its member {name[:100]!r} {fault}", "an archive of plain files below one folder", "pack it anew"
        )
