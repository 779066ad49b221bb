"""Brings the questions of one benchmark task, as they are; no row of them is ever trained on.

items.jsonl   one line a row: its id, and the row itself
source.json   dataset, revision, licence with its evidence, files with their hashes
"""

import json
import shutil
from pathlib import Path
from typing import Any

from so8t import durable
from so8t.artifacts import hash_file
from so8t.collect import tables
from so8t.collect.download import bring
from so8t.collect.hub import chosen
from so8t.collect.licence import decide, normal_form
from so8t.collect.repository import Unavailable, describe
from so8t.collect.shards import FETCHED
from so8t.collect.slots import slot
from so8t.errors import InputError
from so8t.progress import Progress
from so8t.questions import FileQuestions, HubQuestions
from so8t.section import UNPINNED
from so8t.step import Facts, Inputs


def run(config: HubQuestions | FileQuestions, inputs: Inputs, out: Path, progress: Progress) -> Facts:
    """Fetch and write the rows; InputError where the source is not what the config says of it."""
    source = _hub(config, out, progress) if isinstance(config, HubQuestions) else _local(config)
    lines, files = [], []
    for name, path in source.pop("paths"):
        files.append({"file": name, "sha256": hash_file(path), "size_bytes": path.stat().st_size})
        for number, row in tables.rows(path, shown=name):
            values = {key: value for key, value in row.items() if not isinstance(value, bytes)}
            lines.append(json.dumps({"id": f"{name}-{number:06d}", "row": values}, ensure_ascii=False, sort_keys=True))
    if not lines:
        raise InputError(f"{source['origin']} has no rows", "a file with questions")
    durable.write_text(out / "items.jsonl", "\n".join(lines) + "\n")
    durable.write_json(out / "source.json", {**source, "files": files, "rows": len(lines)})
    shutil.rmtree(out / FETCHED, ignore_errors=True)
    progress.update(1, 1, f"{len(lines)} questions")
    return {"rows": len(lines), "origin": source["origin"], "licence": source["licence"]}


def _local(config: FileQuestions) -> dict[str, Any]:
    if len({path.name for path in config.paths}) < len(config.paths):
        raise InputError("two files of benchmark.data have the same name", "names that differ", "rename one")
    config.pinned()  # they may have changed since the key was made
    return {
        "origin": config.origin,
        "licence": config.licence,
        "evidence": "declared in the config",
        "paths": [(path.name, path) for path in config.paths],
    }


def _hub(config: HubQuestions, out: Path, progress: Progress) -> dict[str, Any]:
    if config.revision == UNPINNED:
        raise InputError(
            f"the revision of {config.id} is not pinned",
            "the commit (40 hex digits) that you have looked at",
            "`so8t plan --pin` prints the newest; put it into the config",
        )
    try:
        info = describe(config.id, config.revision)
    except Unavailable as error:
        raise InputError(
            f"{config.id} cannot be read: {error}", "a dataset that you may read", "set HF_TOKEN"
        ) from None
    evidence = _licence(config, info)
    paths = []
    for number, file in enumerate(chosen(config.id, config.files, info)):
        path = out / FETCHED / f"{number:05d}{tables.suffix(file.name)}"
        progress.update(0, 1, f"fetching {file.name}")
        with slot(progress):
            bring(file, path)
        paths.append((file.name, path))
    return {
        "origin": f"{config.id}@{config.revision}",
        "licence": config.licence,
        "evidence": evidence,
        "paths": paths,
    }


def _licence(config: HubQuestions, info: Any) -> str:
    """What speaks for the declared licence; InputError where the card says another, or nothing and nobody looked."""
    stated = info.card_data.to_dict().get("license") if info.card_data else None
    if stated is None and config.checked:
        return f"the card states none; read at {config.checked}"
    if reason := decide(stated, (config.licence,)).reason:
        raise InputError(
            f"{config.id} at {config.revision[:12]}: {reason}",
            f"a card that states {config.licence}",
            "mend benchmark.data, and name under `checked` where you read the terms if the card states none",
        )
    return f"the card states {normal_form(stated)}"
