"""May this URL be asked for? robots.txt is fetched, kept for a day, and read by two parsers: either may deny.

2xx is parsed; 4xx means that there are no rules; 5xx, 429 and silence mean that everything is denied (RFC 9309,
section 2.3.1). Up to five redirects are followed, to any public host; with more, everything is denied.
"""

import hashlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from protego import Protego

from so8t.collect.web import robots
from so8t.collect.web.addresses import host_of, join, origin_of, target_of
from so8t.collect.web.config import WebSource
from so8t.collect.web.fetch import REDIRECTS, Answer, Fetcher, Limits
from so8t.collect.web.frontier import Frontier, Told
from so8t.collect.web.judge import REDIRECTS_MAX
from so8t.collect.web.refusal import Refused, Unreachable

KEPT_S = 24 * 3600.0
ACCEPT = "text/plain,*/*;q=0.1"
# In place of a status: the site did not answer, or what it answered is not for us.
SILENT, OURS = 0, -1
# Waits until a host may be asked again, and lets it rest for so long from then.
Turn = Callable[[str, float], Awaitable[None]]


@dataclass(frozen=True)
class Ruling:
    """Whether a URL may be asked for, why not, how long its host rests after it, and the evidence.

    `silent`: not denied by anybody; the site did not answer.
    """

    allowed: bool
    reason: str
    delay_s: float
    evidence: dict[str, Any]
    silent: bool = False


class Rules:
    """Rulings for the URLs of a crawl."""

    def __init__(self, config: WebSource, frontier: Frontier, fetcher: Fetcher, turn: Turn) -> None:
        self._config, self._frontier, self._fetcher, self._turn = config, frontier, fetcher, turn

    async def ruling(self, url: str) -> Ruling:
        """Judge a URL by the robots.txt of its scheme, host and port."""
        origin = origin_of(url)
        told = self._frontier.told(origin)
        # A clock that was set back makes nothing fresh that is old.
        if told is None or not 0 <= time.time() - told.fetched_at < KEPT_S:
            told = await self._ask(origin)
            self._frontier.tell(origin, told)
        return judge(url, told, self._config)

    async def _ask(self, origin: str) -> Told:
        """Ask, and ask again after a pause where the site did not answer or could not."""
        for attempt in range(self._config.retries + 1):
            told = await self._follow(origin)
            if told.status not in (SILENT, 429) and told.status < 500:
                break
            if attempt < self._config.retries:
                self._frontier.rest(host_of(origin), self._config.retry_delay_s * 2**attempt)
        return told

    async def _follow(self, origin: str) -> Told:
        url = f"{origin}/robots.txt"
        limits = Limits(self._config.timeout_s, robots.SIZE_MAX_BYTES, cut=True)
        for _ in range(REDIRECTS_MAX + 1):
            await self._turn(host_of(url), self._config.delay_s)
            try:
                answer = await self._fetcher.get(url, ACCEPT, limits, _is_whole)
            except Refused as reason:
                return Told(OURS, b"", f"robots.txt: {reason}", time.time())
            except Unreachable as reason:
                return Told(SILENT, b"", f"robots.txt: {reason}", time.time())
            if answer.status not in REDIRECTS:
                return Told(answer.status, answer.body, "", time.time())
            url = join(url, answer.headers.get("location", ""))
            if not url:
                break
        too_far = f"robots.txt: more than {REDIRECTS_MAX} redirects, or one to nowhere"
        return Told(OURS, b"", too_far, time.time())


def _is_whole(answer: Answer) -> bool:
    return 200 <= answer.status < 300


def judge(url: str, told: Told, config: WebSource) -> Ruling:
    """Judge a URL by what its origin said."""
    evidence: dict[str, Any] = {"origin": origin_of(url), "status": told.status}
    if told.status < 200 or told.status == 429 or (told.status >= 300 and not 400 <= told.status < 500):
        reason = told.reason or f"robots.txt: status {told.status}"
        return Ruling(False, reason, config.delay_s, evidence | {"rule": reason}, silent=told.status == SILENT)
    if told.status >= 400:
        return Ruling(True, "", config.delay_s, evidence | {"rule": f"no robots.txt (status {told.status})"})
    own, other = _parsed(told.body)
    delay_s = max(config.delay_s, own.delay_s(config.agent), float(other.crawl_delay(config.agent) or 0.0))
    evidence |= {"sha256": hashlib.sha256(told.body).hexdigest(), "delay_s": delay_s}
    if delay_s > config.patience_s:
        reason = f"robots.txt asks for a pause of {delay_s:g} s"
        return Ruling(False, reason, delay_s, evidence | {"rule": reason})
    for agent in (config.agent, *(name for name in config.also_heed if own.names(name))):
        verdict = own.verdict(agent, target_of(url))
        found = evidence | {"agent": agent, "rule": verdict.rule, "line": verdict.line}
        if not verdict.allowed:
            return Ruling(False, f"robots.txt denies {agent}: {verdict.rule}", delay_s, found)
        if not other.can_fetch(url, agent):
            return Ruling(False, f"robots.txt denies {agent}, as Protego reads it", delay_s, found)
    verdict = own.verdict(config.agent, target_of(url))
    return Ruling(True, "", delay_s, evidence | {"agent": config.agent, "rule": verdict.rule, "line": verdict.line})


@lru_cache(maxsize=256)
def _parsed(body: bytes) -> tuple[robots.Robots, Protego]:
    head = body[: robots.SIZE_MAX_BYTES]
    return robots.parse(head), Protego.parse(head.decode("utf-8-sig", "replace"))
