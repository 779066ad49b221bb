"""The crawl on disk: which URLs are known, what became of each, and when each host may be asked again.

A page and the end of its URL are one transaction, so a page is there exactly once whatever kills the process.

The crawl goes in rounds: the next few URLs of every host are chosen, in the order in which they were found, and the
links of all their pages enter in that order once the round is closed. So what is fetched does not depend on which
host answers first, nor on where the process was stopped.
"""

import json
import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from so8t import database, durable
from so8t.collect.web.addresses import host_of
from so8t.collect.web.judge import Outcome

ROUND_PER_HOST = 4
# A trap may give links without end; this many URLs are known for each page that may be asked for.
KNOWN_PER_PAGE = 20
# A page that takes the process down with it is left after so many deaths; cuts alone hardly ever meet one as often.
DEATHS_MAX = 8
SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS urls (
    id INTEGER PRIMARY KEY,
    url TEXT NOT NULL UNIQUE,
    host TEXT NOT NULL,
    depth INTEGER NOT NULL,
    redirects INTEGER NOT NULL DEFAULT 0,
    via INTEGER NOT NULL DEFAULT 0,          -- the URL that redirected to this one
    round INTEGER NOT NULL DEFAULT 0,
    state TEXT NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'asked', 'done')),
    attempts INTEGER NOT NULL DEFAULT 0,
    deaths INTEGER NOT NULL DEFAULT 0,       -- of the process, while it was asked for
    asked_at REAL NOT NULL DEFAULT 0,
    kind TEXT NOT NULL DEFAULT '',
    reason TEXT NOT NULL DEFAULT '',
    links TEXT NOT NULL DEFAULT '[]',
    text TEXT NOT NULL DEFAULT '',
    facts TEXT NOT NULL DEFAULT '{}'
);
CREATE INDEX IF NOT EXISTS by_state ON urls (state, round, host, depth, id);
CREATE INDEX IF NOT EXISTS was_asked ON urls (host) WHERE attempts > 0;
CREATE INDEX IF NOT EXISTS is_kept ON urls (kind) WHERE kind = 'kept';
CREATE INDEX IF NOT EXISTS by_round ON urls (round);
CREATE TABLE IF NOT EXISTS robots (
    origin TEXT PRIMARY KEY, status INTEGER NOT NULL, body BLOB NOT NULL, reason TEXT NOT NULL, fetched_at REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS hosts (host TEXT PRIMARY KEY, asked_at REAL NOT NULL, pause_s REAL NOT NULL) WITHOUT ROWID;
"""
_GIVE_UP = "UPDATE urls SET state = 'done', kind = 'failed', reason = ? WHERE state = 'asked' AND deaths >= ?"
_WAITING = "FROM urls WHERE state = 'waiting' AND round = 0"


@dataclass(frozen=True)
class Entry:
    """A URL that waits."""

    id: int
    url: str
    host: str
    depth: int
    redirects: int


@dataclass(frozen=True)
class Told:
    """What a site said when it was asked for its robots.txt; status 0 where it did not answer."""

    status: int
    body: bytes
    reason: str
    fetched_at: float


class Frontier:
    """Use as a context manager; one process and one thread at a time."""

    def __init__(self, path: Path) -> None:
        durable.make_folder(path.parent)
        self.path = path
        self._connection = database.connect(path, SCHEMA, "WAL")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    def _do(self, *statements: tuple[str, Sequence[Any]]) -> None:
        with self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            for statement, values in statements:
                self._connection.execute(statement, values)

    def _number(self, query: str, *values: Any) -> int:
        return int(self._connection.execute(query, values).fetchone()[0])

    def meta(self, key: str) -> float:
        """A number that is kept under a name; 0 where there is none."""
        row = self._connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return float(row[0]) if row else 0.0

    def begin(self, seeds: Iterable[str]) -> None:
        """Take the seeds in, once; what was being asked for when a process died waits again and is counted."""
        cut = self._number("SELECT count(*) FROM urls WHERE state = 'asked'")
        self._do(
            *(_found(seed, 0) for seed in seeds),
            ("UPDATE urls SET deaths = deaths + 1 WHERE state = 'asked'", ()),
            (_GIVE_UP, (f"the process died {DEATHS_MAX} times while it was asked for", DEATHS_MAX)),
            ("UPDATE urls SET state = 'waiting' WHERE state = 'asked'", ()),
            _add("interrupted", cut),
            ("INSERT OR IGNORE INTO meta VALUES ('progress_at', ?)", (time.time(),)),
        )

    def choose(self, pages_max: int, pages_per_host: int, patience_s: float = math.inf) -> list[Entry]:
        """What is left of the open round, else the next round; empty where nothing waits or no request is left.

        Hosts that are to be left alone for longer than `patience_s` have no part in it.
        """
        if not self.is_open():
            chosen = self._first_of_each_host(pages_per_host, patience_s)[: max(pages_max - self.asked(), 0)]
            number = self.meta("round") + 1
            self._do(*(("UPDATE urls SET round = ? WHERE id = ?", (number, id_)) for _depth, id_ in chosen))
        found = self._connection.execute(
            "SELECT id, url, host, depth, redirects FROM urls WHERE round = ? AND state = 'waiting' ORDER BY depth, id",
            (self.meta("round") + 1,),
        )
        return [Entry(*row) for row in found]

    def _first_of_each_host(self, pages_per_host: int, patience_s: float) -> list[tuple[int, int]]:
        """(depth, id) of what may come next, in that order. One look in the index for each host."""
        spent = dict(self._connection.execute("SELECT host, count(*) FROM urls WHERE attempts > 0 GROUP BY host"))
        found: list[tuple[int, int]] = []
        for (host,) in self._connection.execute(f"SELECT DISTINCT host {_WAITING}").fetchall():
            if self.wait_s(host) > patience_s:
                continue
            most = min(ROUND_PER_HOST, pages_per_host - spent.get(host, 0))
            next_ = f"SELECT depth, id {_WAITING} AND host = ? ORDER BY depth, id LIMIT ?"
            found += self._connection.execute(next_, (host, max(most, 0)))
        return sorted(found)

    def is_open(self) -> bool:
        """Whether a round was begun and not closed."""
        return self._number("SELECT count(*) FROM urls WHERE round = ?", self.meta("round") + 1) > 0

    def end_round(self, depth_max: int, pages_max: int) -> None:
        """Take in the links of the round, in order, and count it."""
        number = self.meta("round") + 1
        done = self._connection.execute(
            "SELECT id, depth, redirects, kind, links FROM urls WHERE round = ? ORDER BY depth, id", (number,)
        ).fetchall()
        room = KNOWN_PER_PAGE * pages_max - self._number("SELECT count(*) FROM urls")
        found = []
        for parent, depth, redirects, kind, links in done:
            for link in json.loads(links):
                if kind == "redirect":
                    found.append(_found(link, depth, redirects + 1, parent))
                elif depth < depth_max:
                    found.append(_found(link, depth + 1))
        self._do(
            *found[: max(room, 0)],
            ("UPDATE urls SET links = '[]' WHERE round = ?", (number,)),
            _set("round", number),
            _set("outages", 0),
        )

    def ask(self, entry: Entry, pause_s: float) -> None:
        """Note, before the request, that it is made."""
        now = time.time()
        self._do(
            ("UPDATE urls SET state = 'asked', attempts = attempts + 1, asked_at = ? WHERE id = ?", (now, entry.id)),
            _rest(entry.host, now, pause_s),
        )

    def rest(self, host: str, pause_s: float) -> None:
        """The host is left alone for so long from now."""
        self._do(_rest(host, time.time(), pause_s))

    def wait_s(self, host: str) -> float:
        """How long the host is still to be left alone; never longer than was once decided, whatever the clock says."""
        row = self._connection.execute("SELECT asked_at, pause_s FROM hosts WHERE host = ?", (host,)).fetchone()
        return min(max(row[0] + row[1] - time.time(), 0.0), row[1]) if row else 0.0

    def finish(self, entry: Entry, outcome: Outcome, pause_s: float | None = None) -> None:
        """The URL's end and its page, in one transaction; after a request the host is left alone for `pause_s`."""
        now = time.time()
        links = json.dumps(outcome.links, ensure_ascii=False)
        facts = json.dumps(outcome.facts, ensure_ascii=False, sort_keys=True)
        self._do(
            (
                "UPDATE urls SET state = 'done', kind = ?, reason = ?, links = ?, text = ?, facts = ? WHERE id = ?",
                (outcome.kind, outcome.reason, links, outcome.text, facts, entry.id),
            ),
            _set("progress_at", now),
            *([] if pause_s is None else [_rest(entry.host, now, pause_s)]),
        )

    def outage(self) -> int:
        """Undo a round in which nothing was reached; how many in a row that makes. 0 where something was."""
        number = self.meta("round") + 1
        reached = self._number("SELECT count(*) FROM urls WHERE round = ? AND kind != 'unreachable'", number)
        if reached:
            return 0
        self._do(
            ("DELETE FROM robots WHERE status = 0", ()),
            ("UPDATE urls SET state = 'waiting', kind = '', reason = '', facts = '{}' WHERE round = ?", (number,)),
            _add("outages", 1),
        )
        return int(self.meta("outages"))

    def told(self, origin: str) -> Told | None:
        """What an origin said of its robots.txt, whenever that was."""
        row = self._connection.execute(
            "SELECT status, body, reason, fetched_at FROM robots WHERE origin = ?", (origin,)
        ).fetchone()
        return Told(*row) if row else None

    def tell(self, origin: str, told: Told) -> None:
        """Keep what an origin said."""
        values = (origin, told.status, told.body, told.reason, told.fetched_at)
        self._do(("INSERT OR REPLACE INTO robots VALUES (?, ?, ?, ?, ?)", values))

    def asked(self) -> int:
        """URLs that a request was made for."""
        return self._number("SELECT count(*) FROM urls WHERE attempts > 0")

    def kept(self) -> int:
        """Pages that are rows so far."""
        return self._number("SELECT count(*) FROM urls WHERE kind = 'kept'")

    def requests(self) -> int:
        """Requests for pages, repeated ones included."""
        return self._number("SELECT coalesce(sum(attempts), 0) FROM urls")

    def done(self) -> list[dict[str, Any]]:
        """Every URL that has come to its end, in the order in which they were found."""
        names = ("id", "url", "host", "depth", "via", "attempts", "asked_at", "kind", "reason", "text", "facts")
        rows = self._connection.execute(f"SELECT {', '.join(names)} FROM urls WHERE state = 'done' ORDER BY id")  # noqa: S608
        return [{**dict(zip(names, row, strict=True)), "facts": json.loads(row[-1])} for row in rows]


def _found(url: str, depth: int, redirects: int = 0, via: int = 0) -> tuple[str, Sequence[Any]]:
    statement = "INSERT OR IGNORE INTO urls (url, host, depth, redirects, via) VALUES (?, ?, ?, ?, ?)"
    return statement, (url, host_of(url), depth, redirects, via)


def _rest(host: str, now: float, pause_s: float) -> tuple[str, Sequence[Any]]:
    """A pause never ends one that was to last longer."""
    statement = (
        "INSERT INTO hosts VALUES (?, ?, ?) ON CONFLICT (host) DO UPDATE SET asked_at = excluded.asked_at,"
        " pause_s = max(excluded.pause_s, min(pause_s, asked_at + pause_s - excluded.asked_at))"
    )
    return statement, (host, now, pause_s)


def _set(key: str, value: float) -> tuple[str, Sequence[Any]]:
    return "INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value)


def _add(key: str, value: float) -> tuple[str, Sequence[Any]]:
    return "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = value + excluded.value", (key, value)
