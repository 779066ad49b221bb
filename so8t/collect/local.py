"""A source of local files: our own Parquet, or JSONL with at least a prompt in each row."""

from collections.abc import Callable, Iterator
from pathlib import Path

from so8t import records
from so8t.artifacts import hash_file
from so8t.collect import tables
from so8t.collect.config import FilesSource
from so8t.collect.gathered import Gathered
from so8t.collect.rows import FIELDS, RowRefused, to_record
from so8t.errors import InputError
from so8t.records import Record

Report = Callable[[int, int, str], None]


def gather(config: FilesSource, report: Report) -> Gathered:
    """Rows of all files in order. Files are named by their last part, so no machine path is kept."""
    names = [path.name for path in config.paths]
    if len(set(names)) < len(names):
        raise InputError(f"two files of source {config.name} have the same name", "names that differ", "rename one")
    gathered = Gathered([], evidence={"files": []})
    for done, path in enumerate(config.paths):
        report(done, len(names), path.name)
        before = len(gathered.records)
        if path.suffix.lower() == ".parquet":
            tables.check(path)
            gathered.records += _ours(config, path)
        elif path.suffix.lower() == ".jsonl":
            _json_rows(config, path, gathered)
        else:
            raise InputError(f"{path.name} has an unknown format", "a .parquet or .jsonl file")
        evidence = {"file": path.name, "sha256": hash_file(path), "rows": len(gathered.records) - before}
        gathered.evidence["files"].append(evidence)
    return gathered


def _ours(config: FilesSource, path: Path) -> Iterator[Record]:
    for index, record in enumerate(records.iterate(path)):
        stated = record.licence or config.licence
        evidence = record.licence_evidence if record.licence else "declared in the config"
        yield record.with_(
            file=path.name, row=index, licence=stated, licence_evidence=evidence, split="", image=b"",
            id=record.id or f"{config.name}-{path.stem}-{index:06d}",
        )  # fmt: skip


def _json_rows(config: FilesSource, path: Path, gathered: Gathered) -> None:
    for index, row in tables.rows(path):
        defaults = Record(
            id=f"{config.name}-{path.stem}-{index:06d}", modality="text", language="", prompt="", source=config.name,
            file=path.name, row=index, licence=config.licence, licence_evidence="declared in the config",
        )  # fmt: skip
        unknown = sorted(set(row) - FIELDS)
        if unknown:
            raise InputError(
                f"{path} row {index} has the keys {unknown}", f"any of {sorted(FIELDS)}", "rename or drop them"
            )
        try:
            gathered.records.append(to_record(row, defaults))
        except RowRefused as reason:
            gathered.refused.append((defaults, str(reason)))
