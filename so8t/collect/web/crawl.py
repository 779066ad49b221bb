"""The walk: rounds over all hosts at once, each host by one request at a time and never faster than it likes."""

import asyncio
from collections.abc import Callable

from so8t import child
from so8t.collect.web.config import WebSource
from so8t.collect.web.fetch import Answer, Fetcher, Limits
from so8t.collect.web.frontier import Entry, Frontier
from so8t.collect.web.judge import ACCEPT, Kind, Outcome, is_wanted, judge
from so8t.collect.web.refusal import Refused, Unreachable
from so8t.collect.web.rules import Rules, Ruling
from so8t.errors import Interrupted, StepFailed
from so8t.waits import asked_s

HOSTS_AT_ONCE = 16
# Rounds in a row in which nothing at all was reached: the network is gone. After these it is the sites.
OUTAGES_MAX = 3
RETRY_AFTER_MAX_S = 24 * 3600.0
# How soon a stop is noticed while a host rests.
_LOOK_S = 0.25
Report = Callable[[], None]


class Crawl:
    """One crawl with its frontier; `run` goes on from wherever the frontier is."""

    def __init__(self, config: WebSource, frontier: Frontier, fetcher: Fetcher, report: Report) -> None:
        self._config, self._frontier, self._fetcher, self._report = config, frontier, fetcher, report
        self._rules = Rules(config, frontier, fetcher, self._turn)
        self._hosts = asyncio.Semaphore(HOSTS_AT_ONCE)

    async def run(self) -> None:
        """Rounds until the target is met, nothing waits or nothing more may be asked. StepFailed without a network."""
        config, frontier = self._config, self._frontier
        while frontier.is_open() or frontier.kept() < config.rows_target:
            entries = frontier.choose(config.pages_max, config.pages_per_host, config.patience_s)
            if not entries and not frontier.is_open():
                return
            await self._round(entries)
            outages = frontier.outage() if frontier.meta("outages") < OUTAGES_MAX else 0
            if outages:
                raise StepFailed(f"no site answered ({outages} of {OUTAGES_MAX} tries); the crawl goes on from here")
            frontier.end_round(config.depth_max, config.pages_max)
            self._report()

    async def _round(self, entries: list[Entry]) -> None:
        by_host: dict[str, list[Entry]] = {}
        for entry in entries:
            by_host.setdefault(entry.host, []).append(entry)
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(_watch())
            hosts = [group.create_task(self._host(queue)) for queue in by_host.values()]
            if hosts:
                await asyncio.wait(hosts)
            watching.cancel()

    async def _host(self, queue: list[Entry]) -> None:
        async with self._hosts:
            for entry in queue:
                await self._one(entry)
                self._report()

    async def _one(self, entry: Entry) -> None:
        if self._frontier.wait_s(entry.host) > self._config.patience_s:
            self._frontier.finish(entry, Outcome("failed", "its site asked to be left alone for long"))
            return
        ruling = await self._rules.ruling(entry.url)
        if not ruling.allowed:
            kind: Kind = "unreachable" if ruling.silent else "refused"
            self._frontier.finish(entry, Outcome(kind, ruling.reason, facts={"robots": ruling.evidence}))
            return
        outcome = await self._page(entry, ruling)
        outcome.facts["robots"] = ruling.evidence
        self._frontier.finish(entry, outcome, ruling.delay_s)

    async def _page(self, entry: Entry, ruling: Ruling) -> Outcome:
        config = self._config
        limits = Limits(config.timeout_s, config.size_max_bytes)
        for attempt in range(config.retries + 1):
            await self._wait(entry.host)
            self._frontier.ask(entry, ruling.delay_s)
            pause_s = config.retry_delay_s * 2**attempt
            try:
                answer = await self._fetcher.get(entry.url, ACCEPT, limits, is_wanted)
            except Refused as reason:
                return Outcome("refused", str(reason))
            except Unreachable as reason:
                outcome = Outcome("unreachable", str(reason))
            else:
                if answer.status != 429 and answer.status < 500:
                    return judge(answer, entry.redirects, config)
                outcome = Outcome("failed", f"status {answer.status}", facts={"status": answer.status})
                pause_s = max(pause_s, retry_after_s(answer))
            self._frontier.rest(entry.host, max(pause_s, ruling.delay_s))
            if pause_s > config.patience_s:
                break
        return outcome

    async def _turn(self, host: str, pause_s: float) -> None:
        await self._wait(host)
        self._frontier.rest(host, pause_s)

    async def _wait(self, host: str) -> None:
        while (seconds := self._frontier.wait_s(host)) > 0:
            await asyncio.sleep(min(seconds, 60.0))


async def _watch() -> None:
    """A signal's exception can fall into a callback of the event loop, which swallows it; the flag stays."""
    while not child.stopping.is_set():
        await asyncio.sleep(_LOOK_S)
    raise Interrupted("stopped; the same command goes on from here")


def retry_after_s(answer: Answer) -> float:
    """Seconds that a site wants to be left alone, at most a day; 0 where it does not say."""
    return min(asked_s(answer.headers.get("retry-after")) or 0.0, RETRY_AFTER_MAX_S)
