"""``postgear trigger create|drop|list``: triggers that queue jobs, made by the SQL functions of ``sql/triggers``.

The functions hold the rules; this passes words on and tells their errors. Not for an application's migrations: those call
``postgear.create_trigger`` themselves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import psycopg
from psycopg import sql

from postgear.connecting import failed_connection
from postgear.errors import SchemaError, StoreError


class Trigger(NamedTuple):
    """A row of ``postgear.triggers``, as text."""

    table: str
    name: str
    function: str
    events: list[str]
    level: str
    payload: str
    state: str
    jobs: int


def create(dsn: str, table: str, function: str, options: Mapping[str, object]) -> str:
    """Make a trigger and return its name; returns after commit.

    table: as in SQL, so a name that needs quotes has them. options: the other parameters of postgear.create_trigger.

    Raises StoreError with the database's message and hint, StoreUnavailable, SchemaError.
    """
    parameters: dict[str, object] = {"function": function, **options}
    named = [sql.SQL("{} => {}").format(sql.Identifier(name), sql.Placeholder(name)) for name in parameters]
    query = sql.SQL("select postgear.create_trigger(%(table)s::regclass, {})").format(sql.SQL(", ").join(named))
    with _session(dsn) as connection:
        row = connection.execute(query, {"table": table, **parameters}).fetchone()
    return str(row[0]) if row else ""


def drop(dsn: str, table: str, name: str) -> None:
    """Drop a trigger; returns after commit. table: as in SQL, or the number of one that is gone. Raises as ``create`` does."""
    with _session(dsn) as connection:
        connection.execute("select postgear.drop_trigger(%s::regclass, %s)", (table, name))


def installed(dsn: str) -> list[Trigger]:
    """Return the triggers, sorted by table and name. Raises as ``create`` does."""
    with _session(dsn) as connection:
        rows = connection.execute(
            'select "table"::text, name, function, events, level, payload, state, jobs from postgear.triggers order by 1, 2'
        )
        return [Trigger(*row) for row in rows]


@contextmanager
def _session(dsn: str) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    try:
        with psycopg.connect(dsn, client_encoding="utf8") as connection:
            yield connection
    except psycopg.OperationalError as error:
        raise failed_connection(error) from error
    except (psycopg.errors.InvalidSchemaName, psycopg.errors.UndefinedTable, psycopg.errors.UndefinedFunction) as error:
        if error.diag.context is None and "postgear" in _told(error):  # of our own statement, not of what it was given
            raise SchemaError(
                "the database has no schema postgear of this version; `postgear init` creates or upgrades it"
            ) from error
        raise StoreError(_told(error)) from error
    except psycopg.Error as error:
        raise StoreError(_told(error)) from error


def _told(error: psycopg.Error) -> str:
    primary, hint = error.diag.message_primary or str(error).strip(), error.diag.message_hint
    primary = primary.removeprefix("postgear: ")
    return f"{primary} ({hint.rstrip('.')})" if hint else primary
