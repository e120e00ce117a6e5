"""Run handlers in a transaction of the database that ends their job, too: what they wrote is there exactly if the job is done.

A connection for each handler that runs at one time, kept for the next. The job's row is deleted at the end of the transaction,
fenced by lease and attempt, so nobody waits for a row that a long handler has locked, and nothing of a job that was given
out again is committed. A handler cannot commit by itself: psycopg forbids it inside of the block that it runs in.

Connections are to the host that the worker's lease is at, no other: an old primary that lives on has rows of the same jobs under
the same lease, and what is done there is lost.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple, TypeVar

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from postgear.connecting import first_line, is_demoted, options
from postgear.errors import JobLost, StoreInDoubt, StoreUnavailable
from postgear.job import Ending
from postgear.logs import event
from postgear.store.statements import CLUSTER
from postgear.store.told import Cluster

from .job import Job

log = logging.getLogger("postgear.worker")

CONNECT_SECONDS: Final = 5
BACKOFF_SECONDS: Final = (0.05, 2.0)
AGAIN_SECONDS: Final = 1.0
"""When a job is tried again whose connection broke: not at once, should it be the job that breaks it."""
_COMPLETE: Final = "select postgear.complete_job(%s::bigint, %s::bigint, %s::smallint)"
_COMPLETE_WITH_RESULT: Final = (
    "select postgear.finish_with_results(%s::bigint, array[%s::bigint], array[true], array[%b::bytea], %s::smallint) is null"
)
# A backend whose worker was cut off ends itself soon, for it may hold the lock of a row that others wait for.
_SETTINGS: Final = (
    "select set_config('tcp_keepalives_idle', '5', false), set_config('tcp_keepalives_interval', '2', false),"
    " set_config('tcp_keepalives_count', '3', false), set_config('tcp_user_timeout', '10000', false)"
)


AnyConnection = psycopg.Connection[Any] | psycopg.AsyncConnection[Any]
C = TypeVar("C", psycopg.Connection[Any], psycopg.AsyncConnection[Any])


class Place(NamedTuple):
    """Where a lease is, or was before the database went away. address: the parameters to connect to that host."""

    cluster: Cluster
    address: dict[str, str]
    is_up: bool

    def check(self, row: tuple[Any, ...] | None) -> Cluster:
        """Return the cluster if *row*, which a connection answered to CLUSTER, is of it; else raise StoreUnavailable."""
        if row != self.cluster:
            raise StoreUnavailable("another PostgreSQL answers than the one that the worker's lease is at")
        return self.cluster


class Transactions:
    """The connections. Its methods are called in handlers' threads, or in the loop, as ``Origin`` says.

    place: tells where the lease is, None before there was one.
    lease: tells the lease. holds: whether a job is still here. keeps_result: whether it is stored how a job has ended.
    ended, postponed: are told in the loop that a job is done, and that one is to be run again after so many seconds.
    """

    def __init__(
        self,
        dsn: str,
        name: str,
        *,
        place: Callable[[], Place | None],
        lease: Callable[[], int],
        holds: Callable[[Job], bool],
        keeps_result: Callable[[Job], bool],
        ended: Callable[[Job], object],
        postponed: Callable[[Job, float], object],
    ) -> None:
        self._options = options(
            dsn,
            autocommit=True,
            connect_timeout=CONNECT_SECONDS,
            application_name=f"postgear {name} handler",
            target_session_attrs="read-write",
        )
        self._place = place
        self._lease = lease
        self._holds = holds
        self._keeps_result = keeps_result
        self._ended = ended
        self._postponed = postponed
        self._loop = asyncio.get_running_loop()
        self._idle: list[tuple[psycopg.Connection[Any], Cluster]] = []
        self._idle_async: list[tuple[psycopg.AsyncConnection[Any], Cluster]] = []
        self._closing = threading.Event()

    def run(self, job: Job, call: Callable[[], bytes]) -> None:
        """Run a plain handler; see ``Origin.run_transaction``."""
        while True:
            connection, cluster = self._take(self._idle) or self._connect(job)
            run = _Run(job, connection, cluster)
            try:
                with connection.transaction():
                    run.has_begun = True
                    completion = self._completion(job, call())
                    cursor = psycopg.Cursor(connection, row_factory=tuple_row)
                    run.check(cursor.execute(*completion).fetchone())
                    run.is_committing = True
            except BaseException as error:
                if run.may_repeat:
                    continue
                raise self._failure(run, error) from error
            finally:
                job.connection = None
                if self._may_keep(run):
                    connection.row_factory = tuple_row
                    self._idle.append((connection, cluster))
                else:
                    connection.close()
            self._end(run)
            return

    async def run_async(self, job: Job, call: Callable[[], Awaitable[bytes]]) -> None:
        """Run an async handler; see ``Origin.run_transaction``."""
        while True:
            connection, cluster = self._take(self._idle_async) or await self._connect_async(job)
            run = _Run(job, connection, cluster)
            try:
                async with connection.transaction():
                    run.has_begun = True
                    completion = self._completion(job, await call())
                    cursor = psycopg.AsyncCursor(connection, row_factory=tuple_row)
                    await cursor.execute(*completion)
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
                    self._idle_async.append((connection, cluster))
                else:
                    await connection.close()
            self._end(run)
            return

    async def close(self) -> None:
        """Close the connections that are idle; those in use are closed when their handlers end."""
        self._closing.set()
        while (found := _pop(self._idle)) is not None:
            found[0].close()
        while (found_async := _pop(self._idle_async)) is not None:
            await found_async[0].close()

    def _completion(self, job: Job, result: bytes) -> tuple[str, tuple[object, ...]]:
        """Return the statement that deletes the job of this delivery, and its parameters."""
        if self._keeps_result(job):
            return _COMPLETE_WITH_RESULT, (self._lease(), job.id, Ending(True, result).kept_data, job.attempt)
        return _COMPLETE, (self._lease(), job.id, job.attempt)

    def _end(self, run: _Run) -> None:
        """Say that a job is done. Raises StoreInDoubt where it was committed at a database that the worker has left meanwhile."""
        place = self._place()
        if place is not None and place.cluster != run.cluster:
            self._tell(self._postponed, run.job, AGAIN_SECONDS)
            raise StoreInDoubt(f"job {run.job.handle}: the database that has committed it is the queue's no more")
        self._tell(self._ended, run.job)

    def _failure(self, run: _Run, error: BaseException) -> BaseException:
        """Say what comes of the job, and return what is to be raised."""
        job = run.job
        if isinstance(error, _Stale):
            # Not forgotten: the database that was asked may be one that the queue has left. Whose it is not stays another's.
            self._tell(self._postponed, job, AGAIN_SECONDS)
            return JobLost(f"job {job.handle} is another's now; what its handler wrote was rolled back")
        if run.is_in_doubt(error):
            run.is_spoilt = True
            # If it was committed there is no row that could go back.
            self._tell(self._postponed, job, AGAIN_SECONDS)
            return StoreInDoubt(f"job {job.handle}: the outcome of its commit is not known: {first_line(str(error))}")
        if run.connection.broken:
            self._tell(self._postponed, job, AGAIN_SECONDS)
            return JobLost(f"job {job.handle} goes back: its database connection broke, so what it wrote was rolled back")
        if is_demoted(run.connection):
            run.is_spoilt = True
            self._tell(self._postponed, job, AGAIN_SECONDS)
            return JobLost(f"job {job.handle} goes back: its database takes no writes any more, so what it wrote was rolled back")
        return error

    def _tell(self, listener: Callable[..., object], *arguments: object) -> None:
        self._loop.call_soon_threadsafe(listener, *arguments)

    def _may_keep(self, run: _Run) -> bool:
        if run.is_spoilt or run.connection.closed or self._closing.is_set():
            return False
        return run.connection.info.transaction_status is TransactionStatus.IDLE

    def _take(self, idle: list[tuple[C, Cluster]]) -> tuple[C, Cluster] | None:
        """Return an idle connection to where the lease is. Those to elsewhere are closed: all were left when the worker moved."""
        place = self._place()
        while (found := _pop(idle)) is not None:
            if place is not None and place.is_up and found[1] == place.cluster:
                return found
            found[0].pgconn.finish()
        return None

    def _connect(self, job: Job) -> tuple[psycopg.Connection[Any], Cluster]:
        pause, longest = BACKOFF_SECONDS
        while True:
            connection = None
            try:
                place = self._wanted_place()
                connection = psycopg.connect(**self._options | place.address)
                connection.execute(_SETTINGS)
                return connection, place.check(connection.execute(CLUSTER).fetchone())
            except (psycopg.Error, StoreUnavailable) as error:
                if connection is not None:
                    connection.close()
                self._check_wanted(job, error)
            self._closing.wait(pause)
            pause = min(pause * 2, longest)

    async def _connect_async(self, job: Job) -> tuple[psycopg.AsyncConnection[Any], Cluster]:
        pause, longest = BACKOFF_SECONDS
        while True:
            connection = None
            try:
                place = self._wanted_place()
                connection = await psycopg.AsyncConnection.connect(**self._options | place.address)
                await connection.execute(_SETTINGS)
                return connection, place.check(await (await connection.execute(CLUSTER)).fetchone())
            except (psycopg.Error, StoreUnavailable) as error:
                if connection is not None:
                    await connection.close()
                self._check_wanted(job, error)
            await asyncio.sleep(pause)
            pause = min(pause * 2, longest)

    def _wanted_place(self) -> Place:
        place = self._place()
        if place is None or not place.is_up:
            raise StoreUnavailable("the database is away")
        return place

    def _check_wanted(self, job: Job, error: Exception) -> None:
        """Raise JobLost if nobody waits for the job any more; else the slot waits for a connection, and takes no other job."""
        event(log, logging.WARNING, "no connection for a handler, retrying", handle=job.handle, reason=first_line(str(error)))
        if self._closing.is_set() or not self._holds(job):
            raise JobLost(f"job {job.handle} is another's now; it waited for a database connection") from error


class _Stale(Exception):
    """The job is no longer this delivery's."""


class _Run:
    """How far one run of a handler is.

    cluster: where its connection is. is_committing: all but the commit is done. is_spoilt: the connection is not to be kept.
    """

    def __init__(self, job: Job, connection: AnyConnection, cluster: Cluster) -> None:
        self.job = job
        self.connection = connection
        self.cluster = cluster
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
        is_refused = (
            isinstance(error, psycopg.Error)
            and error.sqlstate is not None
            # Whoever ends the session may do it after the commit, while that waits for a standby.
            and error.diag.severity_nonlocalized == "ERROR"
            and not self.connection.broken
        )
        return self.is_committing and not is_refused

    def check(self, row: tuple[Any, ...] | None) -> None:
        """Raise _Stale unless the job's row was there to be deleted."""
        if row is None or not row[0]:
            raise _Stale


T = TypeVar("T")


def _pop(connections: list[T]) -> T | None:
    try:
        return connections.pop()
    except IndexError:
        return None  # another thread was faster
