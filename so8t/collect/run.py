"""Joins the sources and applies the licence gate to every row.

Writes records.parquet, refused.parquet (each row with a `reason`) and sources.json (what each source was,
what its licence evidence is, how many rows passed).
"""

import hashlib
from collections import Counter
from pathlib import Path

from so8t import durable, records
from so8t.collect.config import Collect
from so8t.collect.licence import decide
from so8t.errors import InputError
from so8t.progress import Progress
from so8t.step import Facts, Inputs


def run(config: Collect, inputs: Inputs, out: Path, progress: Progress) -> Facts:
    """Join and gate, row by row; InputError where nothing passes or an id stands for two rows."""
    reasons: Counter[str] = Counter()
    by_modality: Counter[str] = Counter()
    seen = _Ids()
    sources = []
    with (
        records.Stream(out / "records.parquet") as passed,
        records.Stream(out / "refused.parquet", "reason") as refused,
    ):
        for done, source in enumerate(config.sources):
            progress.update(done, len(config.sources), source.name)
            folder = inputs[f"source.{source.name}"].path
            allowed = (*config.licences, *source.accept)
            before = passed.count
            for record in records.iterate(folder / "records.parquet"):
                decision = decide(record.licence, allowed)
                if decision.allowed:
                    seen.add(record.id)
                    by_modality[record.modality] += 1
                    passed.add(record.with_(licence=decision.licence))
                else:
                    reasons[decision.reason] += 1
                    refused.add(record, decision.reason)
            summary = durable.read_json(folder / "sources.json")
            sources.append({**summary, "allowed": list(allowed), "passed": passed.count - before})
        if not passed.count:
            raise InputError(
                "no row passed the licence gate",
                f"rows under {', '.join(config.licences)}",
                "see refused.parquet of the sources",
            )
        seen.refuse_twins()
    durable.write_json(out / "sources.json", {"sources": sources, "refused": dict(reasons)})
    progress.update(1, 1, f"{passed.count} rows", rows=passed.count, refused=refused.count)
    return {
        "rows": passed.count,
        "refused": refused.count,
        "refused_by_reason": dict(reasons),
        "by_modality": dict(by_modality),
    }


class _Ids:
    """Finds ids that stand for more than one row; 16 bytes an id are kept, not the ids."""

    def __init__(self) -> None:
        self._seen: set[bytes] = set()
        self._twins: list[str] = []

    def add(self, name: str) -> None:
        digest = hashlib.blake2b(name.encode("utf-8"), digest_size=16).digest()
        if digest in self._seen:
            self._twins.append(name)
        self._seen.add(digest)

    def refuse_twins(self) -> None:
        """InputError naming one of them."""
        if self._twins:
            raise InputError(
                f"{len(set(self._twins))} ids stand for more than one row, for example {self._twins[0]!r}",
                "ids that differ between all sources",
            )
