"""A source of local files: our own Parquet; JSONL, JSON or CSV with a prompt in each row; archives of the latter.

A row's `media` names a picture or a sound beside its file (or in its archive). Memory holds one shard of rows.
"""

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from so8t import durable, records
from so8t.artifacts import HASH_CHUNK_BYTES, hash_file, hash_json
from so8t.collect import archives, tables
from so8t.collect.config import FilesSource
from so8t.collect.gathered import Gathered, note
from so8t.collect.media import BYTES_MAX, Media, NotMedia, recognise
from so8t.collect.rows import FIELDS, RowRefused, declared, to_record
from so8t.collect.shards import FETCHED, SHARDS, Place, Shards
from so8t.errors import InputError
from so8t.progress import Progress
from so8t.records import Record

MEDIA_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".wav", ".flac", ".ogg", ".opus")
ReadMedia = Callable[[str], bytes]
# (record, reason why it is none or "", number of the next row)
Mapped = tuple[Record, str, int]


def gather(config: FilesSource, out: Path, progress: Progress) -> Gathered:
    """Rows of all files in order. Files are named by their last part, so no machine path is kept."""
    names = [path.name for path in config.paths]
    if len(set(names)) < len(names):
        raise InputError(f"two files of source {config.name} have the same name", "names that differ", "rename one")
    for path in config.paths:
        _check(path)
    config.pinned()  # they may have changed since the key was made
    files = [{"file": path.name, "sha256": hash_file(path), "size_bytes": path.stat().st_size} for path in config.paths]

    def say(problem: str) -> None:
        note(progress, f"{config.name}: {problem}")

    shards = Shards(out / SHARDS, {"name": config.name, "files": hash_json(files)}, say)
    place = shards.place()
    for number in range(place.file, len(names)):
        progress.update(number, len(names), names[number])
        start = place.row if number == place.file else 0
        for record, reason, behind in _rows(config, config.paths[number], out / FETCHED, start):
            shards.add(record, reason, Place(number, behind))
        shards.commit(Place(number + 1, 0, ended=number + 1 == len(names)))
    return Gathered([], evidence={"evidence_id": f"files:{config.name}", "files": files}, shards=(shards,))


def _check(path: Path) -> None:
    if path.name.lower().endswith(MEDIA_SUFFIXES):
        raise InputError(
            f"{path.name} is media alone", "a .jsonl or .csv file whose rows have a prompt and name it under `media`",
            "write one beside it and name that under paths",
        )  # fmt: skip
    if not archives.is_archive(path):
        tables.check(path)
        return
    with archives.opened(path) as archive:
        if not _listings(archive):
            raise InputError(f"{path} holds no rows", "a .jsonl, .json or .csv member")


def _rows(config: FilesSource, path: Path, scratch: Path, start: int) -> Iterator[Mapped]:
    if tables.suffix(path.name) == ".parquet":
        yield from islice(_ours(config, path), start, None)
    elif archives.is_archive(path):
        yield from islice(_packed(config, path, scratch), start, None)
    else:
        for index, row in tables.rows(path, start):
            yield _mapped(config, path.name, row, index, lambda name: _beside(path.parent, name))


def _ours(config: FilesSource, path: Path) -> Iterator[Mapped]:
    for index, record in enumerate(records.iterate(path)):
        stated = record.licence or config.licence
        evidence = record.licence_evidence if record.licence else "declared in the config"
        record = record.with_(
            file=path.name, row=index, licence=stated, licence_evidence=evidence, split="", image=b"",
            id=record.id or f"{config.name}-{path.stem}-{index:06d}", nsfw=record.nsfw or config.nsfw,
        )  # fmt: skip
        yield record.with_(**declared(config.label)) if record.label < 0 else record, "", index + 1


def _packed(config: FilesSource, path: Path, scratch: Path) -> Iterator[Mapped]:
    """Rows of an archive's listings, numbered through; each listing is unpacked under a name of ours."""
    number = 0
    with archives.opened(path) as archive:
        for listing in _listings(archive):
            unpacked = scratch / f"listing{tables.suffix(listing)}"
            with archive.open(listing) as member, durable.open_for_write(unpacked) as file:
                while chunk := member.read(HASH_CHUNK_BYTES):
                    file.write(chunk)
            folder = listing.rpartition("/")[0]

            def read(name: str, folder: str = folder) -> bytes:
                return _member(archive, f"{folder}/{name}".lstrip("/"))

            shown = f"{path.name}/{listing}"
            for index, row in tables.rows(unpacked, shown=shown):
                record, reason, _ = _mapped(config, shown, row, index, read)
                number += 1
                yield record, reason, number
            unpacked.unlink()


def _listings(archive: archives.Archive) -> list[str]:
    return sorted(name for name in archive.members if tables.suffix(name) not in ("", ".parquet"))


def _mapped(config: FilesSource, name: str, row: dict[str, Any], index: int, read: ReadMedia) -> Mapped:
    stem = name.rpartition(".")[0].replace("/", "-") if "/" in name else Path(name).stem
    defaults = Record(
        id=f"{config.name}-{stem}-{index:06d}", modality="text", language="", prompt="", source=config.name,
        file=name, row=index, licence=config.licence, licence_evidence="declared in the config", nsfw=config.nsfw,
    ).with_(**declared(config.label))  # fmt: skip
    unknown = sorted(str(key) for key in set(row) - FIELDS)
    if unknown:
        raise InputError(
            f"{name} row {index} has the keys {unknown}", f"any of {sorted(FIELDS)}", "rename or drop them"
        )
    try:
        record = to_record(row, defaults, _media(row.get("media"), read))
        return record.with_(nsfw=record.nsfw or config.nsfw), "", index + 1
    except RowRefused as reason:
        return defaults, str(reason), index + 1


def _media(name: object, read: ReadMedia) -> Media | None:
    if name is None or name == "":
        return None
    if not isinstance(name, str) or archives.leaves_its_folder(name):
        raise RowRefused("the media's name points out of its folder")
    try:
        return recognise(read(name))
    except NotMedia as error:
        raise RowRefused(str(error)) from None


def _beside(folder: Path, name: str) -> bytes:
    path = folder / name
    # A link within the folder may lead out of it.
    if not path.resolve().is_relative_to(folder.resolve()):
        raise RowRefused("the media's name points out of its folder")
    if not path.is_file():
        raise RowRefused("its media is not there")
    if path.stat().st_size > BYTES_MAX:
        raise RowRefused(f"media of more than {BYTES_MAX >> 20} MiB")
    return path.read_bytes()


def _member(archive: archives.Archive, name: str) -> bytes:
    if name not in archive.members:
        raise RowRefused("its media is not there")
    if archive.members[name] > BYTES_MAX:
        raise RowRefused(f"media of more than {BYTES_MAX >> 20} MiB")
    with archive.open(name) as file:
        return file.read(BYTES_MAX + 1)
