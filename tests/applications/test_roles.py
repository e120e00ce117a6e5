"""An application that is only a producer can queue its jobs."""

from __future__ import annotations

import psycopg
import pytest

from postgear import enqueue, enqueue_many
from tests.applications.kinds import Database


def test_producer_may_enqueue_and_nothing_else(database: Database) -> None:
    with psycopg.connect(database.dsn) as connection:
        connection.execute("set role postgear_producer")
        handle = enqueue(connection, "index", "a", unique="1")
        enqueue_many(connection, [("index", "b"), ("other", "c", "-")])
        connection.commit()
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("select from postgear.job")
    assert database.jobs()[0].handle == handle
    assert len(database.jobs()) == 3


def test_stranger_is_refused_with_the_databases_own_error(database: Database) -> None:
    database.look.execute("create role stranger")
    try:
        with psycopg.connect(database.dsn) as connection:
            connection.execute("set role stranger")
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                enqueue(connection, "index", "a")
    finally:
        database.look.execute("drop role stranger")
