"""Prefect's SQLite database, whose writing transactions take place one after another, in the order in which they come."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from prefect.server.database.configurations import AioSqliteConfiguration
from prefect.server.database.dependencies import temporary_database_config
from prefect.server.utilities.database import get_dialect
from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL
from sqlalchemy.ext.asyncio import AsyncSession, AsyncSessionTransaction

# As long as Prefect lets SQLite wait (its busy_timeout). Whoever has waited so long goes on to wait there.
PATIENCE_S = 60.0


@dataclass
class Turn:
    """One transaction's; `lasts` is over with it, also for tasks that it has begun."""

    lasts: bool = True


_turn: ContextVar[Turn | None] = ContextVar("turn", default=None)
_queues: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()


class Immediate(AioSqliteConfiguration):
    """BEGIN IMMEDIATE, where Prefect begins most with BEGIN DEFERRED, and a queue before it.

    A deferred transaction that has read cannot write once another has written, however long it would wait
    (SQLITE_BUSY_SNAPSHOT, https://www.sqlite.org/isolation.html). Prefect's server answers that with 503: its own clients
    ask again, a browser does not, and a run submitted while another writes its progress was mostly refused. An immediate
    one waits for its turn. SQLite knows no order among those who wait, and each would hold a connection meanwhile.
    """

    @asynccontextmanager
    async def begin_transaction(
        self, session: AsyncSession, with_for_update: bool = False
    ) -> AsyncIterator[AsyncSessionTransaction]:
        """As Prefect begins those that it means to serialize."""
        async with in_turn(), super().begin_transaction(session, with_for_update=True) as transaction:
            yield transaction


def immediate() -> AbstractContextManager[None]:
    """Within it the server's database is this one, at the address of Prefect's settings; PostgreSQL stays Prefect's."""
    address = PREFECT_API_DATABASE_CONNECTION_URL.value()
    if get_dialect(address).name != "sqlite":
        return nullcontext()
    return temporary_database_config(Immediate(connection_url=address))


@asynccontextmanager
async def in_turn() -> AsyncIterator[None]:
    """After all that came before. A transaction within another waits for none: that one cannot end before it."""
    outer = _turn.get()
    if outer is not None and outer.lasts:
        yield
        return
    queue = _queues.setdefault(asyncio.get_running_loop(), asyncio.Lock())
    try:
        await asyncio.wait_for(queue.acquire(), PATIENCE_S)
    except TimeoutError:
        yield
        return
    own = Turn()
    token = _turn.set(own)
    try:
        yield
    finally:
        own.lasts = False
        queue.release()
        # Last: it raises where another task ends what this one began, and a queue that stays taken stops the server.
        _turn.reset(token)
