"""What ``enqueue`` makes of its arguments, and the errors it raises."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
import sqlalchemy
from django.db import connections as django_connections
from django.db import transaction as django_transaction
from sqlalchemy import orm
from sqlalchemy.ext import asyncio as sqlalchemy_asyncio

from postgear import NewJob, enqueue, enqueue_async, enqueue_many
from postgear.errors import EnqueueError, InvalidJob, SchemaError, UnsupportedConnection
from tests.applications.kinds import AsyncCoreAsyncpg, Core, Database, Django, Psycopg2, SyncKind


@pytest.fixture
def connection(database: Database) -> Any:
    with psycopg.connect(database.dsn) as connection:
        yield connection


def test_importing_postgear_loads_no_library() -> None:
    program = (
        "import sys, postgear; before = set(sys.modules); "
        "assert not before & {'psycopg', 'sqlalchemy', 'django', 'alembic', 'json'}, before; "
        "from postgear import enqueue, NewJob; assert callable(enqueue) and postgear.enqueue is enqueue; "
        "assert not set(sys.modules) & {'psycopg', 'psycopg2', 'sqlalchemy', 'django', 'alembic'}"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_unknown_name_is_an_attribute_error() -> None:
    import postgear

    assert {"enqueue", "NewJob"} <= set(dir(postgear))
    with pytest.raises(AttributeError, match="no attribute 'enqueued'"):
        postgear.enqueued  # noqa: B018


@pytest.mark.parametrize(
    ("payload", "workload"),
    [
        (None, b""),
        (b"\x00\xff", b"\x00\xff"),
        (bytearray(b"a"), b"a"),
        (memoryview(b"a"), b"a"),
        ("☃", "☃".encode()),
        ("", b""),
        ({"b": [1, 2.5, None, True]}, b'{"b":[1,2.5,null,true]}'),
        (17, b"17"),
        ([], b"[]"),
    ],
)
def test_payload_becomes_workload(connection: Any, database: Database, payload: object, workload: bytes) -> None:
    enqueue(connection, "index", payload)
    connection.commit()
    assert [job.workload for job in database.jobs()] == [workload]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("",), "a function has 1 to 512 bytes, 0 given"),
        (("☃" * 171,), "a function has 1 to 512 bytes, 513 given"),
        ((17,), "a function is str or bytes, int given"),
        (("a\0b",), "a function has no NUL"),
        (("\ud800",), "a function cannot be encoded"),
        (("f", "\ud800"), "a payload cannot be encoded"),
        (("f", float("nan")), "the payload is neither bytes nor str nor JSON"),
        (("f", {1, 2}), "the payload is neither bytes nor str nor JSON: Object of type set"),
        (("f", None, "x" * 65), "a unique has 0 to 64 bytes, 65 given"),
        (("f", None, 17), "a unique is str or bytes, int given"),
        (("f", None, b"\0"), "a unique has no NUL"),
        (("f", None, None, "urgent"), "a priority is high, normal or low, 'urgent' given"),
        (("f", None, None, ["high"]), "a priority is high, normal or low"),
        (("f", None, None, "low", datetime(2030, 1, 1)), "run_at needs a time zone"),
        (("f", None, None, "low", float("nan")), "run_at is an aware datetime or a Unix time"),
        (("f", None, None, "low", -1), "run_at is an aware datetime or a Unix time"),
        (("f", None, None, "low", 1_900_000_000_000), "run_at is an aware datetime or a Unix time in seconds"),
        (("f", None, None, "low", timedelta(hours=1)), "run_at is an aware datetime or a Unix time"),
        ("index", "a job is a NewJob or a tuple like it, str given"),
        (("f", 1, 2, 3, 4, 5), "a job is a NewJob or a tuple like it"),
    ],
    ids=repr,
)
def test_impossible_job_is_refused_before_the_database_hears_of_it(connection: Any, arguments: Any, message: str) -> None:
    with pytest.raises(InvalidJob, match=message) as raised:
        enqueue_many(connection, [("index",), arguments])
    assert isinstance(raised.value, EnqueueError | ValueError)
    assert connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE


@pytest.mark.parametrize("as_number", [False, True])
def test_run_at_never_comes_early(connection: Any, as_number: bool) -> None:
    wanted = datetime.now(UTC) + timedelta(minutes=5, microseconds=1)
    enqueue(connection, "index", run_at=wanted.timestamp() if as_number else wanted)
    (run_at,) = connection.execute("select run_at from postgear.job").fetchone()
    assert wanted <= run_at <= wanted + timedelta(seconds=1)


def test_past_run_at_means_at_once(connection: Any) -> None:
    enqueue(connection, "index", run_at=time.time() - 60)
    assert connection.execute("select run_at from postgear.job").fetchone() == (None,)


def test_same_unique_gives_the_same_handle(connection: Any, database: Database) -> None:
    first = enqueue(connection, "index", "a", unique="17")
    connection.commit()
    assert enqueue(connection, "index", "b", unique="17") == first
    assert enqueue(connection, "other", "b", unique="17") != first
    jobs = [NewJob("index", "c", "17"), NewJob("index", "d", "18"), NewJob("index", "e", "18"), NewJob("index", "f", "")]
    handles = enqueue_many(connection, jobs)
    assert handles[0] == first
    assert handles[1] == handles[2] != handles[3]
    connection.commit()
    assert [job.workload for job in database.jobs()] == [b"a", b"b", b"d", b"f"]


def test_unique_dash_stands_for_the_payload(connection: Any) -> None:
    handles = enqueue_many(connection, [("index", "a", "-"), ("index", "b", "-"), ("index", "a", "-")])
    assert handles[0] == handles[2] != handles[1]
    (submitted,) = connection.execute("select postgear.queue_job('index', 'a', '-')").fetchone()
    assert submitted == handles[0]


def test_autocommitted_job_is_there_at_once(database: Database) -> None:
    with psycopg.connect(database.dsn, autocommit=True) as connection:
        handle = enqueue(connection, "index", "a")
        assert [job.handle for job in database.jobs()] == [handle]


def test_job_without_a_transaction_of_its_own_waits_for_the_commit(database: Database) -> None:
    engine = sqlalchemy.create_engine(database.url("psycopg"))
    with orm.Session(engine) as session:
        enqueue(session, "index", "a")
        assert session.in_transaction()
        assert database.jobs() == []
        session.commit()
    with engine.connect() as connection:
        enqueue(connection, "index", "b")
    assert [job.workload for job in database.jobs()] == [b"a"]
    engine.dispose()


def test_killed_session_leaves_no_job(connection: Any, database: Database) -> None:
    enqueue(connection, "index", "a")
    database.look.execute("select pg_terminate_backend(%s, 5000)", (connection.info.backend_pid,))
    with pytest.raises(psycopg.OperationalError):
        connection.commit()
    assert database.jobs() == []


def test_cursor_keeps_the_rows_it_has(connection: Any) -> None:
    cursor = connection.execute("select generate_series(1, 3)")
    enqueue(cursor, "index")
    assert cursor.fetchall() == [(1,), (2,), (3,)]


def test_sessions_subclass_will_do(database: Database) -> None:
    class OurSession(orm.Session):
        pass

    engine = sqlalchemy.create_engine(database.url("psycopg"))
    with OurSession(engine) as session, session.begin():
        enqueue(session, "index", "a")
    engine.dispose()
    assert len(database.jobs()) == 1


def test_run_sync_reaches_an_async_session(database: Database) -> None:
    async def story() -> None:
        engine = sqlalchemy_asyncio.create_async_engine(database.url("psycopg"))
        async with sqlalchemy_asyncio.AsyncSession(engine) as session, session.begin():
            await session.run_sync(lambda inner: enqueue(inner, "index", "a"))
        await engine.dispose()

    asyncio.run(story())
    assert len(database.jobs()) == 1


def test_connection_without_an_encoding_gives_handles_as_text(database: Database) -> None:
    with psycopg.connect(database.dsn, client_encoding="SQL_ASCII") as connection:
        assert enqueue(connection, "ïndex", "☃") == "H:test:1"


def test_missing_schema_is_named(empty_dsn: str) -> None:
    with psycopg.connect(empty_dsn, autocommit=True) as look:
        database = Database(empty_dsn, look)
        for kind in (Psycopg2, Core, Django):
            application: SyncKind = kind(database)
            with pytest.raises(SchemaError, match=r"no postgear\.enqueue_jobs; `postgear init` creates it"):
                enqueue(application.connection, "index")
            application.close()
        with pytest.raises(SchemaError, match='schema "postgear" does not exist'):
            enqueue(look, "index")
        look.execute("create schema postgear")
        with pytest.raises(SchemaError, match=r"function postgear\.enqueue_jobs"):
            enqueue(look, "index")

        async def story() -> None:
            asynchronous = AsyncCoreAsyncpg(database)
            await asynchronous.open()
            with pytest.raises(SchemaError):
                await enqueue_async(asynchronous.connection, "index")
            await asynchronous.close()
            async with await psycopg.AsyncConnection.connect(empty_dsn) as connection:
                with pytest.raises(SchemaError):
                    await enqueue_async(connection, "index")

        asyncio.run(story())


def test_other_errors_stay_those_of_the_library(connection: Any, database: Database) -> None:
    with pytest.raises(psycopg.errors.DivisionByZero):
        connection.execute("select 1 / 0")
    with pytest.raises(psycopg.errors.InFailedSqlTransaction):
        enqueue(connection, "index")
    application = Core(database)
    with application.transaction():
        application.execute("set transaction read only")
        with pytest.raises(sqlalchemy.exc.InternalError, match="read-only transaction"):
            enqueue(application.connection, "index")
    application.close()


def test_what_is_no_connection_is_named(database: Database) -> None:
    engine = sqlalchemy.create_engine(database.url("psycopg"))
    asynchronous = sqlalchemy_asyncio.create_async_engine(database.url("psycopg"))
    django = Django(database)
    refused: list[tuple[Any, str]] = [
        (engine, "sqlalchemy.engine.base.Engine has no transaction of its own: give a connection of engine.begin"),
        (asynchronous, "AsyncEngine has no transaction of its own"),
        (orm.sessionmaker(engine), "sessionmaker makes sessions: give one of them"),
        (sqlalchemy_asyncio.AsyncSession(asynchronous), "AsyncSession is asynchronous: await enqueue_async"),
        (django_connections, "ConnectionHandler holds connections: give one of them"),
        (django_transaction.atomic(), "Atomic is no connection: give django.db.connection"),
        (django_connections["file"], "Django's connection 'file' is to sqlite, not to postgresql"),
        (database.dsn, "builtins.str is no connection, cursor or session of psycopg, SQLAlchemy or Django"),
        (None, "NoneType is no connection"),
    ]
    for given, message in refused:
        with pytest.raises(UnsupportedConnection, match=message) as raised:
            enqueue(given, "index")
        assert isinstance(raised.value, TypeError)
    with sqlalchemy.create_engine("sqlite://").connect() as other, pytest.raises(UnsupportedConnection, match="is to sqlite"):
        enqueue(other, "index")
    with pytest.raises(UnsupportedConnection, match="ConnectionProxy is synchronous: call enqueue"):
        asyncio.run(enqueue_async(django.connection, "index"))
    django.close()


def test_caches_proxy_is_no_connection() -> None:
    from django.core.cache import cache

    with pytest.raises(UnsupportedConnection, match="is no connection"):
        enqueue(cache, "index")
