"""A source on the Hub: the gate decides from metadata, then each file is fetched, read in pieces and let go again.

Resume: a file comes by Range requests (download.py), its rows by shards that hold the place behind them (shards.py),
both bound to the commit and the list of files. `HF_ENDPOINT` and `HF_TOKEN` are honoured.
"""

import fnmatch
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from so8t.artifacts import hash_json
from so8t.collect import tables
from so8t.collect.config import HubSource
from so8t.collect.download import Denied, RemoteFile, bring
from so8t.collect.gate import Verdict, evidence_id, judge, unavailable
from so8t.collect.gathered import Gathered, note
from so8t.collect.repository import Unavailable, describe
from so8t.collect.rows import RowRefused, declared, first_turn, hub_media, layout, to_record
from so8t.collect.shards import FETCHED, SHARDS, Place, Shards
from so8t.collect.slots import slot
from so8t.errors import InputError
from so8t.progress import Progress
from so8t.records import Record
from so8t.section import UNPINNED


def gather(config: HubSource, out: Path, progress: Progress) -> Gathered:
    """Judge, fetch, map. A dataset that the gate does not let through gives no rows and a reason in the evidence."""
    if config.revision == UNPINNED:
        raise InputError(
            f"the revision of {config.id} is not pinned",
            "the commit (40 hex digits) that you have looked at",
            "`so8t plan --pin` prints the newest; put it into the config",
        )
    verdict, info = ask(config, config.revision, out / FETCHED, progress)
    if verdict.outcome in ("gated", "unavailable") and config.unavailable == "fail":
        raise InputError(
            f"{config.id} is {verdict.reason}", "a dataset that you may read", "see its page, set HF_TOKEN"
        )
    facts = {"outcome": verdict.outcome, **({"reason": verdict.reason} if verdict.reason else {})}
    if verdict.outcome != "accepted":
        return Gathered([], evidence=verdict.evidence, facts=facts)
    files = chosen(config.id, config.files, info)
    shards = bound_shards(config, out / SHARDS, files, progress)
    try:
        walk(config, verdict, files, shards, out / FETCHED, progress)
    except Denied as error:
        if config.unavailable == "fail":
            raise
        verdict = unavailable(config.id, config.revision, Unavailable(str(error), gated=bool(info.gated)))
        return Gathered([], evidence=verdict.evidence, facts={"outcome": verdict.outcome, "reason": verdict.reason})
    evidence = verdict.evidence | {"data": [_evidence(file) for file in files]}
    return Gathered([], evidence=evidence, facts=facts, shards=(shards,))


def ask(config: HubSource, revision: str | None, folder: Path, progress: Progress) -> tuple[Verdict, Any]:
    """The gate's verdict on a dataset, and what the Hub says of it (None where it says nothing)."""

    def read(sibling: Any) -> bytes:
        path = folder / "licence"
        with slot(progress):
            bring(RemoteFile.listed("dataset", config.id, info.sha, sibling), path)
        return path.read_bytes()

    try:
        info = describe(config.id, revision)
        return judge(info, (*config.licences, *config.accept), config.checked_upstreams, read), info
    except Unavailable as error:
        return unavailable(config.id, revision or "", error), None
    except Denied as error:
        return unavailable(config.id, revision or "", Unavailable(str(error), gated=bool(info.gated))), info


def bound_shards(config: HubSource, folder: Path, files: list[RemoteFile], progress: Progress) -> Shards:
    """The shards of these very files; a change since the last stop is said in the progress and in the session."""
    listed = [[file.name, file.size_bytes, file.expected] for file in files]
    bound = {"id": config.id, "revision": config.revision, "files": hash_json(listed)}

    def say(problem: str) -> None:
        note(progress, f"{config.id}: {problem}")

    return Shards(folder, bound, say)


def chosen(repo: str, patterns: Iterable[str], info: Any) -> list[RemoteFile]:
    """A dataset's files that the patterns name, each once; `**/` may stand for no folder."""
    files: dict[str, RemoteFile] = {}
    present = sorted(info.siblings or [], key=lambda sibling: str(sibling.rfilename))
    for pattern in patterns:
        shapes = (pattern, pattern.removeprefix("**/"))
        matched = [one for one in present if any(fnmatch.fnmatchcase(one.rfilename, shape) for shape in shapes)]
        if not matched:
            raise InputError(f"{repo} has no file {pattern!r} at {info.sha[:12]}", "files of that revision")
        for sibling in matched:
            remote = RemoteFile.listed("dataset", repo, info.sha, sibling)
            files.setdefault(remote.name, remote)
    return list(files.values())


def walk(
    config: HubSource, verdict: Verdict, files: list[RemoteFile], shards: Shards, folder: Path, progress: Progress
) -> None:
    """Fetch and read what is missing; the row behind the last commit is the first one read."""
    place = shards.place()
    total = sum(file.size_bytes for file in files)
    done = sum(file.size_bytes for file in files[: place.file])
    for number in range(place.file, len(files)):
        file = files[number]
        progress.update(done, total, file.name)
        path = folder / f"{number:05d}{tables.suffix(file.name)}"
        if not place.ended:
            with slot(progress):
                bring(file, path, _reporter(progress, done, total, file.name))
            start = place.row if number == place.file else 0
            for record, reason, behind in _mapped(config, verdict, file.name, path, start):
                shards.add(record, reason, Place(number, behind))
            shards.commit(Place(number + 1, 0, ended=number + 1 == len(files)))
            path.unlink()
        done += file.size_bytes
    shutil.rmtree(folder, ignore_errors=True)


def _reporter(progress: Progress, done: int, total: int, name: str) -> Callable[[int], None]:
    return lambda size_bytes: progress.update(done + size_bytes, total, f"fetching {name}")


def _mapped(
    config: HubSource, verdict: Verdict, name: str, path: Path, start: int
) -> Iterator[tuple[Record, str, int]]:
    """(record, reason why it is none or "", number of the next row)."""
    blank = Record(
        id="", modality="text", language=config.language, prompt="", nsfw=config.nsfw or verdict.nsfw,
        source=config.id, revision=config.revision, file=name,
        licence=verdict.licence, licence_evidence=evidence_id(config.id, config.revision),
    ).with_(**declared(config.label))  # fmt: skip
    for index, row in tables.rows(path, start, config.rows_max, shown=f"{config.id}/{name}"):
        defaults = blank.with_(id=f"{config.name}-{name}-{index:06d}", row=index)
        columns = config.columns or layout(row)
        absent = sorted(set(columns.values()) - set(row))
        if absent or not columns:
            raise InputError(f"{config.id}/{name} lacks the columns {absent}", f"columns of the file: {sorted(row)}")
        mapped = {ours: row[theirs] for ours, theirs in columns.items()}
        try:
            media = hub_media(mapped.pop("media", None))
            record = to_record(mapped | first_turn(mapped.pop("messages", None)), defaults, media)
            yield record.with_(nsfw=record.nsfw or defaults.nsfw), "", index + 1
        except RowRefused as reason:
            yield defaults, str(reason), index + 1


def _evidence(file: RemoteFile) -> dict[str, Any]:
    hashed = "sha256" if len(file.expected) == 64 else "git_blob"
    return {"file": file.name, "size_bytes": file.size_bytes, hashed: file.expected}
