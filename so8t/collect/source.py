"""Gathers one source.

Writes records.parquet, quarantine.parquet (rows that are none, each with a `reason`) and sources.json
(licence evidence, revision, row counts).
"""

import shutil
from collections import Counter
from pathlib import Path

from so8t import durable, records
from so8t.collect import hub, local, query
from so8t.collect.config import DemoSource, FilesSource, HubQuery, HubSource
from so8t.collect.demo import gather as gather_demo
from so8t.collect.gathered import Gathered, content_revision
from so8t.collect.shards import FETCHED, SHARDS
from so8t.collect.web.config import WebSource
from so8t.errors import InputError
from so8t.progress import Progress
from so8t.step import Facts, Inputs


def run(
    config: DemoSource | FilesSource | HubSource | HubQuery | WebSource, inputs: Inputs, out: Path, progress: Progress
) -> Facts:
    """Gather the rows of one source; see the module."""

    def report(done: int, total: int, message: str) -> None:
        progress.update(done, total, message)

    match config:
        case DemoSource():
            report(0, 1, f"making {config.set}")
            gathered, source = gather_demo(config), f"so8t/demo-{config.set}"
        case FilesSource():
            gathered, source = local.gather(config, out, progress), config.name
        case HubSource():
            gathered, source = hub.gather(config, out, progress), config.id
        case HubQuery():
            gathered, source = query.gather(config, out, progress), config.name
        case WebSource():
            try:
                from so8t.collect.web import gather as web
            except ModuleNotFoundError as error:
                raise InputError(
                    f"{config.name} is a web source and {error.name} is not installed",
                    "what crawling needs",
                    'pip install -c constraints.txt "so8t[web]"',
                ) from error

            gathered, source = web.gather(config, out, progress), config.name
    revision = config.revision if isinstance(config, HubSource) else content_revision(gathered.rows())
    facts = _write(config.name, config.kind, source, revision, gathered, out)
    for unfinished in (SHARDS, FETCHED, query.QUERY):
        shutil.rmtree(out / unfinished, ignore_errors=True)
    progress.update(1, 1, f"{facts['rows']} rows", **facts)
    return {**facts, "revision": revision, **gathered.facts}


def _write(name: str, kind: str, source: str, revision: str, gathered: Gathered, out: Path) -> dict[str, int]:
    licences: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    with records.Stream(out / "records.parquet") as kept:
        for record in gathered.rows():
            licences[record.licence or "none"] += 1
            kept.add(record.with_(source=record.source or source, revision=record.revision or revision))
    with records.Stream(out / "quarantine.parquet", "reason") as refused:
        for record, reason in gathered.set_aside():
            reasons[reason] += 1
            refused.add(record, reason)
    summary = {
        "name": name,
        "kind": kind,
        "id": source,
        "revision": revision,
        "rows": kept.count,
        "quarantined": dict(reasons),
        "licences": dict(licences),
        "evidence": gathered.evidence,
    }
    durable.write_json(out / "sources.json", summary)
    return {"rows": kept.count, "quarantined": refused.count}
