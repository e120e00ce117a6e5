"""Applications of several kinds behind the same few verbs. What an application calls is its library's own.

``connection`` is what the application gives to ``enqueue``; ``transaction`` and ``savepoint`` commit or release at the end
of the block, and roll back when an error leaves it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, contextmanager
from typing import Any, NamedTuple, Protocol

import django
import psycopg
import psycopg2
import sqlalchemy
from django.conf import settings
from django.db import connection as django_connection
from django.db import connections as django_connections
from django.db import transaction as django_transaction
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import dict_row
from sqlalchemy import orm
from sqlalchemy.ext import asyncio as sqlalchemy_asyncio


class Undo(Exception):
    """Leaves a block of a test, so that it is rolled back."""


class QueuedJob(NamedTuple):
    function: bytes
    workload: bytes
    unique: bytes | None
    priority: int
    handle: str


class Database:
    """The database of one test; *look* is a connection that sees only what is committed."""

    def __init__(self, dsn: str, look: psycopg.Connection) -> None:
        self.dsn = dsn
        self.look = look

    def url(self, driver: str) -> sqlalchemy.URL:
        """Return SQLAlchemy's URL."""
        parts: dict[str, Any] = conninfo_to_dict(self.dsn)
        return sqlalchemy.URL.create(
            f"postgresql+{driver}",
            username=parts["user"],
            database=parts["dbname"],
            query={"host": parts["host"], "port": str(parts["port"])},
        )

    def jobs(self) -> list[QueuedJob]:
        """Return the jobs that are committed, in order of their ids."""
        rows = self.look.execute(
            "select function.name, workload, unique_key, priority, postgear.handle(job.id)"
            " from postgear.job join postgear.function on function.id = function_id order by job.id"
        )
        return [QueuedJob(*row) for row in rows]

    def articles(self) -> list[int]:
        return [row[0] for row in self.look.execute("select id from article order by id")]


class SyncKind(Protocol):
    connection: Any

    def __init__(self, database: Database) -> None: ...
    def execute(self, statement: str) -> None: ...
    def transaction(self) -> AbstractContextManager[object]: ...
    def savepoint(self) -> AbstractContextManager[object]: ...
    def close(self) -> None: ...


class Psycopg:
    def __init__(self, database: Database) -> None:
        self.connection: Any = psycopg.connect(database.dsn)

    def execute(self, statement: str) -> None:
        self.connection.execute(statement)

    def transaction(self) -> AbstractContextManager[object]:
        return self.connection.transaction()  # type: ignore[no-any-return]

    savepoint = transaction

    def close(self) -> None:
        self.connection.close()


class PsycopgOdd(Psycopg):
    """A connection whose cursors have other placeholders and other rows."""

    def __init__(self, database: Database) -> None:
        self.connection = psycopg.connect(database.dsn, row_factory=dict_row, cursor_factory=psycopg.RawCursor)


class PsycopgAutocommit(Psycopg):
    def __init__(self, database: Database) -> None:
        self.connection = psycopg.connect(database.dsn, autocommit=True)


class PsycopgCursor(Psycopg):
    def __init__(self, database: Database) -> None:
        self._connection = psycopg.connect(database.dsn)
        self.connection = self._connection.cursor()

    def transaction(self) -> AbstractContextManager[object]:
        return self._connection.transaction()

    savepoint = transaction

    def close(self) -> None:
        self._connection.close()


class Psycopg2:
    def __init__(self, database: Database) -> None:
        self.connection: Any = psycopg2.connect(database.dsn)

    def execute(self, statement: str) -> None:
        with self.connection.cursor() as cursor:
            cursor.execute(statement)

    def transaction(self) -> AbstractContextManager[object]:
        return self.connection  # type: ignore[no-any-return]

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        self.execute("savepoint inner_block")
        try:
            yield
        except BaseException:
            self.execute("rollback to savepoint inner_block")
            raise
        self.execute("release savepoint inner_block")

    def close(self) -> None:
        self.connection.close()


class Core:
    driver = "psycopg"

    def __init__(self, database: Database) -> None:
        self._engine = sqlalchemy.create_engine(database.url(self.driver))
        self.connection: Any = self._connect()

    def _connect(self) -> Any:
        return self._engine.connect()

    def execute(self, statement: str) -> None:
        self.connection.execute(sqlalchemy.text(statement))

    def transaction(self) -> AbstractContextManager[object]:
        return self.connection.begin()  # type: ignore[no-any-return]

    def savepoint(self) -> AbstractContextManager[object]:
        return self.connection.begin_nested()  # type: ignore[no-any-return]

    def close(self) -> None:
        self.connection.close()
        self._engine.dispose()


class CorePsycopg2(Core):
    driver = "psycopg2"


class OrmSession(Core):
    def _connect(self) -> Any:
        return orm.Session(self._engine)


class OrmScopedSession(Core):
    def _connect(self) -> Any:
        return orm.scoped_session(orm.sessionmaker(self._engine))


class Django:
    """``django.db.connection``; the alias "file" is no PostgreSQL."""

    def __init__(self, database: Database) -> None:
        parts: dict[str, Any] = conninfo_to_dict(database.dsn)
        default = {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": parts["dbname"],
            "USER": parts["user"],
            "HOST": parts["host"],
            "PORT": parts["port"],
        }
        databases = {"default": default, "file": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
        if not settings.configured:
            settings.configure(DATABASES=databases, USE_TZ=True)
            django.setup()
        # Settings are read once a process, and every test has another database.
        django_connections.settings = django_connections.configure_settings(databases)
        self.connection: Any = django_connection

    def execute(self, statement: str) -> None:
        with self.connection.cursor() as cursor:
            cursor.execute(statement)

    def transaction(self) -> AbstractContextManager[object]:
        return django_transaction.atomic()  # type: ignore[no-any-return]

    savepoint = transaction

    def close(self) -> None:
        django_connections.close_all()
        for alias in ("default", "file"):
            if hasattr(django_connections._connections, alias):
                del django_connections[alias]


class DjangoAlias(Django):
    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.connection = django_connections["default"]


SYNC_KINDS: list[type[SyncKind]] = [
    Psycopg,
    PsycopgOdd,
    PsycopgAutocommit,
    PsycopgCursor,
    Psycopg2,
    Core,
    CorePsycopg2,
    OrmSession,
    OrmScopedSession,
    Django,
    DjangoAlias,
]


class AsyncKind(Protocol):
    connection: Any

    def __init__(self, database: Database) -> None: ...
    async def open(self) -> None: ...
    async def execute(self, statement: str) -> None: ...
    def transaction(self) -> AbstractAsyncContextManager[object]: ...
    def savepoint(self) -> AbstractAsyncContextManager[object]: ...
    async def close(self) -> None: ...


class AsyncPsycopg:
    def __init__(self, database: Database) -> None:
        self._dsn = database.dsn
        self.connection: Any = None

    async def open(self) -> None:
        self.connection = await psycopg.AsyncConnection.connect(self._dsn)

    async def execute(self, statement: str) -> None:
        await self.connection.execute(statement)

    def transaction(self) -> AbstractAsyncContextManager[object]:
        return self.connection.transaction()  # type: ignore[no-any-return]

    savepoint = transaction

    async def close(self) -> None:
        await self.connection.close()


class AsyncPsycopgCursor(AsyncPsycopg):
    async def open(self) -> None:
        await super().open()
        self._connection = self.connection
        self.connection = self._connection.cursor()

    def transaction(self) -> AbstractAsyncContextManager[object]:
        return self._connection.transaction()  # type: ignore[no-any-return]

    savepoint = transaction

    async def close(self) -> None:
        await self._connection.close()


class AsyncCore:
    driver = "psycopg"

    def __init__(self, database: Database) -> None:
        self._engine = sqlalchemy_asyncio.create_async_engine(database.url(self.driver))
        self.connection: Any = None

    async def open(self) -> None:
        self.connection = await self._engine.connect()

    async def execute(self, statement: str) -> None:
        await self.connection.execute(sqlalchemy.text(statement))

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        async with self.connection.begin():
            yield

    @asynccontextmanager
    async def savepoint(self) -> AsyncIterator[None]:
        async with self.connection.begin_nested():
            yield

    async def close(self) -> None:
        await self.connection.close()
        await self._engine.dispose()


class AsyncCoreAsyncpg(AsyncCore):
    driver = "asyncpg"


class AsyncOrmSession(AsyncCore):
    async def open(self) -> None:
        self.connection = sqlalchemy_asyncio.AsyncSession(self._engine)


class AsyncOrmScopedSession(AsyncCore):
    async def open(self) -> None:
        factory = sqlalchemy_asyncio.async_sessionmaker(self._engine)
        self.connection = sqlalchemy_asyncio.async_scoped_session(factory, scopefunc=lambda: 1)


class AsyncOrmSessionAsyncpg(AsyncOrmSession):
    driver = "asyncpg"


ASYNC_KINDS: list[type[AsyncKind]] = [
    AsyncPsycopg,
    AsyncPsycopgCursor,
    AsyncCore,
    AsyncCoreAsyncpg,
    AsyncOrmSession,
    AsyncOrmScopedSession,
    AsyncOrmSessionAsyncpg,
]
