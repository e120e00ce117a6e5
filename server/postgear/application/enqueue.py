"""Queue jobs in an application's own transaction: the job exists if and only if that commits.

Checks and encodes what it is given; which library the connection is of is the matter of ``connections``. Not a Gearman
client: nothing goes over the wire, and ``gman.servers`` is not looked at.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from postgear.errors import InvalidJob

from .connections import Arrays, call, call_async

if TYPE_CHECKING:
    from .connections import AsyncConnection, SyncConnection

_PRIORITIES: Final = {"high": 0, "normal": 1, "low": 2}
_FUNCTION_BYTES: Final = 512
_UNIQUE_BYTES: Final = 64
_LAST_SECOND: Final = 253_402_300_799  # of the year 9999; above it somebody gave milliseconds


class NewJob(NamedTuple):
    """A job for ``enqueue_many``; a plain tuple in this order will do. The fields are the parameters of ``enqueue``."""

    function: str | bytes
    payload: Any = None
    unique: str | bytes | None = None
    priority: str = "normal"
    run_at: datetime | float | None = None


def enqueue(
    connection: SyncConnection,
    function: str | bytes,
    payload: Any = None,
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
    return call(connection, _encode([NewJob(function, payload, unique, priority, run_at)]))[0]


def enqueue_many(connection: SyncConnection, jobs: Iterable[NewJob | tuple[Any, ...]]) -> list[str]:
    """Queue jobs as ``enqueue`` does, in one round trip, and return their handles in the same order; all or none."""
    return call(connection, _encode(jobs))


async def enqueue_async(
    connection: AsyncConnection,
    function: str | bytes,
    payload: Any = None,
    *,
    unique: str | bytes | None = None,
    priority: str = "normal",
    run_at: datetime | float | None = None,
) -> str:
    """Be ``enqueue`` for psycopg's AsyncConnection or AsyncCursor, SQLAlchemy's AsyncConnection or AsyncSession."""
    handles = await call_async(connection, _encode([NewJob(function, payload, unique, priority, run_at)]))
    return handles[0]


async def enqueue_many_async(connection: AsyncConnection, jobs: Iterable[NewJob | tuple[Any, ...]]) -> list[str]:
    """Be ``enqueue_many`` for the connections of ``enqueue_async``."""
    return await call_async(connection, _encode(jobs))


def _encode(jobs: Iterable[NewJob | tuple[Any, ...]]) -> Arrays:
    functions: list[bytes] = []
    workloads: list[bytes] = []
    uniques: list[bytes | None] = []
    priorities: list[int] = []
    run_ats: list[int | None] = []
    for job in jobs:
        if not isinstance(job, tuple) or not 1 <= len(job) <= len(NewJob._fields):
            raise InvalidJob(f"a job is a NewJob or a tuple like it, {type(job).__name__} given")
        function, payload, unique, priority, run_at = NewJob(*job)
        functions.append(_name("a function", function, 1, _FUNCTION_BYTES))
        workloads.append(_workload(payload))
        uniques.append(None if unique is None else _name("a unique", unique, 0, _UNIQUE_BYTES))
        if not isinstance(priority, str) or priority not in _PRIORITIES:
            raise InvalidJob(f"a priority is high, normal or low, {priority!r} given")
        priorities.append(_PRIORITIES[priority])
        run_ats.append(None if run_at is None else _epoch(run_at))
    return Arrays(
        functions,
        workloads,
        uniques if any(uniques) else None,
        priorities,
        run_ats if any(run_at is not None for run_at in run_ats) else None,
    )


def _name(what: str, name: object, least: int, most: int) -> bytes:
    if not isinstance(name, str | bytes):
        raise InvalidJob(f"{what} is str or bytes, {type(name).__name__} given")
    encoded = _utf8(what, name) if isinstance(name, str) else name
    if not least <= len(encoded) <= most:
        raise InvalidJob(f"{what} has {least} to {most} bytes, {len(encoded)} given")
    if b"\0" in encoded:
        raise InvalidJob(f"{what} has no NUL, {name!r} given")
    return encoded


def _workload(payload: object) -> bytes:
    if payload is None:
        return b""
    if isinstance(payload, bytes | bytearray | memoryview):
        return bytes(payload)
    if not isinstance(payload, str):
        try:
            # NaN and Infinity are no JSON: a worker in another language could not read them.
            payload = json.dumps(payload, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidJob(f"the payload is neither bytes nor str nor JSON: {error}") from error
    return _utf8("a payload", payload)


def _utf8(what: str, text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise InvalidJob(f"{what} cannot be encoded: {error}") from error


def _epoch(run_at: object) -> int:
    if isinstance(run_at, datetime):
        if run_at.utcoffset() is None:
            raise InvalidJob(f"run_at needs a time zone, {run_at!r} given")
        run_at = run_at.timestamp()
    if not isinstance(run_at, int | float) or not 0 <= run_at <= _LAST_SECOND:
        raise InvalidJob(f"run_at is an aware datetime or a Unix time in seconds, {run_at!r} given")
    return math.ceil(run_at)
