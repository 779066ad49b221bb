"""Prefect's SQLite database, whose every writing transaction takes its place among the writers when it begins."""

from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager

from prefect.server.database.configurations import AioSqliteConfiguration
from prefect.server.database.dependencies import temporary_database_config
from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL
from sqlalchemy.ext.asyncio import AsyncSession, AsyncSessionTransaction


class Immediate(AioSqliteConfiguration):
    """BEGIN IMMEDIATE, where Prefect begins most with BEGIN DEFERRED.

    A deferred transaction that has read cannot write once another has written, however long it would wait
    (SQLITE_BUSY_SNAPSHOT, https://www.sqlite.org/isolation.html). Prefect's server answers that with 503: its own clients
    ask again, a browser does not, and a run submitted while another writes its progress was mostly refused. An immediate
    one waits for its turn, as Prefect's busy_timeout says.
    """

    @asynccontextmanager
    async def begin_transaction(
        self,
        session: AsyncSession,
        with_for_update: bool = False,
    ) -> AsyncIterator[AsyncSessionTransaction]:
        """As Prefect begins those that it means to serialize."""
        async with super().begin_transaction(session, with_for_update=True) as transaction:
            yield transaction


def immediate() -> AbstractContextManager[None]:
    """Within it the server's database is this one, at the address of Prefect's settings."""
    return temporary_database_config(Immediate(connection_url=PREFECT_API_DATABASE_CONNECTION_URL.value()))
