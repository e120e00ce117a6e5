"""Queue jobs in an application's own transaction: the job exists if and only if that commits.

What a job may be is in ``newjob``; which library the connection is of is the matter of ``connections``. Not a Gearman
client: nothing goes over the wire, and ``gman.servers`` is not looked at.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar, overload

from postgear.functions import Function
from postgear.newjob import AnyJob, TypedJob, encode_job

from .connections import Arrays, call, call_async

if TYPE_CHECKING:
    from .connections import AsyncConnection, SyncConnection

P = TypeVar("P")


@overload
def enqueue(
    connection: SyncConnection,
    function: Function[P, Any],
    payload: P,
    *,
    unique: str | bytes | None = None,
    priority: str = "normal",
    run_at: datetime | float | None = None,
) -> str: ...
@overload
def enqueue(
    connection: SyncConnection,
    function: str | bytes,
    payload: object = None,
    *,
    unique: str | bytes | None = None,
    priority: str = "normal",
    run_at: datetime | float | None = None,
) -> str: ...
def enqueue(
    connection: SyncConnection,
    function: str | bytes | Function[Any, Any],
    payload: object = None,
    *,
    unique: str | bytes | None = None,
    priority: str = "normal",
    run_at: datetime | float | None = None,
) -> str:
    """Queue a background job in the transaction that *connection* is in and return the job's handle.

    Nothing is committed for the caller: without a commit there is no job; with autocommit it is there at once.

    connection: a psycopg Connection or Cursor, an SQLAlchemy Connection, Session or scoped_session, or a connection of
    Django. function: 1 to 512 bytes, str as UTF-8. payload: bytes as they are, str as UTF-8, None as nothing, all else as JSON.
    unique: at most 64 bytes; while a job of the same function and unique is queued or running, its handle is returned and no
    job added; ``-`` stands for the payload. priority: high, normal or low. run_at: not before this time, an aware datetime
    or Unix time; a fraction of a second is rounded up.

    Raises InvalidJob for a job that cannot be, UnsupportedConnection for what is no such connection, QueueFull when the
    function has as many jobs as it may (the transaction can go on), SchemaError when the database lacks postgear. Any other
    error is the library's own.
    """
    return call(connection, _encode([(function, payload, unique, priority, run_at)]))[0]


@overload
def enqueue_many(connection: SyncConnection, jobs: Iterable[AnyJob]) -> list[str]: ...
@overload
def enqueue_many(connection: SyncConnection, jobs: Iterable[AnyJob | TypedJob[P]]) -> list[str]: ...
def enqueue_many(connection: SyncConnection, jobs: Iterable[AnyJob | TypedJob[Any]]) -> list[str]:
    """Queue jobs as ``enqueue`` does, in one round trip, and return their handles in the same order; all or none.

    Type checkers take plain tuples with a Function only where all are of that Function and one length; else use NewJob.
    """
    return call(connection, _encode(jobs))


@overload
async def enqueue_async(
    connection: AsyncConnection,
    function: Function[P, Any],
    payload: P,
    *,
    unique: str | bytes | None = None,
    priority: str = "normal",
    run_at: datetime | float | None = None,
) -> str: ...
@overload
async def enqueue_async(
    connection: AsyncConnection,
    function: str | bytes,
    payload: object = None,
    *,
    unique: str | bytes | None = None,
    priority: str = "normal",
    run_at: datetime | float | None = None,
) -> str: ...
async def enqueue_async(
    connection: AsyncConnection,
    function: str | bytes | Function[Any, Any],
    payload: object = None,
    *,
    unique: str | bytes | None = None,
    priority: str = "normal",
    run_at: datetime | float | None = None,
) -> str:
    """Be ``enqueue`` for psycopg's AsyncConnection or AsyncCursor, SQLAlchemy's AsyncConnection or AsyncSession."""
    handles = await call_async(connection, _encode([(function, payload, unique, priority, run_at)]))
    return handles[0]


@overload
async def enqueue_many_async(connection: AsyncConnection, jobs: Iterable[AnyJob]) -> list[str]: ...
@overload
async def enqueue_many_async(connection: AsyncConnection, jobs: Iterable[AnyJob | TypedJob[P]]) -> list[str]: ...
async def enqueue_many_async(connection: AsyncConnection, jobs: Iterable[AnyJob | TypedJob[Any]]) -> list[str]:
    """Be ``enqueue_many`` for the connections of ``enqueue_async``."""
    return await call_async(connection, _encode(jobs))


def _encode(jobs: Iterable[tuple[Any, ...]]) -> Arrays:
    encoded = [encode_job(job) for job in jobs]
    uniques = [job.unique or None for job in encoded]
    run_ats = [job.run_at for job in encoded]
    return Arrays(
        [job.function for job in encoded],
        [job.workload for job in encoded],
        uniques if any(uniques) else None,
        [job.priority for job in encoded],
        run_ats if any(run_at is not None for run_at in run_ats) else None,
    )
