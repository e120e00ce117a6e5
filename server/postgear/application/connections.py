"""Run ``postgear.enqueue_jobs`` on a connection that an application has: psycopg, psycopg2, SQLAlchemy or Django.

Libraries are told by the names of the object's classes, so that none is imported that the application does not use.
Nothing here begins, commits or rolls back: what the connection does around any statement is done around this one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, cast

from postgear.errors import QueueFull, SchemaError, UnsupportedConnection

if TYPE_CHECKING:
    import psycopg
    import sqlalchemy
    import sqlalchemy.ext.asyncio
    import sqlalchemy.orm


class DjangoConnection(Protocol):
    """``django.db.connection`` or ``django.db.connections[alias]``."""

    @property
    def vendor(self) -> str: ...
    @property
    def alias(self) -> str: ...
    def cursor(self) -> Any: ...


if TYPE_CHECKING:
    SyncConnection = (
        psycopg.Connection[Any]
        | psycopg.Cursor[Any]
        | sqlalchemy.Connection
        | sqlalchemy.orm.Session
        | sqlalchemy.orm.scoped_session[Any]
        | DjangoConnection
    )
    AsyncConnection = (
        psycopg.AsyncConnection[Any]
        | psycopg.AsyncCursor[Any]
        | sqlalchemy.ext.asyncio.AsyncConnection
        | sqlalchemy.ext.asyncio.AsyncSession
        | sqlalchemy.ext.asyncio.async_scoped_session[Any]
    )


class Arrays(NamedTuple):
    """The arguments of ``postgear.enqueue_jobs``; what is null as a whole is None."""

    function_names: list[bytes]
    workloads: list[bytes]
    unique_keys: list[bytes | None] | None
    priorities: list[int] | None
    run_ats: list[int | None] | None


Row = tuple[list[str | bytes] | None, int | None]
"""The result: handles (bytes in a database without an encoding, SQL_ASCII), refused."""

_CALL: Final = (
    "select handles, refused from postgear.enqueue_jobs({}::bytea[], {}::bytea[], {}::bytea[], {}::smallint[], {}::bigint[])"
)
_PSYCOPG: Final = _CALL.format("%b", "%b", "%b", "%b", "%b")  # binary: the arrays travel as they are
_PYFORMAT: Final = _CALL.format("%s", "%s", "%s", "%s", "%s")

_MISSING: Final = {"3F000", "42883"}
"""SQLSTATEs of a schema and of a function that are not there."""


def call(connection: SyncConnection, arrays: Arrays) -> list[str]:
    """Queue the jobs on *connection* and return their handles. Raises as ``postgear.enqueue`` does."""
    run = _find(connection, _SYNC)
    if run is None:
        raise UnsupportedConnection(_refusal(connection, _ASYNC, "is asynchronous: await enqueue_async()"))
    return _handles(run(connection, arrays), arrays)


async def call_async(connection: AsyncConnection, arrays: Arrays) -> list[str]:
    """Be ``call`` for asynchronous connections."""
    run = _find(connection, _ASYNC)
    if run is None:
        raise UnsupportedConnection(_refusal(connection, _SYNC, "is synchronous: call enqueue()"))
    return _handles(await run(connection, arrays), arrays)


def _handles(row: Row, arrays: Arrays) -> list[str]:
    handles, refused = row
    if handles is None:
        assert refused is not None
        raise QueueFull(arrays.function_names[refused - 1].decode("utf-8", "backslashreplace"))
    return [handle.decode("ascii") if isinstance(handle, bytes) else handle for handle in handles]


def _psycopg(connection: psycopg.Connection[Any], arrays: Arrays) -> Row:
    import psycopg
    from psycopg.rows import tuple_row

    try:
        # Not connection.cursor(): an application's cursor_factory may want other placeholders, its row_factory other rows.
        with psycopg.Cursor(connection, row_factory=tuple_row) as cursor:
            row: Any = cursor.execute(_PSYCOPG, arrays).fetchone()
    except psycopg.Error as error:
        _raise_if_missing(error, error.sqlstate)
        raise
    return cast("Row", row)


async def _psycopg_async(connection: psycopg.AsyncConnection[Any], arrays: Arrays) -> Row:
    import psycopg
    from psycopg.rows import tuple_row

    try:
        async with psycopg.AsyncCursor(connection, row_factory=tuple_row) as cursor:
            await cursor.execute(_PSYCOPG, arrays)
            row: Any = await cursor.fetchone()
    except psycopg.Error as error:
        _raise_if_missing(error, error.sqlstate)
        raise
    return cast("Row", row)


def _psycopg2(connection: Any, arrays: Arrays) -> Row:
    import psycopg2  # type: ignore[import-untyped]
    from psycopg2.extensions import cursor as plain_cursor  # type: ignore[import-untyped]

    try:
        with connection.cursor(cursor_factory=plain_cursor) as cursor:
            cursor.execute(_PYFORMAT, arrays)
            row: Any = cursor.fetchone()
    except psycopg2.Error as error:
        _raise_if_missing(error, error.pgcode)
        raise
    return cast("Row", row)


def _django(connection: DjangoConnection, arrays: Arrays) -> Row:
    from django.db import Error  # type: ignore[import-untyped]

    vendor = getattr(connection, "vendor", None)  # Django's caches have proxies of the same class
    if vendor is None:
        raise UnsupportedConnection(_refusal(connection, {}, ""))
    if vendor != "postgresql":
        raise UnsupportedConnection(f"Django's connection {connection.alias!r} is to {vendor}, not to postgresql")
    try:
        with connection.cursor() as cursor:
            cursor.execute(_PYFORMAT, arrays)
            row: Any = cursor.fetchone()
    except Error as error:
        _raise_if_missing(error, _sqlstate(error.__cause__))
        raise
    return cast("Row", row)


def _sqlalchemy(connection: sqlalchemy.Connection, arrays: Arrays) -> Row:
    from sqlalchemy.exc import DBAPIError

    if connection.dialect.name != "postgresql":
        raise UnsupportedConnection(f"SQLAlchemy's connection is to {connection.dialect.name}, not to postgresql")
    try:
        row = connection.execute(_sqlalchemy_call(), arrays._asdict()).one()
    except DBAPIError as error:
        _raise_if_missing(error, _sqlstate(error.orig))
        raise
    return row[0], row[1]


async def _sqlalchemy_async(connection: sqlalchemy.ext.asyncio.AsyncConnection, arrays: Arrays) -> Row:
    return await connection.run_sync(_sqlalchemy, arrays)


def _session(session: sqlalchemy.orm.Session, arrays: Arrays) -> Row:
    return _sqlalchemy(session.connection(), arrays)


async def _session_async(session: sqlalchemy.ext.asyncio.AsyncSession, arrays: Arrays) -> Row:
    return await _sqlalchemy_async(await session.connection(), arrays)


@cache
def _sqlalchemy_call() -> sqlalchemy.TextClause:
    from sqlalchemy import BigInteger, LargeBinary, SmallInteger, bindparam, text
    from sqlalchemy.dialects.postgresql import ARRAY

    types = (LargeBinary, LargeBinary, LargeBinary, SmallInteger, BigInteger)
    # cast() and not ::, in which SQLAlchemy sees the colons of a parameter.
    casts = ("bytea", "bytea", "bytea", "smallint", "bigint")
    arguments = ", ".join(f"cast(:{name} as {cast}[])" for name, cast in zip(Arrays._fields, casts, strict=True))
    return text(f"select handles, refused from postgear.enqueue_jobs({arguments})").bindparams(
        *(bindparam(name, type_=ARRAY(kind)) for name, kind in zip(Arrays._fields, types, strict=True))
    )


def _sqlstate(error: BaseException | None) -> str | None:
    """Return the SQLSTATE under the name that the driver has for it."""
    return getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)


def _raise_if_missing(error: BaseException, sqlstate: str | None) -> None:
    """Raise SchemaError where postgear is missing; any other error stays the library's, which applications know to retry."""
    if sqlstate in _MISSING:
        raise SchemaError(
            f"the database has no postgear.enqueue_jobs; `postgear init` creates it ({_first_line(error)})"
        ) from error


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]


_SYNC: Final[dict[tuple[str, str], Callable[[Any, Arrays], Row]]] = {
    ("psycopg", "Connection"): _psycopg,
    ("psycopg", "Cursor"): lambda cursor, arrays: _psycopg(cursor.connection, arrays),
    ("psycopg2", "connection"): _psycopg2,
    ("psycopg2", "cursor"): lambda cursor, arrays: _psycopg2(cursor.connection, arrays),
    ("sqlalchemy", "Connection"): _sqlalchemy,
    ("sqlalchemy", "Session"): _session,
    ("sqlalchemy", "scoped_session"): _session,
    ("django", "BaseDatabaseWrapper"): _django,
    ("django", "ConnectionProxy"): _django,
}
"""By package and class; a subclass counts as its parent."""

_ASYNC: Final[dict[tuple[str, str], Callable[[Any, Arrays], Awaitable[Row]]]] = {
    ("psycopg", "AsyncConnection"): _psycopg_async,
    ("psycopg", "AsyncCursor"): lambda cursor, arrays: _psycopg_async(cursor.connection, arrays),
    ("sqlalchemy", "AsyncConnection"): _sqlalchemy_async,
    ("sqlalchemy", "AsyncSession"): _session_async,
    ("sqlalchemy", "async_scoped_session"): _session_async,
}

_NEAR: Final = {
    ("sqlalchemy", "Engine"): "has no transaction of its own: give a connection of engine.begin()",
    ("sqlalchemy", "AsyncEngine"): "has no transaction of its own: give a connection of engine.begin()",
    ("sqlalchemy", "sessionmaker"): "makes sessions: give one of them",
    ("sqlalchemy", "async_sessionmaker"): "makes sessions: give one of them",
    ("psycopg_pool", "ConnectionPool"): "has no transaction of its own: give a connection of pool.connection()",
    ("psycopg_pool", "AsyncConnectionPool"): "has no transaction of its own: give a connection of pool.connection()",
    ("django", "ConnectionHandler"): "holds connections: give one of them, django.db.connections[alias]",
    ("django", "Atomic"): "is no connection: give django.db.connection inside of it",
}
"""What people reach for first, and what to give instead."""


def _kinds(connection: object) -> list[tuple[str, str]]:
    return [(kind.__module__.partition(".")[0], kind.__name__) for kind in type(connection).__mro__]


def _find(connection: object, table: dict[tuple[str, str], Any]) -> Any:
    return next((table[kind] for kind in _kinds(connection) if kind in table), None)


def _refusal(connection: object, twins: dict[tuple[str, str], Any], of_twins: str) -> str:
    name = f"{type(connection).__module__}.{type(connection).__qualname__}"
    if _find(connection, twins):
        return f"{name} {of_twins}"
    return f"{name} {_find(connection, _NEAR) or 'is no connection, cursor or session of psycopg, SQLAlchemy or Django'}"
