"""Datasets that the Hub lists under a licence and a language: the listing proposes, the gate decides on each.

What was proposed and decided is written down before anything is read, with each dataset's commit and files, and a
process that comes back goes on with that, whatever the Hub lists by then.
"""

import shutil
from pathlib import Path
from typing import Any

from so8t import durable
from so8t.collect import tables
from so8t.collect.config import HubQuery, HubSource
from so8t.collect.download import Denied, RemoteFile
from so8t.collect.gate import Verdict
from so8t.collect.gathered import Gathered, note
from so8t.collect.hub import ask, bound_shards, walk
from so8t.collect.repository import Unavailable, describe, propose
from so8t.collect.shards import Shards
from so8t.errors import InputError
from so8t.progress import Progress
from so8t.section import UNPINNED

QUERY = "query.partial"
# Ids looked at for each dataset wanted.
LOOKED_AT = 8
HELD_OUT = ("test", "valid", "dev", "eval")


def gather(config: HubQuery, out: Path, progress: Progress) -> Gathered:
    """Propose, judge, pin, then gather each accepted dataset; one that cannot be read is left out and says why."""
    folder = out / QUERY
    plan = _resumed(config, folder, progress) if (folder / "plan.json").is_file() else None
    if plan is None:
        plan = _plan(config, folder, progress)
        durable.write_json(folder / "plan.json", plan)
    parts: list[Shards] = []
    for number, entry in enumerate(plan["datasets"]):
        if entry["outcome"] != "accepted":
            continue
        place = folder / f"{number:04d}"
        source = _source(config, entry["id"], entry["revision"])
        files = [RemoteFile("dataset", entry["id"], entry["revision"], *file) for file in entry["files"]]
        shards = bound_shards(source, place / "shards", files, progress)
        verdict = Verdict("accepted", entry["licence"], "", entry["evidence"], entry["nsfw"])
        try:
            walk(source, verdict, files, shards, place / "fetched", progress)
        except (InputError, Denied) as error:
            entry |= {"outcome": "unreadable", "reason": str(error).splitlines()[0]}
            continue
        parts.append(shards)
    evidence = {"listed": plan["listed"], "datasets": plan["datasets"]}
    return Gathered([], evidence=evidence, facts={"datasets": len(parts)}, shards=tuple(parts))


def _plan(config: HubQuery, folder: Path, progress: Progress) -> dict[str, Any]:
    """Ids in the Hub's order, licence after licence, judged until enough are accepted."""
    limit = LOOKED_AT * config.datasets_max
    listed: dict[str, None] = {}
    for licence in config.licences:
        listed |= dict.fromkeys(propose(licence, config.language, limit))
    datasets: list[dict[str, Any]] = []
    for repo in listed:
        if repo in config.exclude:
            continue
        if sum(entry["outcome"] == "accepted" for entry in datasets) >= config.datasets_max:
            break
        progress.update(len(datasets), len(listed), f"asking about {repo}")
        datasets.append(_judged(config, repo, folder, progress))
    return {"listed": list(listed), "datasets": datasets}


def _judged(config: HubQuery, repo: str, folder: Path, progress: Progress) -> dict[str, Any]:
    verdict, info = ask(_source(config, repo, UNPINNED), None, folder / "licence", progress)
    entry = {"id": repo, "revision": verdict.evidence["revision"], "licence": verdict.licence, "nsfw": verdict.nsfw,
             "outcome": verdict.outcome, "reason": verdict.reason, "evidence": verdict.evidence, "files": []}  # fmt: skip
    if verdict.outcome != "accepted":
        return entry
    files = _files(info)
    if not files:
        return entry | {"outcome": "unreadable", "reason": "no data files of a known format"}
    size_bytes = sum(file[1] for file in files)
    if size_bytes > config.bytes_max:
        return entry | {"outcome": "too large", "reason": f"{size_bytes} bytes, more than {config.bytes_max}"}
    return entry | {"files": files}


def _files(info: Any) -> list[list[Any]]:
    """[name, size, hash] of the data files; of a dataset in several formats the first format."""
    remote = [RemoteFile.listed("dataset", info.id, info.sha, sibling) for sibling in info.siblings or []]
    data = [file for file in remote if not any(word in file.name.lower() for word in HELD_OUT)]
    for format_ in tables.SUFFIXES:
        found = sorted((f.name, f.size_bytes, f.expected) for f in data if tables.suffix(f.name) == format_)
        if found:
            return [list(file) for file in found]
    return []


def _resumed(config: HubQuery, folder: Path, progress: Progress) -> dict[str, Any] | None:
    """The plan, where every accepted dataset still is at its commit what it was; None, and said, to plan anew."""
    plan: dict[str, Any] = durable.read_json(folder / "plan.json")
    for entry in plan["datasets"]:
        if entry["outcome"] != "accepted":
            continue
        try:
            changed = _files(describe(entry["id"], entry["revision"])) != entry["files"]
            newest = describe(entry["id"]).sha
        except (Unavailable, InputError):
            changed = True
        if changed:
            note(progress, f"{entry['id']} is no longer what it was at {entry['revision']}: gathering anew")
            shutil.rmtree(folder)
            return None
        if newest != entry["revision"]:
            note(progress, f"{entry['id']} has moved on to {newest}: going on with {entry['revision']}")
    return plan


def _source(config: HubQuery, repo: str, revision: str) -> HubSource:
    """As a source of its own, whose columns are found out row by row."""
    pinned = HubSource(
        kind="hub", name=config.name, id=repo, revision=revision, files=("*",), columns={"prompt": ""},
        language=config.language, rows_max=config.rows_max, licences=config.licences, accept=config.accept,
    )  # fmt: skip
    return pinned.model_copy(update={"columns": {}, "name": f"{config.name}-{repo}"})
