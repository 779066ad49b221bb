"""Joins the sources and applies the licence gate to every row.

Writes records.parquet, refused.parquet (each row with a `reason`) and sources.json (what each source was,
what its licence evidence is, how many rows passed).
"""

from collections import Counter
from pathlib import Path

from so8t import durable, records
from so8t.collect.config import Collect
from so8t.collect.licence import decide
from so8t.errors import InputError
from so8t.progress import Progress
from so8t.records import Record
from so8t.step import Facts, Inputs


def run(config: Collect, inputs: Inputs, out: Path, progress: Progress) -> Facts:
    """Join and gate; InputError where nothing passes or an id stands for two rows."""
    passed: list[Record] = []
    refused: list[tuple[Record, str]] = []
    sources = []
    for done, source in enumerate(config.sources):
        progress.update(done, len(config.sources), source.name)
        folder = inputs[f"source.{source.name}"].path
        allowed = (*config.licences, *source.accept)
        before = len(passed)
        for record in records.iterate(folder / "records.parquet"):
            decision = decide(record.licence, allowed)
            if decision.allowed:
                passed.append(record.with_(licence=decision.licence))
            else:
                refused.append((record, decision.reason))
        sources.append(
            {**durable.read_json(folder / "sources.json"), "allowed": list(allowed), "passed": len(passed) - before}
        )
    if not passed:
        raise InputError(
            "no row passed the licence gate",
            f"rows under {', '.join(config.licences)}",
            "see refused.parquet of the sources",
        )
    _refuse_twins(passed)
    reasons = Counter(reason for _, reason in refused)
    records.write(out / "records.parquet", passed)
    records.write(
        out / "refused.parquet", [record for record, _ in refused], {"reason": [reason for _, reason in refused]}
    )
    durable.write_json(out / "sources.json", {"sources": sources, "refused": dict(reasons)})
    progress.update(1, 1, f"{len(passed)} rows", rows=len(passed), refused=len(refused))
    by_modality = Counter(record.modality for record in passed)
    return {
        "rows": len(passed),
        "refused": len(refused),
        "refused_by_reason": dict(reasons),
        "by_modality": dict(by_modality),
    }


def _refuse_twins(passed: list[Record]) -> None:
    counts = Counter(record.id for record in passed)
    twins = [name for name, count in counts.items() if count > 1]
    if twins:
        raise InputError(
            f"{len(twins)} ids stand for more than one row, for example {twins[0]!r}",
            "ids that differ between all sources",
        )
