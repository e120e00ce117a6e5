"""Jobs from the tables that genuine gearmand wrote."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from postgear import cli
from postgear.errors import ConfigError, OutboxError, QueueFull
from postgear.import_gearmand import Source, run, source
from tests.database import database
from tests.mariadb import MariaDB
from tests.outbox.conftest import ask, url_of
from tests.server.bytes import Peer
from tests.server.gearmand import PROGRAM, Gearmand

LATER = 2000000000
WANTED = [
    ("f", b"\x00\xff any bytes", b"u1", 1, None),
    ("f", b"high", b"u2", 0, None),
    ("f", b"low", b"u3", 2, None),
    ("größe", b"later", "schlüssel".encode(), 1, LATER),
]

pytestmark = pytest.mark.skipif(not Path(PROGRAM).exists(), reason="no gearmand here")


def fill(folder: Path, *options: str) -> None:
    """Let gearmand store WANTED in its table, and kill it."""
    server = Gearmand(folder, *options)
    try:
        with Peer(server.host, server.port) as peer:
            for function, workload, unique, priority, epoch in WANTED:
                if epoch is not None:
                    peer.submit("SUBMIT_JOB_EPOCH", function.encode(), unique, str(epoch).encode(), workload)
                else:
                    peer.submit(f"SUBMIT_JOB{('_HIGH', '', '_LOW')[priority]}_BG", function.encode(), unique, workload)
    finally:
        server.kill()


def queued(queue: psycopg.Connection[Any]) -> list[tuple[Any, ...]]:
    query = """
        select convert_from(function.name, 'UTF8'), workload, unique_key, priority, extract(epoch from run_at)::bigint
        from postgear.job join postgear.function on function.id = function_id order by 1, 3
    """
    return queue.execute(query).fetchall()


Table = tuple[Source, str, Callable[[], int]]


@pytest.fixture(params=["sqlite", "mysql", "postgres"])
def table(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Table]:
    """A table that gearmand filled: as a source, its URL, and what counts its rows."""
    yield from globals()[f"_{request.param}"](request, tmp_path)


def _sqlite(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Table]:
    path = tmp_path / "queue.db"
    fill(tmp_path, "--queue-type", "libsqlite3", "--libsqlite3-db", str(path))

    def rows() -> int:
        with closing(sqlite3.connect(path)) as connection:
            return int(connection.execute("select count(*) from gearman_queue").fetchone()[0])

    yield source(f"sqlite:{path}", None), f"sqlite:{path}", rows


def _mysql(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Table]:
    server: MariaDB = request.getfixturevalue("mariadb")
    name = request.getfixturevalue("mysql_database")
    with server.connect() as session:
        ask(session, "create or replace user gearmand@'127.0.0.1' identified by 'p'")
        ask(session, f"grant all on {name}.* to gearmand@'127.0.0.1'")
    options = {"host": server.host, "port": server.port, "user": "gearmand", "password": "p", "db": name}
    fill(tmp_path, "--queue-type", "MySQL", *(f"--mysql-{option}={value}" for option, value in options.items()))

    def rows() -> int:
        with server.connect(database=name) as session:
            return int(ask(session, "select count(*) from gearman_queue")[0][0])

    url = url_of(server, name)
    yield source(url, None), url, rows


def _postgres(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Table]:
    with database(request.getfixturevalue("postgres_dsn"), "gearmand_queue") as dsn:
        fill(tmp_path, "--queue-type", "Postgres", f"--libpq-conninfo={dsn}")

        def rows() -> int:
            with psycopg.connect(dsn) as connection:
                return int(connection.execute("select count(*) from queue").fetchall()[0][0])

        given = psycopg.conninfo.conninfo_to_dict(dsn)
        url = f"postgresql://{given['user']}@/{given['dbname']}?host={given['host']}&port={given['port']}"
        yield source(url, None), url, rows


def test_a_time_after_2038_in_mysql(mysql_url: str, mysql_session: Any, dsn: str, queue: psycopg.Connection[Any]) -> None:
    """gearmand writes what 32 bits leave of it."""
    ask(
        mysql_session,
        "create table gearman_queue (unique_key varchar(64), function_name varchar(255), priority int, data longblob,"
        " when_to_run int, unique key (unique_key, function_name))",
    )
    ask(mysql_session, "insert into gearman_queue values ('u', 'f', 1, 'x', -192522496)")
    assert run(source(mysql_url, None), dsn, deletes=True) == (1, 0, 1, 0, [])
    assert queued(queue) == [("f", b"x", b"u", 1, 4102444800)]


def test_all_is_kept_and_nothing_imported_twice(table: Table, dsn: str, queue: psycopg.Connection[Any]) -> None:
    where, _, rows = table
    assert rows() == 4
    assert run(where, dsn, deletes=False) == (4, 0, 0, 0, [])
    assert queued(queue) == WANTED
    queue.execute("delete from postgear.job")  # they have run: a unique would not tell any more
    assert run(where, dsn, deletes=False) == (0, 4, 0, 0, [])
    assert rows() == 4
    assert run(where, dsn, deletes=True) == (0, 4, 0, 4, [])
    assert rows() == 4
    assert queued(queue) == []


def test_the_same_job_queued_anew_is_not_lost(tmp_path: Path, dsn: str, queue: psycopg.Connection[Any], capsys: Any) -> None:
    """gearmand went on between two runs: its row looks as the one that was imported."""
    path = tmp_path / "queue.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            "create table gearman_queue (unique_key text, function_name text, priority integer, data blob, when_to_run integer)"
        )
        connection.executemany("insert into gearman_queue values (?, 'f', 1, 'x', 0)", [("old",), ("again",)])
    command = ["import-gearmand", f"sqlite:{path}", "--dsn", dsn]
    assert cli.main(command) == 0
    queue.execute("delete from postgear.job")  # they have run
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("delete from gearman_queue where unique_key = 'old'")
        connection.execute("insert into gearman_queue values ('new', 'f', 1, 'x', 0)")
    capsys.readouterr()
    assert cli.main([*command, "--delete"]) == 1
    told = capsys.readouterr().out
    assert told.startswith("1 jobs imported, 1 were before, 1 rows deleted\npostgear: 1 rows are left: ")
    assert [row[2] for row in queued(queue)] == [b"new"]
    assert "run in PostgreSQL: delete from postgear.imported; then" in told
    queue.execute("delete from postgear.imported")
    assert cli.main([*command, "--delete"]) == 0
    assert [row[2] for row in queued(queue)] == [b"again", b"new"]


def test_a_run_that_was_stopped_before_it_deleted(table: Table, dsn: str, queue: psycopg.Connection[Any]) -> None:
    where, _, rows = table

    class Stopped(Exception):
        pass

    @contextmanager
    def opened() -> Iterator[Any]:
        def delete(some: object) -> None:
            raise Stopped

        with where.opened() as (found, _):
            yield found, delete

    with pytest.raises(Stopped):
        run(where._replace(opened=opened), dsn, deletes=True)
    assert queued(queue) == WANTED
    assert rows() == 4
    assert run(where, dsn, deletes=True) == (0, 4, 4, 0, [])
    assert rows() == 0
    assert queued(queue) == WANTED
    assert queue.execute("select count(*) from postgear.imported").fetchone() == (0,)


def test_delete_and_dry_run(table: Table, dsn: str, queue: psycopg.Connection[Any], capsys: Any) -> None:
    _, url, rows = table
    assert cli.main(["import-gearmand", url, "--dsn", dsn, "--dry-run"]) == 0
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["function", "priority", "jobs", "scheduled"],
        ["f", "high", "1", "0"],
        ["f", "normal", "1", "0"],
        ["f", "low", "1", "0"],
        ["größe", "normal", "1", "1"],
    ]
    assert queued(queue) == []
    assert cli.main(["import-gearmand", url, "--dsn", dsn, "--delete"]) == 0
    assert capsys.readouterr().out == "4 jobs imported, 0 were before, 4 rows deleted\n"
    assert queued(queue) == WANTED
    assert rows() == 0


def test_what_can_be_no_job_stays(tmp_path: Path, dsn: str, queue: psycopg.Connection[Any], capsys: Any) -> None:
    path = tmp_path / "queue.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            "create table q (unique_key text, function_name text, priority integer, data blob, when_to_run integer)"
        )
        connection.executemany(
            "insert into q values (?, ?, ?, ?, 0)",
            [("u", "f", 1, b"x"), ("u" * 65, "f", 1, b"x"), ("u", "", 1, b"x"), ("v", "f", 3, b"x"), ("-", "f", 1, b"d")],
        )
    assert cli.main(["import-gearmand", f"sqlite:{path}", "--table", "q", "--dsn", dsn, "--delete"]) == 1
    told = capsys.readouterr().out
    assert told.startswith("2 jobs imported, 0 were before, 2 rows deleted\n")
    assert told.count("left where it is") == 3
    # The unique "-" is the workload's.
    assert [row[2] for row in queued(queue)] == [b"-" + hashlib.sha512(b"d").digest(), b"u"]


def test_a_full_queue_is_told(tmp_path: Path, dsn: str, queue: psycopg.Connection[Any]) -> None:
    queue.execute("insert into postgear.function (name, max_high, max_normal, max_low) values ('f', 1, 1, 1)")
    path = tmp_path / "queue.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            "create table gearman_queue (unique_key text, function_name text, priority integer, data blob, when_to_run integer)"
        )
        connection.executemany("insert into gearman_queue values (?, 'f', 1, 'x', 0)", [("a",), ("b",)])
    with pytest.raises(QueueFull):
        run(source(f"sqlite:{path}", None), dsn, deletes=True)
    assert queued(queue) == []
    queue.execute("update postgear.function set max_high = null, max_normal = null, max_low = null")
    assert run(source(f"sqlite:{path}", None), dsn, deletes=True) == (2, 0, 2, 0, [])


def test_bad_sources(tmp_path: Path, dsn: str) -> None:
    with pytest.raises(ConfigError, match="a source is"):
        source("redis://x", None)
    with pytest.raises(ConfigError, match="there is no file"):
        source(f"sqlite:{tmp_path}/none", None)
    (tmp_path / "empty").touch()
    with pytest.raises(OutboxError, match="no such table: gearman_queue"):
        run(source(f"sqlite:{tmp_path}/empty", None), dsn, deletes=False)
