"""The transactions of the server's database: none is refused for another's write, and they go in order."""

import asyncio

import pytest
from prefect.server.database.dependencies import MODELS_DEPENDENCIES
from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL, temporary_settings
from sqlalchemy import text

from deployments.database import Immediate, immediate, in_turn

TASKS = 12


def test_transactions_that_read_before_they_write_are_all_done_in_order(tmp_path):
    """Each looks at the rows, takes its time, and adds one: deferred ones end in SQLITE_BUSY_SNAPSHOT."""

    async def add(database, number):
        async with await database.session(await database.engine()) as session, database.begin_transaction(session):
            seen = (await session.execute(text("SELECT count(*) FROM rows"))).scalar_one()
            await asyncio.sleep(0.02)
            await session.execute(text("INSERT INTO rows VALUES (:number, :seen)"), {"number": number, "seen": seen})

    async def all_at_once():
        database = Immediate(connection_url=f"sqlite+aiosqlite:///{(tmp_path / 'prefect.db').as_posix()}")
        engine = await database.engine()
        async with engine.begin() as connection:
            await connection.execute(text("CREATE TABLE rows (number INTEGER, seen INTEGER)"))
        await asyncio.gather(*(add(database, number) for number in range(TASKS)))
        async with engine.connect() as connection:
            found = (await connection.execute(text("SELECT number, seen FROM rows ORDER BY rowid"))).all()
        await engine.dispose()
        return found

    assert asyncio.run(all_at_once()) == [(number, number) for number in range(TASKS)]


def test_one_within_another_does_not_wait_for_it(tmp_path):
    async def nested():
        said, outer_ended = [], asyncio.Event()

        async def begun_within():
            async with in_turn():
                said.append("beside")
            await outer_ended.wait()
            async with in_turn():
                said.append("after")

        async with in_turn():
            async with in_turn():
                said.append("within")
            child = asyncio.create_task(begun_within())
            await asyncio.sleep(0)
        async with in_turn():
            outer_ended.set()
            await asyncio.sleep(0.01)
            said.append("the next, alone")
        await child
        return said

    assert asyncio.run(asyncio.wait_for(nested(), 30)) == ["within", "beside", "the next, alone", "after"]


def test_one_that_another_task_ends_leaves_the_queue_free():
    async def handed_over():
        turn = in_turn()
        await asyncio.create_task(turn.__aenter__())
        with pytest.raises(ValueError, match="different Context"):
            await turn.__aexit__(None, None, None)
        async with in_turn():
            return "next"

    assert asyncio.run(asyncio.wait_for(handed_over(), 30)) == "next"


def test_only_sqlite_is_spoken_to_as_sqlite():
    address = "postgresql+asyncpg://so8t@127.0.0.1/prefect"
    with temporary_settings({PREFECT_API_DATABASE_CONNECTION_URL: address}), immediate():
        assert not isinstance(MODELS_DEPENDENCIES["database_config"], Immediate)
    with temporary_settings({PREFECT_API_DATABASE_CONNECTION_URL: "sqlite+aiosqlite:///prefect.db"}), immediate():
        assert isinstance(MODELS_DEPENDENCIES["database_config"], Immediate)
