"""``connect`` and ``connect_async``: the clients straight on the database, for what needs no server.

Background jobs are queued, asked for and cancelled by SQL, on a connection of the client's own; ``enqueue`` does it in the
caller's transaction. What waits for a result goes over the wire to the servers of the queue that run.
"""

from __future__ import annotations

import asyncio
import select
import threading
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar, overload

import psycopg

from postgear.application.enqueue import enqueue, enqueue_async, enqueue_many, enqueue_many_async
from postgear.connecting import failed_connection, is_demoted, options
from postgear.errors import InvalidJob, PostgearError, SchemaError, ServerUnreachable, StoreError, StoreInDoubt, StoreUnavailable
from postgear.functions import Function
from postgear.newjob import AnyJob, TypedJob, encode_unique

from .calls import Address, parse_servers
from .client import AsyncClient, Client
from .operations import Status
from .requests import DEFAULT_TIMEOUT_SECONDS, AnyFunction, RunAt

if TYPE_CHECKING:
    from postgear.application.connections import AsyncConnection, SyncConnection

P = TypeVar("P")
T = TypeVar("T")

_STATUS: Final = "select known, running, numerator, denominator from postgear.handle_status(%s)"
_STATUS_OF_UNIQUE: Final = """
select id is not null, coalesce(running, false), coalesce(numerator, 0), coalesce(denominator, 0)
from postgear.job_status(null, %b)
"""
_RESULT: Final = """
select outcome, result, finished_at from (select) as one_row left join postgear.handle_result(%s) on true
"""
_CANCEL: Final = "select postgear.cancel_job(postgear.handle_id(%s))"
_SERVERS: Final = "select string_agg(found, ',') from postgear.live_servers() as found"
_READ_ONLY: Final = "25006"
_GONE: Final = ("08", "57P", _READ_ONLY)
"""SQLSTATEs, or how they begin, after which the connection is of no use: broken, shut down, or at a standby now."""
_OPTIONS: Final[dict[str, Any]] = {
    "autocommit": True,
    "client_encoding": "utf8",
    "prepare_threshold": None,  # poolers may give each statement to another session
}

Row = tuple[Any, ...]


@dataclass(frozen=True)
class JobResult:
    """How a background job has ended.

    data: what its worker returned (the data of WORK_COMPLETE, not what it sent before the end), or said about the failure
    (WORK_EXCEPTION); None where that was nothing, or over 256 MB. finished_at: by the database's clock.
    """

    is_completed: bool
    data: bytes | None
    finished_at: datetime


def connect(dsn: str = "", *, timeout: float | None = DEFAULT_TIMEOUT_SECONDS) -> DatabaseClient:
    """Return a client on the database *dsn* (empty: libpq's environment). Raises StoreUnavailable, StoreRefused.

    timeout: seconds that a Gearman server may take to answer, where one is asked; how long the database may, *dsn* says.
    """
    return DatabaseClient(dsn, timeout=timeout)


async def connect_async(
    dsn: str = "", *, timeout: float | None = DEFAULT_TIMEOUT_SECONDS, max_connections: int = 100
) -> AsyncDatabaseClient:
    """Be ``connect`` for asyncio."""
    client = AsyncDatabaseClient(dsn, timeout=timeout, max_connections=max_connections)
    await client.open()
    return client


class DatabaseClient(Client):
    """A Client that queues background jobs by SQL. For any number of threads; their statements take turns on one connection.

    A job is stored when a method that queues it returns. Scheduled ones may have any priority; there are none with a reducer.
    Raises as Client does, and StoreError: StoreUnavailable (nothing is queued), StoreInDoubt (the connection was lost on the way:
    a job may be queued), SchemaError; and QueueFull.
    """

    def __init__(self, dsn: str, *, timeout: float | None = DEFAULT_TIMEOUT_SECONDS) -> None:
        super().__init__(timeout=timeout)
        self._dsn = dsn
        self._lock = threading.Lock()
        self._notices = _Notices()
        self._connection = self._connect()

    def close(self) -> None:
        """Close the connections that no call uses; it may be used again afterwards."""
        super().close()
        with self._lock:
            self._connection.close()

    @overload
    def submit_many(self, jobs: Iterable[AnyJob]) -> list[str]: ...
    @overload
    def submit_many(self, jobs: Iterable[AnyJob | TypedJob[P]]) -> list[str]: ...
    def submit_many(self, jobs: Iterable[AnyJob | TypedJob[Any]]) -> list[str]:
        """Queue background jobs, all or none, and return their handles in the same order."""
        return self._do(lambda connection: enqueue_many(connection, jobs), is_writing=True)

    @overload
    def enqueue(
        self,
        connection: SyncConnection,
        function: Function[P, Any],
        payload: P,
        *,
        unique: str | bytes | None = None,
        priority: str = "normal",
        run_at: RunAt = None,
    ) -> str: ...
    @overload
    def enqueue(
        self,
        connection: SyncConnection,
        function: str | bytes,
        payload: object = None,
        *,
        unique: str | bytes | None = None,
        priority: str = "normal",
        run_at: RunAt = None,
    ) -> str: ...
    def enqueue(
        self,
        connection: SyncConnection,
        function: AnyFunction,
        payload: object = None,
        *,
        unique: str | bytes | None = None,
        priority: str = "normal",
        run_at: RunAt = None,
    ) -> str:
        """Queue a job in the transaction that *connection* is in: ``postgear.enqueue``."""
        return enqueue(connection, function, payload, unique=unique, priority=priority, run_at=run_at)

    def status(self, handle: str) -> Status:
        """Return the state of a background job; all zero if there is none."""
        return _status(self._row(_STATUS, handle))

    def status_of_unique(self, unique: str | bytes) -> Status:
        """Return the state of the background job with this unique, of whatever function. Not for mere producers."""
        return _status(self._row(_STATUS_OF_UNIQUE, encode_unique(unique)))

    def result(self, handle: str) -> JobResult | None:
        """Return how a background job has ended; None: it has not, or nothing is kept of it (any more), or it never was.

        Kept is what its function asks for with ``postgear.keep_results``.
        """
        return _result(self._row(_RESULT, handle))

    def cancel(self, handle: str) -> bool:
        """Remove a background job, queued, scheduled or running; false: there is none. Not for mere producers."""
        return bool(self._row(_CANCEL, handle, is_writing=True)[0])

    def _submit(self, job: tuple[Any, ...], reducer: AnyFunction | None) -> str:
        _refuse_reducer(reducer)
        return self._do(lambda connection: enqueue_many(connection, [job]), is_writing=True)[0]

    def _addresses(self) -> Sequence[Address]:
        return _servers(self._row(_SERVERS))

    def _row(self, query: str, *arguments: object, is_writing: bool = False) -> Row:
        def fetch(connection: psycopg.Connection[Row]) -> Row:
            row = connection.execute(query.encode(), arguments).fetchone()
            assert row is not None
            return row

        return self._do(fetch, is_writing=is_writing)

    def _do(self, work: Callable[[psycopg.Connection[Row]], T], *, is_writing: bool) -> T:
        with self._lock:
            if _is_gone(self._connection):
                self._connection.close()
                self._connection = self._connect()
            try:
                with self._notices:
                    return work(self._connection)
            except psycopg.Error as error:
                is_lost = self._connection.closed or (error.sqlstate or "").startswith(_GONE)
                if is_lost:  # the next call finds the host that takes writes
                    self._connection.close()
                raise _store_error(error, is_lost=is_lost, is_writing=is_writing) from error

    def _connect(self) -> psycopg.Connection[Row]:
        try:
            connection = psycopg.connect(**options(self._dsn, **_OPTIONS))
        except psycopg.Error as error:
            raise failed_connection(error) from error
        connection.add_notice_handler(self._notices.add)
        return connection


class AsyncDatabaseClient(AsyncClient):
    """``DatabaseClient`` for asyncio: the same methods, awaited."""

    def __init__(self, dsn: str, *, timeout: float | None = DEFAULT_TIMEOUT_SECONDS, max_connections: int = 100) -> None:
        super().__init__(timeout=timeout, max_connections=max_connections)
        self._dsn = dsn
        self._lock = asyncio.Lock()
        self._notices = _Notices()
        self._connection: psycopg.AsyncConnection[Row] | None = None

    async def open(self) -> None:
        """Connect to the database now, to be told now what is wrong."""
        await self._do(_nothing, is_writing=False)

    async def close(self) -> None:
        """Be DatabaseClient.close."""
        await super().close()
        async with self._lock:
            if self._connection is not None:
                await self._connection.close()

    @overload
    async def submit_many(self, jobs: Iterable[AnyJob]) -> list[str]: ...
    @overload
    async def submit_many(self, jobs: Iterable[AnyJob | TypedJob[P]]) -> list[str]: ...
    async def submit_many(self, jobs: Iterable[AnyJob | TypedJob[Any]]) -> list[str]:
        """Be DatabaseClient.submit_many."""
        return await self._do(lambda connection: enqueue_many_async(connection, jobs), is_writing=True)

    @overload
    async def enqueue(
        self,
        connection: AsyncConnection,
        function: Function[P, Any],
        payload: P,
        *,
        unique: str | bytes | None = None,
        priority: str = "normal",
        run_at: RunAt = None,
    ) -> str: ...
    @overload
    async def enqueue(
        self,
        connection: AsyncConnection,
        function: str | bytes,
        payload: object = None,
        *,
        unique: str | bytes | None = None,
        priority: str = "normal",
        run_at: RunAt = None,
    ) -> str: ...
    async def enqueue(
        self,
        connection: AsyncConnection,
        function: AnyFunction,
        payload: object = None,
        *,
        unique: str | bytes | None = None,
        priority: str = "normal",
        run_at: RunAt = None,
    ) -> str:
        """Queue a job in the transaction that *connection* is in: ``postgear.enqueue_async``."""
        return await enqueue_async(connection, function, payload, unique=unique, priority=priority, run_at=run_at)

    async def status(self, handle: str) -> Status:
        """Be DatabaseClient.status."""
        return _status(await self._row(_STATUS, handle))

    async def status_of_unique(self, unique: str | bytes) -> Status:
        """Be DatabaseClient.status_of_unique."""
        return _status(await self._row(_STATUS_OF_UNIQUE, encode_unique(unique)))

    async def result(self, handle: str) -> JobResult | None:
        """Be DatabaseClient.result."""
        return _result(await self._row(_RESULT, handle))

    async def cancel(self, handle: str) -> bool:
        """Be DatabaseClient.cancel."""
        return bool((await self._row(_CANCEL, handle, is_writing=True))[0])

    async def _submit(self, job: tuple[Any, ...], reducer: AnyFunction | None) -> str:
        _refuse_reducer(reducer)
        return (await self._do(lambda connection: enqueue_many_async(connection, [job]), is_writing=True))[0]

    async def _addresses(self) -> Sequence[Address]:
        return _servers(await self._row(_SERVERS))

    async def _row(self, query: str, *arguments: object, is_writing: bool = False) -> Row:
        async def fetch(connection: psycopg.AsyncConnection[Row]) -> Row:
            row = await (await connection.execute(query.encode(), arguments)).fetchone()
            assert row is not None
            return row

        return await self._do(fetch, is_writing=is_writing)

    async def _do(self, work: Callable[[psycopg.AsyncConnection[Row]], Awaitable[T]], *, is_writing: bool) -> T:
        async with self._lock:
            if self._connection is None or _is_gone(self._connection):
                if self._connection is not None:
                    await self._connection.close()
                self._connection = await self._connect()
            try:
                with self._notices:
                    return await work(self._connection)
            except psycopg.Error as error:
                is_lost = self._connection.closed or (error.sqlstate or "").startswith(_GONE)
                if is_lost:  # the next call finds the host that takes writes
                    await self._connection.close()
                raise _store_error(error, is_lost=is_lost, is_writing=is_writing) from error

    async def _connect(self) -> psycopg.AsyncConnection[Row]:
        try:
            connection = await psycopg.AsyncConnection.connect(**options(self._dsn, **_OPTIONS))
        except psycopg.Error as error:
            raise failed_connection(error) from error
        connection.add_notice_handler(self._notices.add)
        return connection


class _Notices:
    """Refuses, at the end of a ``with``, a commit that no standby confirmed: that is no ack."""

    def __init__(self) -> None:
        self._is_in_doubt = False

    def add(self, diagnostic: psycopg.errors.Diagnostic) -> None:
        """Take a notice of the connection."""
        # None of our statements warns, so a warning is that the wait for the synchronous standby was cancelled.
        self._is_in_doubt |= diagnostic.severity_nonlocalized == "WARNING"

    def __enter__(self) -> None:
        self._is_in_doubt = False

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        if self._is_in_doubt and error is None:
            raise StoreInDoubt("the commit was not confirmed by a standby")


def _refuse_reducer(reducer: AnyFunction | None) -> None:
    if reducer is not None:
        raise InvalidJob("a job that is queued in the database has no reducer")


def _status(row: Row) -> Status:
    known, running, numerator, denominator = row
    return Status(known, running, numerator, denominator)


def _result(row: Row) -> JobResult | None:
    outcome, data, finished_at = row
    return None if outcome is None else JobResult(outcome == "completed", data, finished_at)


def _servers(row: Row) -> Sequence[Address]:
    if not row[0]:
        raise ServerUnreachable("no server of this database's queue runs")
    return parse_servers(row[0])


def _is_gone(connection: psycopg.Connection[Row] | psycopg.AsyncConnection[Row]) -> bool:
    """Tell whether the connection has ended; an idle one to which something came has, mostly. Or whether its host was demoted."""
    if connection.closed:
        return True
    # Where one host is all there is, it may be a standby that is asked for the state of jobs.
    if is_demoted(connection) and "target_session_attrs" in connection.info.get_parameters():
        return True
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def _store_error(error: psycopg.Error, *, is_lost: bool, is_writing: bool) -> PostgearError:
    text = str(error).strip()
    if isinstance(error, psycopg.errors.UndefinedFunction | psycopg.errors.InvalidSchemaName):
        return SchemaError(f"the database has no schema postgear, or one of another version; run `postgear init` ({text})")
    if not is_lost:
        return StoreError(text)
    if error.sqlstate == _READ_ONLY:
        return StoreUnavailable(f"the database takes no writes: {text}")
    if is_writing:
        return StoreInDoubt(f"the connection to the database was lost: {text}")
    return StoreUnavailable(f"the connection to the database was lost: {text}")


async def _nothing(_connection: psycopg.AsyncConnection[Row]) -> None:
    """Connecting is all that is wanted."""
