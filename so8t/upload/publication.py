"""Where the repositories go: into a folder, or to the Hub and into a collection there."""

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from so8t.artifacts import hash_json
from so8t.progress import Progress
from so8t.upload import directory
from so8t.upload.config import DirectoryTarget, HubTarget, Upload
from so8t.upload.repository import Entry, Repository
from so8t.upload.retry import Backoff, patiently


def place_of(out: Path, kind: str) -> Path:
    """Where the files of a repository lie that this step writes itself."""
    return out / ("repository" if kind == "model" else f"repository-{kind}")


def publish(config: Upload, repositories: list[Repository], out: Path, progress: Progress) -> dict[str, Any]:
    """Bring the repositories to the target and verify every file there; give what the receipt says."""
    total = sum(entry.size_bytes for repository in repositories for entry in repository.entries)

    def report(before: int, done_bytes: int, message: str) -> None:
        progress.update(before + done_bytes, total, message)

    if isinstance(config.target, DirectoryTarget):
        return _to_folder(config.target, repositories[0].entries, out, partial(report, 0))
    return _to_hub(config.target, repositories, report)


def _to_folder(target: DirectoryTarget, entries: list[Entry], out: Path, report: directory.Report) -> dict[str, Any]:
    root = target.path or place_of(out, "model")
    if target.path:
        directory.check_free(root)
    copied = directory.publish(root, entries, report)
    verified = directory.verify(root, entries, report)
    # While the step works, its folder has another name than the finished artifact will.
    final = target.path or place_of(out.with_name(out.name.removesuffix(".partial")), "model")
    return {"target": "directory", "repository": str(final), "copied": copied, "verified": verified}


def _to_hub(target: HubTarget, repositories: list[Repository], report: Any) -> dict[str, Any]:
    """Every repository is made, or refused, before the first byte is sent."""
    # The client is heavy, and only this target needs it.
    from so8t.upload.client import open_client
    from so8t.upload.collection import Collector
    from so8t.upload.hub import Publisher

    api, backoff = open_client(), Backoff()
    patiently(api.whoami, "asking who the token belongs to", backoff, partial(report, 0, 0))
    publishers, before = [], 0
    for r in repositories:
        content = hash_json([[entry.path, entry.sha256] for entry in r.entries])
        publishers.append(Publisher(api, target, r.kind, r.entries, content, partial(report, before), backoff))
        before += sum(entry.size_bytes for entry in r.entries)
    for publisher in publishers:
        publisher.prepare()
    receipts = [publisher.publish() for publisher in publishers]
    collection = ""
    if target.collection:
        owner = target.repo_id.partition("/")[0]
        collector = Collector(api, owner, target.collection, target.private, backoff, partial(report, before, 0))
        collection = collector.gather(receipt.repo_id for receipt in receipts)
    return {
        "target": "hub", **asdict(receipts[0]), "verified": sum(receipt.verified for receipt in receipts),
        "repositories": [asdict(receipt) for receipt in receipts], "collection": collection,
    }  # fmt: skip
