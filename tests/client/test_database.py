"""The clients straight on the database."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from postgear import AsyncClient, Client, Function, JobResult, NewJob, TaskSet, connect, connect_async
from postgear.client.operations import Status
from postgear.errors import InvalidJob, QueueFull, SchemaError, ServerUnreachable, StoreError, StoreRefused, StoreUnavailable
from tests.client.conftest import Awaited
from tests.extension.python_worker import PythonWorker
from tests.failover.replicas import Hosts
from tests.server.bytes import Peer
from tests.server_process import ServerProcess

Look = psycopg.Connection[Any]


@pytest.fixture(params=["connect", "connect_async"])
def open_database(request: pytest.FixtureRequest) -> Iterator[Callable[[str], Any]]:
    """Make clients of one kind; all are closed after the test."""
    made: list[Any] = []
    loop = asyncio.new_event_loop()

    def make(dsn: str) -> Any:
        if request.param == "connect":
            made.append(connect(dsn))
        else:
            client = Awaited(loop)
            client.client = loop.run_until_complete(connect_async(dsn))
            made.append(client)
        return made[-1]

    yield make
    for client in made:
        client.close()
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()


@pytest.fixture
def database(open_database: Callable[[str], Any], dsn: str) -> Any:
    return open_database(dsn)


@pytest.fixture
def look(dsn: str) -> Iterator[Look]:
    """A session that sees what is committed."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        yield connection


def test_a_submitted_job_is_stored(database: Any, look: Look) -> None:
    assert database.submit("index", {"id": 1}, unique="a:1", priority="high") == "H:test:1"
    assert database.submit(Function("index"), b"other", unique="a:1") == "H:test:1"
    database.submit("index", b"later", priority="low", delay=timedelta(hours=1))
    database.submit("index", b"later", run_at=datetime.now(UTC) + timedelta(hours=1))
    rows = look.execute("select function, priority, unique_key, run_at > now() from postgear.jobs order by handle").fetchall()
    later = [("index", "low", None, True), ("index", "normal", None, True)]
    assert [(*row[:2], row[2] or None, row[3] or None) for row in rows] == [("index", "high", "a:1", None), *later]


def test_many_are_all_or_none(database: Any, look: Look) -> None:
    handles = database.submit_many([NewJob("f", str(number)) for number in range(1000)])
    assert handles == [f"H:test:{number}" for number in range(1, 1001)]
    look.execute("select postgear.set_limits('f', 1001, 1001, 1001)")
    with pytest.raises(QueueFull, match="'f' is full"):
        database.submit_many([("g", b""), ("f", b""), ("f", b"")])
    with pytest.raises(InvalidJob):
        database.submit_many([("f", b""), ("", b"")])
    assert look.execute("select count(*) from postgear.job").fetchone() == (1000,)
    assert database.submit_many([]) == []


def test_status_and_cancel(database: Any, server: ServerProcess) -> None:
    handle = database.submit("f", b"x", unique="u")
    assert database.status(handle) == database.status_of_unique("u") == Status(True, False, 0, 0)
    with Peer(server.host, server.port) as peer:
        peer.can_do(b"f")
        given = peer.grab()[0]
        peer.send("WORK_STATUS", given, b"1", b"4")
        peer.silent()
        assert database.status(handle).running
        with Client(server.address) as client:
            assert client.status(handle) == Status(True, True, 1, 4)
        assert database.cancel(handle)
    assert database.status(handle) == database.status_of_unique("u") == Status(False, False, 0, 0)
    assert not database.cancel(handle)
    assert not database.cancel("H:other:1")
    assert database.status("nonsense") == Status(False, False, 0, 0)


def test_the_result_of_a_job(database: Any, look: Look) -> None:
    completed, failed, mute = database.submit_many([("f", b"")] * 3)
    look.execute("select postgear.keep_results('f', '1 day')")
    assert database.result(completed) is None
    look.execute("update postgear.job set lease = 1")
    look.execute(
        "select postgear.finish_with_results(1, array[1, 2, 3], array[true, false, false], array['done', 'why', null]::bytea[])"
    )
    result = database.result(completed)
    assert abs(result.finished_at - datetime.now(UTC)) < timedelta(minutes=5)
    assert result == JobResult(True, b"done", result.finished_at)
    assert [(found.is_completed, found.data) for found in map(database.result, (failed, mute))] == [
        (False, b"why"),
        (False, None),
    ]
    for handle in ("H:test:4", "H:other:1", "nonsense", ""):
        assert database.result(handle) is None


def test_a_job_in_the_callers_transaction_exists_if_that_commits(database: Any, dsn: str, look: Look) -> None:
    if isinstance(database, Awaited):

        async def story() -> None:
            async with await psycopg.AsyncConnection.connect(dsn) as connection:
                await database.client.enqueue(connection, "f", b"1")  # type: ignore[attr-defined]
                await connection.rollback()
                await database.client.enqueue(connection, "f", b"2")  # type: ignore[attr-defined]

        database.loop.run_until_complete(story())
    else:
        with psycopg.connect(dsn) as connection:
            database.enqueue(connection, "f", b"1")
            connection.rollback()
            database.enqueue(connection, "f", b"2")
    assert look.execute("select workload from postgear.job").fetchall() == [(b"2",)]


def test_what_waits_goes_to_a_running_server(database: Any, server: ServerProcess, task_set: Any) -> None:
    with PythonWorker(server.host, server.port):
        assert database.do("echo", b"x") == b"x"
        assert list(database.map("echo", [b"1", b"2"])) == [b"1", b"2"]
        assert database.echo() == b"postgear"
        tasks = task_set(database)
        task = tasks.add("echo", b"y")
        assert tasks.wait(5)
        assert task.result == b"y"


def test_without_a_server_nothing_can_be_waited_for(database: Any) -> None:
    with pytest.raises(ServerUnreachable, match="no server of this database's queue runs"):
        database.do("echo", b"x")
    assert database.submit("echo", b"x") == "H:test:1"


def test_a_reducer_is_refused(database: Any) -> None:
    with pytest.raises(InvalidJob, match="no reducer"):
        database.submit("f", reducer="r")


def test_a_connection_that_was_ended_is_opened_anew(database: Any, look: Look) -> None:
    database.submit("f", b"1")
    look.execute(
        "select pg_terminate_backend(pid, 5000) from pg_stat_activity"
        " where datname = current_database() and pid <> pg_backend_pid()"
    )
    assert database.submit("f", b"2") == "H:test:2"
    assert database.status("H:test:1").known


def test_a_host_that_takes_no_writes_is_left(open_database: Callable[[str], Any], dsn: str, look: Look) -> None:
    name = conninfo_to_dict(dsn)["dbname"]
    look.execute(f'alter database "{name}" set default_transaction_read_only = on')
    database = open_database(dsn)
    database.status("H:test:1")
    look.execute(f'alter database "{name}" reset default_transaction_read_only')
    with pytest.raises(StoreUnavailable, match="takes no writes"):
        database.submit("f", b"1")
    assert database.submit("f", b"2") == "H:test:1"


def test_jobs_are_asked_for_where_writes_are_taken() -> None:
    with Hosts.make() as hosts, connect(hosts.dsn) as database:
        database.submit("f", b"1")
        hosts.promote()
        with connect(hosts.new.dsn) as other:
            handle = other.submit("f", b"2")
        database.status(handle)  # the answer comes with the news that the host was demoted
        assert database.status(handle).known


def test_a_connection_lost_in_the_middle_leaves_doubt(dsn: str, look: Look) -> None:
    from postgear.errors import StoreInDoubt

    errors: list[Exception] = []

    def submit() -> None:
        try:
            database.submit("f", b"2", unique="u")
        except Exception as error:
            errors.append(error)

    with connect(dsn) as database, psycopg.connect(dsn) as other:
        # Who queues the same unique waits for this transaction.
        database.enqueue(other, "f", b"1", unique="u")
        thread = threading.Thread(target=submit)
        thread.start()
        waits = "select pid from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
        deadline = time.monotonic() + 10
        while (row := look.execute(waits).fetchone()) is None:
            assert time.monotonic() < deadline
        look.execute("select pg_terminate_backend(%s, 5000)", row)
        thread.join(10)
        assert [type(error) for error in errors] == [StoreInDoubt]
        other.rollback()
        assert database.submit("f", b"3", unique="u").startswith("H:test:")


def test_wrong_databases_are_told(open_database: Callable[[str], Any], empty_dsn: str) -> None:
    with pytest.raises(StoreUnavailable):
        open_database("host=127.0.0.1 port=1")
    with pytest.raises(StoreRefused):
        open_database(f"{empty_dsn} dbname=no_such_database")
    database = open_database(empty_dsn)
    for act in (lambda: database.submit("f"), lambda: database.status("H:x:1"), lambda: database.do("f")):
        with pytest.raises(SchemaError):
            act()


def test_threads_share_a_client(dsn: str, look: Look) -> None:
    with connect(dsn) as database:
        threads = [threading.Thread(target=lambda: [database.submit("f") for _ in range(20)]) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert look.execute("select count(*) from postgear.job").fetchone() == (100,)


def test_a_producer_may_do_what_a_client_does(dsn: str, server: ServerProcess) -> None:
    name = f"producer_{server.port}"
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f"create role {name} login in role postgear_producer")
    try:
        with PythonWorker(server.host, server.port), connect(f"{dsn} user={name}") as database:
            handle = database.submit("later", b"x", unique="u", delay=60)
            assert database.status(handle).known
            with pytest.raises(StoreError, match="permission denied"):
                database.status_of_unique("u")
            assert database.do("echo", b"x") == b"x"
            tasks = TaskSet(database)
            tasks.add("echo", b"x")
            assert tasks.wait(5)
    finally:
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(f"drop role {name}")


def test_they_are_clients() -> None:
    from postgear import AsyncDatabaseClient, DatabaseClient

    assert issubclass(DatabaseClient, Client)
    assert issubclass(AsyncDatabaseClient, AsyncClient)
