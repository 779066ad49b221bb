"""Preprocess as the pipeline runs it: each shard, then the join."""

from pathlib import Path

from so8t import durable, records
from so8t.artifacts import Artifact, Manifest
from so8t.config import Machine
from so8t.preprocess import order, shard
from so8t.preprocess import run as join
from so8t.preprocess.config import Preprocess
from so8t.preprocess.index import Index
from so8t.progress import Progress


def collected(rows, folder: Path) -> Artifact:
    """Rows as collect leaves them."""
    folder.mkdir(parents=True, exist_ok=True)
    records.write(folder / "records.parquet", rows)
    if not (folder / "sources.json").exists():
        durable.write_json(folder / "sources.json", {"sources": []})
    return Artifact(folder, Manifest.model_construct())


def shards(config: Preprocess, source: Artifact, folder: Path) -> dict[str, Artifact]:
    """The shards by role, under `folder`."""
    made = {}
    for number in range(order.shards_of(source.path / "records.parquet", config.shard_rows)):
        out = folder / f"shard-{number}"
        out.mkdir(parents=True)
        progress = Progress("preprocess.shard", Machine(), folder)
        facts = shard.run(config.shard(number), {"collected": source}, out, progress)
        made[f"shard.{number}"] = Artifact(out, Manifest.model_construct(facts=facts))
    return made


def run(config: Preprocess, inputs: dict[str, Artifact], out: Path):
    """The facts of the whole step; its files are in `out`, the shards beside it."""
    parts = shards(config, inputs["collected"], out.with_name(f"{out.name}-shards"))
    out.mkdir(parents=True, exist_ok=True)
    return join.run(config.pinned(), {**inputs, **parts}, out, Progress("preprocess", Machine(), out.parent))


def indexed(rows, folder: Path, config: Preprocess = Preprocess()) -> Index:  # noqa: B008 - frozen
    """What the joins see of these rows, which stand in canonical order."""
    parts = shards(config, collected(rows, folder / "collected"), folder)
    return Index([parts[f"shard.{number}"].path for number in range(len(parts))])
