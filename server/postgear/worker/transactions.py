"""Run handlers in a transaction of the database that ends their job, too: what they wrote is there exactly if the job is done.

A connection for each handler that runs at one time, kept for the next. The job's row is deleted at the end of the transaction,
fenced by lease and attempt, so nobody waits for a row that a long handler has locked, and nothing of a job that was given
out again is committed. A handler cannot commit by itself: psycopg forbids it inside of the block that it runs in.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from postgear.connecting import first_line
from postgear.errors import JobLost, StoreInDoubt
from postgear.logs import event

from .job import Job

log = logging.getLogger("postgear.worker")

CONNECT_SECONDS: Final = 5
BACKOFF_SECONDS: Final = (0.05, 2.0)
AGAIN_SECONDS: Final = 1.0
"""When a job is tried again whose connection broke: not at once, should it be the job that breaks it."""
_COMPLETE: Final = "select postgear.complete_job(%s::bigint, %s::bigint, %s::smallint)"
# A backend whose worker was cut off ends itself soon, for it may hold the lock of a row that others wait for.
_SETTINGS: Final = (
    "select set_config('tcp_keepalives_idle', '5', false), set_config('tcp_keepalives_interval', '2', false),"
    " set_config('tcp_keepalives_count', '3', false), set_config('tcp_user_timeout', '10000', false)"
)


class Transactions:
    """The connections. Its methods are called in handlers' threads, or in the loop, as ``Origin`` says.

    lease: tells the lease of this moment. holds: whether a job is still here. ended, postponed: are told in the loop that a
    job is done, and that one is to be run again after so many seconds.
    """

    def __init__(
        self,
        dsn: str,
        name: str,
        *,
        lease: Callable[[], int],
        holds: Callable[[Job], bool],
        ended: Callable[[Job], object],
        postponed: Callable[[Job, float], object],
    ) -> None:
        self._options: dict[str, Any] = {
            "conninfo": dsn,
            "autocommit": True,
            "connect_timeout": CONNECT_SECONDS,
            "application_name": f"postgear {name} handler",
            "target_session_attrs": "read-write",
            "tcp_user_timeout": 10_000,
            "keepalives_idle": 5,
            "keepalives_interval": 2,
            "keepalives_count": 3,
        }
        self._lease = lease
        self._holds = holds
        self._ended = ended
        self._postponed = postponed
        self._loop = asyncio.get_running_loop()
        self._idle: list[psycopg.Connection[Any]] = []
        self._idle_async: list[psycopg.AsyncConnection[Any]] = []
        self._closing = threading.Event()

    def run(self, job: Job, call: Callable[[], object]) -> None:
        """Run a plain handler; see ``Origin.run_transaction``."""
        while True:
            connection = _pop(self._idle) or self._connect(job)
            run = _Run(job, connection)
            try:
                with connection.transaction():
                    run.has_begun = True
                    call()
                    cursor = psycopg.Cursor(connection, row_factory=tuple_row)
                    run.check(cursor.execute(_COMPLETE, (self._lease(), job.id, job.attempt)).fetchone())
                    run.is_committing = True
            except BaseException as error:
                if run.may_repeat:
                    continue
                raise self._failure(run, error) from error
            finally:
                job.connection = None
                if self._may_keep(run):
                    connection.row_factory = tuple_row
                    self._idle.append(connection)
                else:
                    connection.close()
            self._tell(self._ended, job)
            return

    async def run_async(self, job: Job, call: Callable[[], Awaitable[object]]) -> None:
        """Run an async handler; see ``Origin.run_transaction``."""
        while True:
            connection = _pop(self._idle_async) or await self._connect_async(job)
            run = _Run(job, connection)
            try:
                async with connection.transaction():
                    run.has_begun = True
                    await call()
                    cursor = psycopg.AsyncCursor(connection, row_factory=tuple_row)
                    await cursor.execute(_COMPLETE, (self._lease(), job.id, job.attempt))
                    run.check(await cursor.fetchone())
                    run.is_committing = True
            except BaseException as error:
                if run.may_repeat:
                    continue
                raise self._failure(run, error) from error
            finally:
                job.connection = None
                if self._may_keep(run):
                    connection.row_factory = tuple_row
                    self._idle_async.append(connection)
                else:
                    await connection.close()
            self._tell(self._ended, job)
            return

    async def close(self) -> None:
        """Close the connections that are idle; those in use are closed when their handlers end."""
        self._closing.set()
        while (connection := _pop(self._idle)) is not None:
            connection.close()
        while (async_connection := _pop(self._idle_async)) is not None:
            await async_connection.close()

    def _failure(self, run: _Run, error: BaseException) -> BaseException:
        """Say what comes of the job, and return what is to be raised."""
        job = run.job
        if isinstance(error, _Stale):
            self._tell(self._ended, job)
            return JobLost(f"job {job.handle} is another's now; what its handler wrote was rolled back")
        if run.is_in_doubt(error):
            run.is_spoilt = True
            # If it was committed there is no row that could go back.
            self._tell(self._postponed, job, AGAIN_SECONDS)
            return StoreInDoubt(f"job {job.handle}: the outcome of its commit is not known: {first_line(str(error))}")
        if run.connection.broken:
            self._tell(self._postponed, job, AGAIN_SECONDS)
            return JobLost(f"job {job.handle} goes back: its database connection broke, so what it wrote was rolled back")
        return error

    def _tell(self, listener: Callable[..., object], *arguments: object) -> None:
        self._loop.call_soon_threadsafe(listener, *arguments)

    def _may_keep(self, run: _Run) -> bool:
        if run.is_spoilt or run.connection.closed or self._closing.is_set():
            return False
        return run.connection.info.transaction_status is TransactionStatus.IDLE

    def _connect(self, job: Job) -> psycopg.Connection[Any]:
        pause, longest = BACKOFF_SECONDS
        while True:
            try:
                connection = psycopg.connect(**self._options)
                connection.execute(_SETTINGS)
                return connection
            except psycopg.Error as error:
                self._check_wanted(job, error)
            self._closing.wait(pause)
            pause = min(pause * 2, longest)

    async def _connect_async(self, job: Job) -> psycopg.AsyncConnection[Any]:
        pause, longest = BACKOFF_SECONDS
        while True:
            try:
                connection = await psycopg.AsyncConnection.connect(**self._options)
                await connection.execute(_SETTINGS)
                return connection
            except psycopg.Error as error:
                self._check_wanted(job, error)
            await asyncio.sleep(pause)
            pause = min(pause * 2, longest)

    def _check_wanted(self, job: Job, error: psycopg.Error) -> None:
        """Raise JobLost if nobody waits for the job any more; else the slot waits for a connection, and takes no other job."""
        event(log, logging.WARNING, "no connection for a handler, retrying", handle=job.handle, reason=first_line(str(error)))
        if self._closing.is_set() or not self._holds(job):
            raise JobLost(f"job {job.handle} is another's now; it waited for a database connection") from error


class _Stale(Exception):
    """The job is no longer this delivery's."""


class _Run:
    """How far one run of a handler is.

    is_committing: all but the commit is done. is_spoilt: the connection is not to be used again.
    """

    def __init__(self, job: Job, connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> None:
        self.job = job
        self.connection = connection
        self.has_begun = False
        self.is_committing = False
        self.is_spoilt = False
        job.connection = connection

    @property
    def may_repeat(self) -> bool:
        """Whether the connection had broken before, while it was idle."""
        return not self.has_begun and self.connection.broken

    def is_in_doubt(self, error: BaseException) -> bool:
        """Whether the commit may have happened. Not if the database itself refused it, and the connection lives to say so."""
        is_refused = isinstance(error, psycopg.Error) and error.sqlstate is not None and not self.connection.broken
        return self.is_committing and not is_refused

    def check(self, row: tuple[Any, ...] | None) -> None:
        """Raise _Stale unless the job's row was there to be deleted."""
        if row is None or not row[0]:
            raise _Stale


C = TypeVar("C")


def _pop(connections: list[C]) -> C | None:
    try:
        return connections.pop()
    except IndexError:
        return None  # another thread was faster
