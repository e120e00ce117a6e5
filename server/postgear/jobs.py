"""``postgear jobs --dsn`` and ``status --relays``: parts of the views ``postgear.jobs`` and ``postgear.relays``, for people.

Not for programs: the views are theirs.
"""

from __future__ import annotations

from typing import Any, LiteralString, NamedTuple

import psycopg

from postgear.connecting import failed_connection, options
from postgear.errors import SchemaError, StoreError

_OLDEST = """
select handle, function, priority, state, attempt,
    extract(epoch from now() - created_at)::bigint as age_seconds,
    to_char(run_at, 'YYYY-MM-DD"T"HH24:MI:SSOF') as run_at,
    unique_key, workload_bytes, server
from postgear.jobs
order by created_at, handle
limit %s
"""


_RELAYS = """
select outbox, state, holder,
    coalesce(rows_waiting, 0), round(coalesce(oldest_seconds, 0))::bigint, round(coalesce(rows_per_second, 0))::bigint,
    rows_moved, rows_failed, error, to_char(error_at, 'YYYY-MM-DD"T"HH24:MI:SSOF')
from postgear.relays
order by outbox
"""


class StoredJob(NamedTuple):
    """A background job. *run_at*, *unique* and *server* are empty where it has none."""

    handle: str
    function: str
    priority: str
    state: str
    attempt: int
    age_seconds: int
    run_at: str
    unique: str
    workload_bytes: int
    server: str


class Relay(NamedTuple):
    """A row of ``postgear.relays``. *oldest_seconds*: how far the queue is, or may be, behind, 0: not at all."""

    outbox: str
    state: str
    holder: str
    rows_waiting: int
    oldest_seconds: int
    rows_per_second: int
    rows_moved: int
    rows_failed: int
    error: str
    error_at: str


def oldest(dsn: str, count: int) -> list[StoredJob]:
    """Return the *count* oldest jobs. Raises StoreUnavailable, SchemaError, StoreError."""
    return [StoredJob._make(row) for row in _rows(dsn, _OLDEST, count)]


def relays(dsn: str) -> list[Relay]:
    """Return the relays that have ever worked. Raises as ``oldest`` does."""
    return [Relay._make(row) for row in _rows(dsn, _RELAYS)]


def _rows(dsn: str, query: LiteralString, *parameters: object) -> list[list[Any]]:
    try:
        with psycopg.connect(**options(dsn, autocommit=True, client_encoding="utf8")) as connection:
            rows = connection.execute(query, parameters).fetchall()
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName) as error:
        raise SchemaError("the database has no schema postgear of this version; run `postgear init`") from error
    except psycopg.OperationalError as error:
        raise failed_connection(error) from error
    except psycopg.Error as error:
        raise StoreError(str(error).strip()) from error
    return [["" if value is None else value for value in row] for row in rows]
