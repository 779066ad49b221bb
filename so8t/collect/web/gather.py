"""A crawled source: the frontier is walked to its end, then its pages become rows.

Beside the rows lie provenance.jsonl (each URL: what became of it and why, robots decision, licence claims, hashes)
and times.jsonl (when it was asked for), which alone differs between two crawls of an unchanged web. The frontier
stays, too, volatile: a crawl whose process dies before its artifact is committed asks for nothing twice, and the
robots.txt that a decision names by its hash is in it.
"""

import asyncio
import hashlib
import json
import shutil
import sqlite3
import ssl
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from so8t import __version__, durable
from so8t.collect.gathered import Gathered
from so8t.collect.web.addresses import canonical, origin_of, site_of
from so8t.collect.web.config import WebSource
from so8t.collect.web.crawl import Crawl
from so8t.collect.web.fetch import Fetcher
from so8t.collect.web.frontier import Frontier
from so8t.collect.web.guard import Guard
from so8t.errors import InputError
from so8t.progress import Progress
from so8t.records import Record
from so8t.session import now

FRONTIER = "crawl/frontier.sqlite"
PROVENANCE, TIMES = "provenance.jsonl", "times.jsonl"
# A line that so many pages of a host share, and this share of them, is its frame, not a text.
SHARED_PAGES_MIN = 4
SHARED_SHARE_MIN = 0.3


def gather(
    config: WebSource, out: Path, progress: Progress,
    guard: Guard | None = None, verify: ssl.SSLContext | bool = True,
) -> Gathered:  # fmt: skip
    """Crawl and give the rows. InputError for a seed that lies on no named site. Go on where a process died."""
    seeds = [canonical(seed) for seed in config.seeds]
    for seed, given in zip(seeds, config.seeds, strict=True):
        if not seed or site_of(seed, config.sites) is None:
            raise InputError(f"the seed {given} lies on no named site", "a URL on one of `sites`", "name its site")
    with _open(config, out / FRONTIER, progress) as frontier:
        frontier.begin(seeds)
        named = [site.host for site in config.sites]
        _walk(config, frontier, progress, guard or Guard(config.private_hosts, named_hosts=named), verify)
        done = frontier.done()
        facts = {"requests": frontier.requests(), "asked_again_after_a_cut": int(frontier.meta("interrupted"))}
    gathered = _rows(config, done)
    gathered.facts |= facts
    _write(done, gathered, out)
    return gathered


def _open(config: WebSource, path: Path, progress: Progress) -> Frontier:
    """The frontier of this crawl; a new one where it is damaged or too old, which the session says."""
    try:
        frontier = Frontier(path)
        age_days = (time.time() - frontier.meta("progress_at")) / 86400
        if not frontier.meta("progress_at") or age_days <= config.expiry_days:
            return frontier
        frontier.close()
        problem = f"the crawl stood still for {age_days:.1f} days and began anew"
    except sqlite3.DatabaseError as error:
        problem = f"the crawl's frontier was damaged ({error}) and it began anew"
    shutil.rmtree(path.parent)
    progress.update(0, config.rows_target, problem)
    if progress.session is not None:
        progress.session.update(problems=[*progress.session.session.problems, problem])
    return Frontier(path)


def _walk(
    config: WebSource, frontier: Frontier, progress: Progress, guard: Guard, verify: ssl.SSLContext | bool
) -> None:
    closed = -1

    def report() -> None:
        nonlocal closed
        kept, number = frontier.kept(), int(frontier.meta("round"))
        asked = frontier.asked()
        if progress.session is not None and number != closed:
            closed = number
            progress.session.update(
                current_epoch=number, current_step=kept, total_steps=config.rows_target, phase=f"round {number + 1}",
                checkpoints=[str(frontier.path)], last_checkpoint_time=now(), last_progress_time=now(),
            )  # fmt: skip
        progress.update(
            min(kept, config.rows_target), config.rows_target, f"round {number + 1}", kept=kept, asked=asked
        )

    async def walk() -> None:
        agent = f"{config.agent}/{__version__} (+{config.contact})"
        async with Fetcher(agent, guard, verify) as fetcher:
            await Crawl(config, frontier, fetcher, report).run()

    report()
    try:
        asyncio.run(walk())
    except BaseExceptionGroup as group:
        raise _first(group) from group


def _first(error: BaseException) -> BaseException:
    """What one of the hosts' tasks really raised."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _rows(config: WebSource, done: list[dict[str, Any]]) -> Gathered:
    gathered = Gathered([])
    frames = _frames(done)
    for page in done:
        if page["kind"] == "kept":
            frame = frames[page["host"]]
            lines = [line for line in page["text"].split("\n") if line not in frame]
            if sum(map(len, lines)) >= config.text_characters_min:
                parts = pieces(lines, config.text_characters_max)
                page["facts"]["rows"] = len(parts)
                blank = _blank(config, page)
                gathered.records += [
                    blank.with_(id=f"{blank.id}-{index:03d}", prompt=part, row=index)
                    for index, part in enumerate(parts)
                ]
                continue
            page |= {"kind": "quarantined", "reason": "too little text beside what the site's pages share"}
        if page["kind"] == "quarantined":
            gathered.refused.append((_blank(config, page), page["reason"]))
    kinds = Counter(page["kind"] for page in done)
    robots = {page["facts"]["robots"]["origin"]: page["facts"]["robots"] for page in done if "robots" in page["facts"]}
    gathered.evidence = {
        "sites": [site.model_dump(mode="json") for site in config.sites],
        "urls": dict(sorted(kinds.items())),
        "reasons": dict(sorted(Counter(page["reason"] for page in done if page["reason"]).items())),
        "robots": {origin: said.get("sha256", said["rule"]) for origin, said in sorted(robots.items())},
    }
    return gathered


def _frames(done: list[dict[str, Any]]) -> dict[str, set[str]]:
    """Of each host the lines that many of its pages share."""
    pages: Counter[str] = Counter()
    lines: dict[str, Counter[str]] = defaultdict(Counter)
    for page in done:
        if page["kind"] == "kept":
            pages[page["host"]] += 1
            lines[page["host"]].update(set(page["text"].split("\n")))
    return {
        host: {
            line for line, count in lines[host].items()
            if count >= max(SHARED_PAGES_MIN, SHARED_SHARE_MIN * pages[host])
        }
        for host in pages
    }  # fmt: skip


def pieces(lines: Iterable[str], characters_max: int) -> list[str]:
    """Lines joined to texts of at most so many characters; a line that is longer is cut."""
    texts: list[str] = []
    for line in lines:
        for begin in range(0, len(line), characters_max):
            part = line[begin : begin + characters_max]
            if texts and len(texts[-1]) + 1 + len(part) <= characters_max:
                texts[-1] += "\n" + part
            else:
                texts.append(part)
    return texts


def _blank(config: WebSource, page: dict[str, Any]) -> Record:
    facts, url = page["facts"], page["url"]
    return Record(
        id=f"{config.name}-{hashlib.sha256(url.encode('utf-8')).hexdigest()[:16]}",
        modality="text", language=facts.get("language", ""), prompt="", source=origin_of(url), file=url,
        group=f"{config.name}:{url}", licence=facts.get("licence", ""), licence_evidence=facts.get("licence_evidence", ""),
    )  # fmt: skip


def _write(done: list[dict[str, Any]], gathered: Gathered, out: Path) -> None:
    by_id = {page["id"]: page for page in done}
    provenance, times = [], []
    for page in done:
        chain = [page["url"]]
        at = page
        while at["via"]:
            at = by_id[at["via"]]
            chain.insert(0, at["url"])
        provenance.append(
            {
                "url": chain[0], "final_url": page["url"], "via": chain[:-1], "depth": page["depth"],
                "kind": page["kind"], "reason": page["reason"], **page["facts"],
                **({"text_sha256": hashlib.sha256(page["text"].encode("utf-8")).hexdigest()} if page["text"] else {}),
            }
        )  # fmt: skip
        asked_at = datetime.fromtimestamp(page["asked_at"], UTC).isoformat(timespec="milliseconds")
        times.append(
            {"url": page["url"], "asked_at": asked_at if page["attempts"] else "", "attempts": page["attempts"]}
        )
    for name, rows in ((PROVENANCE, provenance), (TIMES, times)):
        durable.write_text(
            out / name, "".join(json.dumps(row, ensure_ascii=False, sort_keys=True) + "\n" for row in rows)
        )
