"""The SQL functions in sessions and databases that are set otherwise: rules for backslashes, encodings."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from postgear import schema, triggers
from tests.extension.asking import create_trigger, payloads, rows, workloads
from tests.extension.conftest import Connection, database


@pytest.fixture(params=["LATIN1", "SQL_ASCII"])
def odd_dsn(request: pytest.FixtureRequest, extension_postgres: str) -> Iterator[str]:
    """A database of another encoding, with a table."""
    with database(extension_postgres, f"encoding '{request.param}' template template0") as dsn:
        schema.upgrade(dsn)
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("create table item (id integer, title text)")
        yield dsn


def test_the_other_rules_for_backslashes(session: Connection) -> None:
    session.execute("create table item (id integer, title text)")
    session.execute("set standard_conforming_strings = off; set escape_string_warning = off")
    create_trigger(session, "item", events=["update"], when="old.title is null")
    session.execute("insert into item values (1); update item set title = 'a'; update item set title = 'b'")
    session.execute("select gman_do_background('f', '2', 'k'), gman_do_background('f', '2', 'k')")
    session.execute("select postgear.enqueue_jobs(array['f', 'f']::bytea[], array['3', '4']::bytea[])")
    session.execute("select postgear.submit_coalesced('f', 'k', '5')")
    assert payloads(session) == [{"id": 1, "title": "a"}, 2, 3, 4, 5]


def test_a_server_that_listens_everywhere_is_found_where_it_is(session: Connection) -> None:
    session.execute(
        "insert into postgear.server (lease, name, address, pid, version, lease_seconds)"
        " values (1, 's', '0.0.0.0:1,[::]:2,[::1]:3,host:4', 1, '', 30)"
    )
    due = [("127.0.0.1:1",), ("127.0.0.1:2",), ("[::1]:3",), ("host:4",)]
    assert sorted(rows(session, "select * from postgear.live_servers()")) == sorted(due)
    session.execute("set standard_conforming_strings = off; set escape_string_warning = off; discard plans")
    assert sorted(rows(session, "select * from postgear.live_servers()")) == sorted(due)


@pytest.mark.parametrize("payload", ["row", "change", "key"])
def test_triggers_send_utf8_or_else_the_bytes_there_are(odd_dsn: str, payload: str) -> None:
    with psycopg.connect(odd_dsn, autocommit=True, client_encoding="utf8") as odd:
        create_trigger(odd, "item", "größe", key=["title"], payload=payload)
        odd.execute("insert into item values (1, 'grüße'), (2, 'grüße')")
        (workload,) = workloads(odd, "größe")
        assert "grüße".encode() in workload
        if odd.execute("show server_encoding").fetchone() in [("SQL_ASCII",), (b"SQL_ASCII",)]:
            odd.execute("insert into item values (3, convert_from('\\xff80', 'SQL_ASCII'))")
            assert b"\xff\x80" in workloads(odd, "größe")[-1]


def test_a_coalescing_key_is_any_text(odd_dsn: str) -> None:
    with psycopg.connect(odd_dsn, autocommit=True) as odd:
        for workload in (b"1", b"2"):
            odd.execute("select postgear.submit_coalesced('f', convert_from('\\xfffe', getdatabaseencoding()), %b)", [workload])
        assert workloads(odd) == [b"2"]


def test_the_trigger_command(odd_dsn: str) -> None:
    assert triggers.create(odd_dsn, "item", "größe", {"name": "t"}) == "t"
    (shown,) = triggers.installed(odd_dsn)
    assert (shown.table, shown.name, shown.function, shown.events) == ("item", "t", "größe", ["insert"])
