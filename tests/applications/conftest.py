"""Applications that hold a connection of their own: one of each kind, with the same few verbs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import psycopg
import pytest

from tests.applications.kinds import ASYNC_KINDS, SYNC_KINDS, Database, SyncKind


@pytest.fixture
def database(dsn: str) -> Iterator[Database]:
    """The test's database, with a table of the application's own, and a look at what has been committed."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("create table article (id integer primary key, title text)")
        yield Database(dsn, connection)


@pytest.fixture(params=SYNC_KINDS, ids=lambda kind: kind.__name__)
def application(request: pytest.FixtureRequest, database: Database) -> Iterator[SyncKind]:
    """An application of each synchronous kind, connected."""
    application = request.param(database)
    yield application
    application.close()


@pytest.fixture(params=ASYNC_KINDS, ids=lambda kind: kind.__name__)
def run_async(request: pytest.FixtureRequest, database: Database) -> Callable[[Callable[[Any], Awaitable[None]]], None]:
    """Run a coroutine function with an application of each asynchronous kind."""

    def run(story: Callable[[Any], Awaitable[None]]) -> None:
        async def main() -> None:
            application = request.param(database)
            await application.open()
            try:
                await story(application)
            finally:
                await application.close()

        asyncio.run(main())

    return run
