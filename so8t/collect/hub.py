"""A source on the Hub: the card is judged first, then each file is fetched once and kept as a shard.

Resume: a shard is written durably when its file is done, and holds exactly that file's rows; a run that
was killed goes on with the next file. `HF_ENDPOINT` is honoured.
"""

import fnmatch
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from so8t import durable, records
from so8t.collect import tables
from so8t.collect.config import HubSource
from so8t.collect.gathered import Gathered
from so8t.collect.licence import decide, disagreement
from so8t.collect.rows import RowRefused, to_record
from so8t.errors import InputError, StepFailed
from so8t.records import Record

Report = Callable[[int, int, str], None]
ENDPOINT = "https://huggingface.co"
SHARDS = "shards.partial"


def gather(config: HubSource, out: Path, cache: Path, report: Report) -> Gathered:
    """Judge, fetch, map. A dataset whose licence does not pass gives no rows and a reason in the evidence."""
    info = _dataset_info(config)
    licence, evidence = judge(config, info)
    if evidence["reason"]:
        return Gathered([], evidence=evidence)
    files = _chosen(config, [sibling.rfilename for sibling in info.siblings])
    gathered = Gathered([], evidence=evidence)
    for done, name in enumerate(files):
        report(done, len(files), name)
        shard = out / SHARDS / f"{done:05d}"
        if not (shard / "refused.json").exists():
            _fetch(config, name, licence, cache, shard)
        gathered.records += records.iterate(shard / "records.parquet")
        for row in durable.read_json(shard / "refused.json"):
            gathered.refused.append((_blank(config, name, row["row"], licence), row["reason"]))
    gathered.evidence["files"] = [{"file": name} for name in files]
    return gathered


def _dataset_info(config: HubSource) -> Any:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, HTTPError, RepositoryNotFoundError, RevisionNotFoundError

    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT", ENDPOINT))
    try:
        info = api.dataset_info(config.id, revision=config.revision, files_metadata=False)
    except GatedRepoError:
        raise InputError(
            f"{config.id} is gated", "a dataset that you may read", "ask for access, then set HF_TOKEN"
        ) from None
    except RevisionNotFoundError:
        raise InputError(f"{config.id} has no revision {config.revision}", "an existing commit") from None
    except RepositoryNotFoundError:
        raise InputError(f"no dataset {config.id}", "the id of a dataset (not of a model)") from None
    except (HTTPError, OSError) as error:
        raise StepFailed(f"the Hub did not answer for {config.id}: {type(error).__name__}: {error}") from error
    if info.sha != config.revision:
        raise InputError(f"{config.id} answers with revision {info.sha}", f"the pinned {config.revision}")
    return info


def judge(config: HubSource, info: Any) -> tuple[str, dict[str, Any]]:
    """The licence's normal form, and what card and tags said; `reason` is empty where it passes."""
    card = info.card_data.get("license") if info.card_data else None
    tagged = [tag.removeprefix("license:") for tag in info.tags or [] if tag.startswith("license:")]
    decision = decide(card, (*config.licences, *config.accept))
    reason = disagreement({"card": card, "tags": tagged}) or decision.reason
    evidence = {"id": config.id, "revision": config.revision, "card": card, "tags": tagged, "reason": reason}
    return decision.licence, evidence


def _chosen(config: HubSource, present: list[str]) -> list[str]:
    files = []
    for pattern in config.files:
        matched = sorted(name for name in present if fnmatch.fnmatchcase(name, pattern))
        if not matched:
            raise InputError(f"{config.id} has no file {pattern!r} at {config.revision[:12]}", "files of that revision")
        files += [name for name in matched if name not in files]
    return files


def _fetch(config: HubSource, name: str, licence: str, cache: Path, shard: Path) -> None:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HTTPError

    endpoint = os.environ.get("HF_ENDPOINT", ENDPOINT)
    try:
        path = hf_hub_download(
            config.id, name, repo_type="dataset", revision=config.revision, cache_dir=cache, endpoint=endpoint
        )
    except (HTTPError, OSError) as error:
        raise StepFailed(f"{config.id}: {name} did not come: {type(error).__name__}: {error}") from error
    rows: list[Record] = []
    refused: list[dict[str, Any]] = []
    for index, row in enumerate(tables.rows(Path(path), config.rows_max)):
        absent = sorted(set(config.columns.values()) - set(row))
        if absent:
            raise InputError(f"{config.id}/{name} lacks the columns {absent}", f"columns of the file: {sorted(row)}")
        mapped = {ours: row[theirs] for ours, theirs in config.columns.items()}
        try:
            rows.append(to_record(mapped, _blank(config, name, index, licence)))
        except RowRefused as reason:
            refused.append({"row": index, "reason": str(reason)})
    records.write(shard / "records.parquet", rows)
    durable.write_json(shard / "refused.json", refused)


def _blank(config: HubSource, name: str, row: int, licence: str) -> Record:
    return Record(
        id=f"{config.name}-{name}-{row:06d}", modality="text", language=config.language, prompt="",
        source=config.id, revision=config.revision, file=name, row=row,
        licence=licence, licence_evidence=f"card of {config.id}",
    )  # fmt: skip
