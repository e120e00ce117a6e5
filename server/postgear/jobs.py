"""``postgear jobs --dsn``: a part of the view ``postgear.jobs``, for people.

Not for programs: the view is theirs.
"""

from __future__ import annotations

from typing import NamedTuple

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


def oldest(dsn: str, count: int) -> list[StoredJob]:
    """Return the *count* oldest jobs. Raises StoreUnavailable, SchemaError, StoreError."""
    try:
        with psycopg.connect(**options(dsn, autocommit=True, client_encoding="utf8")) as connection:
            rows = connection.execute(_OLDEST, (count,)).fetchall()
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName) as error:
        raise SchemaError("the database has no schema postgear; run `postgear init`") from error
    except psycopg.OperationalError as error:
        raise failed_connection(error) from error
    except psycopg.Error as error:
        raise StoreError(str(error).strip()) from error
    return [StoredJob._make("" if value is None else value for value in row) for row in rows]
