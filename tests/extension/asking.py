"""What the tests of triggers, roles and poolers ask of a database."""

from __future__ import annotations

import json
from typing import Any

import psycopg

Connection = psycopg.Connection[tuple[Any, ...]]


def rows(connection: Connection, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
    return connection.execute(sql, parameters or None).fetchall()


def value(connection: Connection, sql: str, *parameters: object) -> Any:
    ((found,),) = rows(connection, sql, *parameters)
    return found


def workloads(connection: Connection, function: str = "f") -> list[bytes]:
    """The workloads of a function's jobs in the order of their ids."""
    query = (
        "select workload from postgear.job join postgear.function on function.id = function_id where name = %s order by job.id"
    )
    return [row[0] for row in rows(connection, query, function.encode())]


def payloads(connection: Connection, function: str = "f") -> list[Any]:
    """The same, read as JSON."""
    return [json.loads(workload) for workload in workloads(connection, function)]


def create_trigger(connection: Connection, table: str, function: str = "f", **options: object) -> str:
    """Call postgear.create_trigger."""
    named = "".join(f', "{name}" => %({name})s' for name in options)
    query = f"select postgear.create_trigger(%(table)s::regclass, %(function)s{named})"
    row = connection.execute(query, {"table": table, "function": function, **options}).fetchone()
    assert row is not None
    return str(row[0])


def start_server(connection: Connection, *, sleeping: bool = False) -> int:
    """Register a server; returns its lease."""
    lease = value(connection, "select lease from postgear.register_server('a', 'here', 1, 'test', 30)")
    connection.execute("select postgear.renew_lease(%s, %s)", (lease, sleeping))
    return int(lease)


def claim(connection: Connection, lease: int, wanted: int = 100) -> list[int]:
    """Claim queued jobs of the function f."""
    query = (
        "select id from postgear.claim_jobs(%s, (select array_agg(id) from postgear.function where name = 'f'),"
        " array[1::smallint], array[%s::integer], 1000000)"
    )
    return [row[0] for row in rows(connection, query, lease, wanted)]
