"""preprocess.shard: what is done to each row by itself, for one shard of all rows in canonical order.

Writes rows.parquet (masked rows, pictures drawn), index.parquet (numbers by which rows are compared: a column a
number), keys.parquet (compare keys of texts) and looks.parquet (thumbnails of pictures).
"""

import hashlib
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from so8t import durable, records
from so8t.preprocess import contamination, language, media, minhash, pii, quality
from so8t.preprocess.config import Shard
from so8t.preprocess.normalise import compare_key
from so8t.preprocess.order import Reader, shard_of
from so8t.preprocess.pictures import UnreadableMedia, picture
from so8t.progress import Progress
from so8t.records import Record
from so8t.step import Facts, Inputs

BATCH = 512  # rows in memory at a time
BANDS = tuple(f"band_{number:02d}" for number in range(minhash.BANDS))
FEATURES = tuple(f"feature_{name}" for name in quality.FEATURES)
CONTENT = ("content_high", "content_low")
LOOKS = ("phash", "dhash")


@dataclass(frozen=True)
class Mapped:
    """A row and what is known of it without any other."""

    record: Record
    reason: str = ""  # why it goes in any case
    fault: str = ""  # why it goes unless it is kept in the NSFW pool
    language: str = ""
    key: str = ""
    seen: media.Seen | None = None


def run(config: Shard, inputs: Inputs, out: Path, progress: Progress) -> Facts:
    """Map the rows of one shard."""
    source = inputs["collected"].path / "records.parquet"
    chosen = shard_of(source, config.number, config.rows)
    questions = [inputs[role].path / "items.jsonl" for role in sorted(inputs) if role.startswith("questions.")]
    prompts = contamination.load(config.benchmark_prompts, questions)
    masked: Counter[str] = Counter()
    reader = Reader(source)
    tables: dict[str, list[Any]] = {"index": [], "keys": [], "looks": []}
    with records.Stream(out / "rows.parquet") as rows:
        for start in range(0, len(chosen), BATCH):
            progress.update(start, len(chosen), "masking and measuring")
            batch = [_map(record, config, prompts, masked) for record in reader.take(chosen[start : start + BATCH])]
            for mapped in batch:
                rows.add(mapped.record)
            for name, columns in _columns(batch, config.seed).items():
                tables[name].append(columns)
    for name, parts in tables.items():
        _write(out / f"{name}.parquet", parts)
    return {"rows": len(chosen), "masked": dict(sorted(masked.items()))}


def _write(path: Path, parts: list[Any]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.concat_tables(parts)
    hashes = set(BANDS) & set(table.column_names)
    kind = {column: "NONE" if column in hashes else "ZSTD" for column in table.column_names}
    coded = [column for column in table.column_names if column not in hashes]
    with durable.open_for_write(path) as file:
        pq.write_table(table, file, compression=kind, use_dictionary=coded, row_group_size=len(table))


def _map(record: Record, config: Shard, prompts: contamination.Contamination, masked: Counter[str]) -> Mapped:
    """Benchmark prompts are looked for before the masks could hide one."""
    found = prompts.holds(record.prompt) or prompts.holds(record.response)
    record = _masked(record, masked)
    known = Mapped(record, contamination.REASON if found else "", language=language.identify(record.prompt))
    if record.modality == "text":
        return replace(known, key=compare_key(record.prompt), fault=quality.broken(record.prompt))
    try:
        drawn = record.with_(image=picture(record, config))
    except UnreadableMedia as reason:
        return replace(known, fault=str(reason))
    return replace(known, record=drawn, seen=media.seen(record))


def _masked(record: Record, counts: Counter[str]) -> Record:
    prompt, found = pii.mask(record.prompt)
    response, more = pii.mask(record.response)
    counts.update(found + more)
    return record.with_(prompt=prompt, response=response) if found or more else record


def _columns(batch: list[Mapped], seed: int) -> dict[str, Any]:
    """Arrow tables by the name of their file."""
    import pyarrow as pa

    rows = [mapped.record for mapped in batch]
    texts = [row.modality == "text" for row in rows]
    blank = [0.0] * len(FEATURES)
    measured = [quality.features(row.prompt) if text else blank for row, text in zip(rows, texts, strict=True)]
    looks = [mapped.seen for mapped in batch]
    contents = [("text", mapped.key) if mapped.key else media.content(mapped.record) for mapped in batch]
    content_N2 = np.array([_halves(*content) for content in contents], np.uint64)
    asked = [
        0 if text else _halves(compare_key(row.prompt), row.answer)[0] for row, text in zip(rows, texts, strict=True)
    ]
    bands_BN = minhash.bands([mapped.key for mapped in batch], len(batch), seed)
    bits_N2 = np.array([look.bits if look else (0, 0) for look in looks], np.uint64)
    index = {
        "id": [row.id for row in rows],
        "group": [row.group for row in rows],
        "source": [row.source for row in rows],
        "label": np.array([row.label for row in rows], np.int8),
        "nsfw": [row.nsfw for row in rows],
        "text": texts,
        "language": [mapped.language or row.language for mapped, row in zip(batch, rows, strict=True)],
        "reason": [mapped.reason for mapped in batch],
        "fault": [mapped.fault for mapped in batch],
        **dict(zip(CONTENT, content_N2.T, strict=True)),
        "asked": np.array(asked, np.uint64),
        **dict(zip(FEATURES, np.array(measured).T, strict=True)),
        **dict(zip(BANDS, bands_BN, strict=True)),
        "seen": [look is not None for look in looks],
        **dict(zip(LOOKS, bits_N2.T, strict=True)),
    }
    return {
        "index": pa.table(index),
        "keys": pa.table({"key": [mapped.key for mapped in batch]}),
        "looks": pa.table({"thumbnail": [look.thumbnail.tobytes() if look else b"" for look in looks]}),
    }


def _halves(*parts: str) -> tuple[int, int]:
    digest = hashlib.blake2b("\0".join(parts).encode("utf-8", "surrogatepass"), digest_size=16).digest()
    return int.from_bytes(digest[:8], "big"), int.from_bytes(digest[8:], "big")
