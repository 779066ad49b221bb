"""Where everything came from: from each published file to its artifact, its inputs, and the sources of the data.

Artifacts are named by content, which is what an input counts by. Keys, code and machine stand in
the receipt, because they may differ between runs that made the same bytes.
"""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from so8t import durable
from so8t.artifacts import Artifact, Store
from so8t.errors import InputError
from so8t.step import Inputs
from so8t.upload.repository import Entry

# What leads from one sample to its source; no text of it is published.
SAMPLE_FIELDS = (
    "id",
    "source",
    "revision",
    "file",
    "row",
    "licence",
    "licence_evidence",
    "modality",
    "language",
    "label_source",
)
ROW_FIELDS = ("split", "source", "revision", "licence", "language", "modality")
SPLITS = ("train", "validation", "test", "labelled", "nsfw")
SEPARATOR = ";"


def lineage(inputs: Inputs, home: Path) -> dict[str, Artifact]:
    """Every artifact that the inputs were made from, by content; one that has left the store is left out."""
    store = Store(home)
    found: dict[str, Artifact] = {}
    waiting = list(inputs.values())
    while waiting:
        artifact = waiting.pop()
        if artifact.content in found:
            continue
        found[artifact.content] = artifact
        upstream = (store.peek(entry.step, entry.key) for entry in artifact.manifest.inputs.values())
        waiting += [artifact for artifact in upstream if artifact is not None]
    return found


def count_rows(data: Path) -> list[dict[str, Any]]:
    """Rows of the prepared data by split, source, revision, licence, language and modality."""
    import pyarrow.parquet as pq

    counts: Counter[tuple[str, ...]] = Counter()
    for split in SPLITS:
        path = data / f"{split}.parquet"
        if path.is_file():
            columns = [name for name in ROW_FIELDS if name != "split"]
            for batch in pq.ParquetFile(path).iter_batches(columns=columns):
                counts.update((split, *row) for row in zip(*(batch[name].to_pylist() for name in columns), strict=True))
    return [{**dict(zip(ROW_FIELDS, row, strict=True)), "rows": count} for row, count in sorted(counts.items())]


def write_samples(path: Path, data: Path) -> int:
    """Every sample of the prepared data by id, with split and source, one JSON line each; gives their number."""
    import pyarrow.parquet as pq

    count = 0
    with durable.open_for_write(path) as file:
        for split in SPLITS:
            found = data / f"{split}.parquet"
            for batch in pq.ParquetFile(found).iter_batches(columns=list(SAMPLE_FIELDS)) if found.is_file() else ():
                for row in batch.to_pylist():
                    text = json.dumps({"split": split, **row}, ensure_ascii=False, separators=(",", ":"))
                    file.write(f"{text}\n".encode())
                    count += 1
    return count


def check_licences(rows: list[dict[str, Any]], allowed: set[str]) -> None:
    """InputError where a row's licence is none of those that its collection allowed: the gate was passed by."""
    for row in rows:
        stated = {part.strip() for part in row["licence"].lower().split(SEPARATOR) if part.strip()}
        if not stated or not stated <= allowed:
            raise InputError(
                f"{row['rows']} rows of {row['source']} are under {row['licence'] or 'no licence'}",
                f"only {', '.join(sorted(allowed))}",
                "remove the source from the config, or state its licence there, and run again",
            )


def allowed_licences(collected: Path) -> set[str]:
    """What the sources' own gates allowed."""
    listed = durable.read_json(collected / "sources.json")["sources"]
    return {licence.strip().lower() for source in listed for licence in source["allowed"]}


def datasets(collected: Path) -> list[str]:
    """Ids of the Hub's datasets that rows were taken from."""
    listed = durable.read_json(collected / "sources.json")["sources"]
    return sorted(
        {str(s["id"]) for s in listed if str(s.get("kind", "")).startswith("hub") and s["passed"] and s.get("id")}
    )


def attributions(collected: Path) -> list[str]:
    """Whom the sources' licences want named."""
    listed = durable.read_json(collected / "sources.json")["sources"]
    named = {str((source.get("evidence") or {}).get("attribution") or "") for source in listed}
    return sorted(named - {""})


def choose_licence(wanted: str | None, base: Artifact) -> str:
    """The licence of the model: the base's. InputError where the base states none, or the config another."""
    stated = str(base.manifest.facts.get("licence") or "").lower()
    if not stated:
        raise InputError(
            "the base model states no licence", "a licence on its model card", "choose a base that has one"
        )
    if wanted not in (None, stated):
        raise InputError(
            f"upload.licence is {wanted}, the base model's is {stated}", stated, "leave upload.licence out"
        )
    return stated


def provenance(
    entries: list[Entry], inputs: Inputs, found: dict[str, Artifact], rows: list[dict[str, Any]]
) -> dict[str, Any]:
    """The content of provenance.json."""
    base = inputs["base"].manifest
    return {
        "format": "so8t-provenance-1",
        "files": {
            entry.path: {
                "sha256": entry.sha256,
                "size_bytes": entry.size_bytes,
                "step": inputs[entry.role].manifest.step,
                "content": inputs[entry.role].content,
                "file": entry.file,
            }
            for entry in entries
        },
        "artifacts": {
            content: {
                "step": artifact.manifest.step,
                "version": artifact.manifest.version,
                "inputs": {role: made.content for role, made in sorted(artifact.manifest.inputs.items())},
            }
            for content, artifact in sorted(found.items())
        },
        "base": {name: base.config[name] for name in ("kind", "id", "revision", "seed") if name in base.config},
        "data": rows,
    }


def origins(found: dict[str, Artifact]) -> dict[str, Any]:
    """For the receipt: the key, code and time of every artifact."""
    return {
        content: {
            "step": artifact.manifest.step,
            "key": artifact.manifest.key,
            "code": artifact.manifest.code,
            "started_at": artifact.manifest.started_at,
            "finished_at": artifact.manifest.finished_at,
        }
        for content, artifact in sorted(found.items())
    }
