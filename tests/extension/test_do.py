"""gman_do and its kin: results, errors, waiting, connections."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import psycopg
import pytest
from psycopg import errors

from postgear import AdminClient
from tests.extension.conftest import Connection
from tests.extension.python_worker import PythonWorker
from tests.server_process import ServerProcess

EVERYTHING = bytes(range(256))
SUFFIXES = ("_high", "", "_low")
PROMPT_SECONDS = 0.2 + 0.3
"""How soon a cancel must take effect, and what a busy machine may add."""


def value(session: Connection, query: str, *arguments: object) -> object:
    row = session.execute(query, arguments or None).fetchone()
    assert row is not None
    return row[0]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("kind", ["text", "json", "jsonb", "bytea"])
def test_each_variant_returns_the_result(session: Connection, worker: PythonWorker, suffix: str, kind: str) -> None:
    result = value(session, f"select gman_do{suffix}('echo', '[1, 2]'::{kind})")
    assert result == (b"[1, 2]" if kind == "bytea" else "[1, 2]")
    assert worker.workloads == [b"[1, 2]"]


def test_a_stock_worker_runs_the_job(session: Connection, stock_worker: Callable[..., None]) -> None:
    stock_worker("up", "tr", "a-z", "A-Z")
    assert value(session, "select gman_do('up', 'hello')") == "HELLO"
    assert value(session, "select gman_do('up', %s::bytea)", EVERYTHING) == EVERYTHING.upper()


def test_all_bytes_and_a_long_workload_come_back(session: Connection, worker: PythonWorker) -> None:
    for workload in (EVERYTHING, b"", EVERYTHING * 8192):
        assert value(session, "select gman_do('echo', %s::bytea)", workload) == workload


def test_text_is_sent_as_utf8(session: Connection, worker: PythonWorker) -> None:
    assert value(session, "select gman_do('echo', 'grüße, 世界')") == "grüße, 世界"
    assert worker.workloads == ["grüße, 世界".encode()]


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_other_encodings_round_trip(extension_postgres: str, server: ServerProcess, worker: PythonWorker, encoding: str) -> None:
    from postgear import schema
    from tests.extension.conftest import database

    with database(extension_postgres, f"encoding '{encoding}' template template0") as dsn:
        schema.upgrade(dsn, queue="test")
        with psycopg.connect(dsn, autocommit=True, client_encoding="utf8") as session:
            session.execute("select gman_servers_set(%s)", [server.address])
            assert value(session, "select gman_do('echo', 'grüße')") in ("grüße", "grüße".encode())
            assert value(session, "select gman_do('echo', %s::bytea)", EVERYTHING) == EVERYTHING
            assert worker.workloads[0] == "grüße".encode()
            # What the database cannot write does not hide what the worker said.
            with pytest.raises(errors.ExternalRoutineException, match=r"\\u2639 ü" if encoding == "LATIN1" else "☹ ü"):
                session.execute("select gman_do('smile', 'x')")
            session.execute("select gman_servers_set(null)")
            session.execute("select gman_do_background('größe', 'grüße')")
            queued = session.execute(
                "select name, workload from postgear.job join postgear.function on function.id = function_id"
            ).fetchone()
            assert queued == ("größe".encode(), "grüße".encode())
            if encoding == "SQL_ASCII":
                session.execute("select gman_servers_set(%s)", [server.address])
                raw = value(
                    session,
                    r"select gman_do('echo', convert_from('\xff80', 'SQL_ASCII'))::text = convert_from('\xff80', 'SQL_ASCII')",
                )
                assert raw is True
                assert worker.workloads[-1] == b"\xff\x80"


def test_null_workload_is_empty_and_null_function_an_error(session: Connection, worker: PythonWorker) -> None:
    assert value(session, "select gman_do('length', null)") == "0 bytes"
    with pytest.raises(errors.NullValueNotAllowed, match=r"^postgear: the function must not be null"):
        session.execute("select gman_do(null, 'x')")


def test_too_long_names_are_refused(session: Connection, worker: PythonWorker) -> None:
    with pytest.raises(errors.StringDataRightTruncation, match="512 bytes, this one has 513"):
        session.execute("select gman_do(repeat('f', 513), 'x')")
    with pytest.raises(errors.StringDataRightTruncation, match="64 bytes, this one has 65"):
        session.execute("select gman_do('echo', 'x', repeat('u', 65))")


def test_chunks_are_put_together(session: Connection, worker: PythonWorker) -> None:
    assert value(session, "select gman_do('chunks', 'abcde')") == "abcde!"


def test_a_result_that_is_no_text_needs_bytea(session: Connection, stock_worker: Callable[..., None]) -> None:
    stock_worker("binary", "printf", r"\377\000")
    with pytest.raises(errors.CharacterNotInRepertoire, match="invalid byte sequence"):
        session.execute("select gman_do('binary', 'x')")
    assert value(session, "select gman_do('binary', 'x'::bytea)") == b"\xff\0"


def test_a_failed_job_is_an_sql_error(session: Connection, worker: PythonWorker) -> None:
    with pytest.raises(errors.ExternalRoutineException, match=r"^postgear: job H:test:\S+ failed \(function fail at \S+\)\n"):
        session.execute("select gman_do('fail', 'x')")
    with pytest.raises(
        errors.ExternalRoutineException, match=r"^postgear: job H:test:\S+ failed \(function raise at \S+\): out of cheese ☹\n"
    ):
        session.execute("select gman_do('raise', 'out of cheese ☹')")
    # The connection is as good as before.
    assert value(session, "select gman_do('echo', 'x')") == "x"


def test_a_failed_job_can_be_caught(session: Connection, worker: PythonWorker) -> None:
    session.execute("""
        create function try() returns text language plpgsql as $$
        begin
            return gman_do('raise', 'told so');
        exception when external_routine_exception then
            return sqlerrm;
        end $$
    """)
    assert str(value(session, "select try()")).endswith("told so")


def test_a_warning_is_a_notice(session: Connection, worker: PythonWorker) -> None:
    notices: list[str | None] = []
    session.add_notice_handler(lambda diagnostic: notices.append(diagnostic.message_primary))
    assert value(session, "select gman_do('warn', 'careful')") == "done"
    assert notices == ["careful"]


def test_the_timeout_given_wins_over_the_setting(session: Connection, worker: PythonWorker) -> None:
    session.execute("set gman.timeout = '1h'")
    started = time.monotonic()
    with pytest.raises(psycopg.Error, match="did not answer in time") as caught:
        session.execute("select gman_do('never', 'x', timeout => '0.3 s')")
    assert caught.value.sqlstate == "HYT00"
    assert 0.3 <= time.monotonic() - started < 0.3 + PROMPT_SECONDS
    session.execute("set gman.timeout = '100 ms'")
    with pytest.raises(psycopg.Error, match="did not answer in time"):
        session.execute("select gman_do('never', 'x')")


@pytest.mark.parametrize("timeout", ["0", "-1 s"])
def test_a_timeout_must_be_positive(session: Connection, worker: PythonWorker, timeout: str) -> None:
    with pytest.raises(errors.InvalidParameterValue, match="must be more than 0 seconds"):
        session.execute("select gman_do('echo', 'x', timeout => %s::interval)", [timeout])


def test_a_timeout_setting_that_is_no_interval_is_an_error(session: Connection, worker: PythonWorker) -> None:
    session.execute("set gman.timeout = 'soon'")
    with pytest.raises(errors.InvalidDatetimeFormat, match="soon"):
        session.execute("select gman_do('echo', 'x')")


def test_statement_timeout_takes_effect(session: Connection, worker: PythonWorker) -> None:
    session.execute("set statement_timeout = '400ms'")
    started = time.monotonic()
    with pytest.raises(errors.QueryCanceled, match="statement timeout"):
        session.execute("select gman_do('never', 'x')")
    assert time.monotonic() - started < 0.4 + PROMPT_SECONDS
    session.execute("reset statement_timeout")
    assert value(session, "select gman_do('echo', 'x')") == "x"


def test_cancel_takes_effect(session: Connection, dsn: str, worker: PythonWorker) -> None:
    cancelled_at: list[float] = []

    def cancel() -> None:
        worker.taken.acquire()
        with psycopg.connect(dsn, autocommit=True) as other:
            cancelled_at.append(time.monotonic())
            other.execute("select pg_cancel_backend(%s)", [session.info.backend_pid])

    thread = threading.Thread(target=cancel)
    thread.start()
    with pytest.raises(errors.QueryCanceled, match="user request"):
        session.execute("select gman_do('never', 'x')")
    thread.join()
    assert time.monotonic() - cancelled_at[0] < PROMPT_SECONDS


def test_terminating_a_waiting_backend_takes_effect(session: Connection, dsn: str, worker: PythonWorker) -> None:
    def terminate() -> None:
        worker.taken.acquire()
        with psycopg.connect(dsn, autocommit=True) as other:
            other.execute("select pg_terminate_backend(%s)", [session.info.backend_pid])

    thread = threading.Thread(target=terminate)
    thread.start()
    started = time.monotonic()
    with pytest.raises(errors.AdminShutdown):
        session.execute("select gman_do('never', 'x')")
    thread.join()
    assert time.monotonic() - started < 5


def test_the_connection_is_kept(session: Connection, server: ServerProcess, worker: PythonWorker) -> None:
    for _ in range(5):
        session.execute("select gman_do('echo', 'x')")
    with AdminClient(server.address) as admin:
        # The worker, the session, this one.
        assert len(admin.workers()) == 3


def test_a_restarted_server_is_connected_to_again(
    session: Connection, start_server: Callable[..., ServerProcess], worker: PythonWorker, server: ServerProcess
) -> None:
    assert value(session, "select gman_do('echo', 'x')") == "x"
    session.execute("select gman_servers_set(%s)", [server.address])
    assert value(session, "select gman_do('echo', 'x')") == "x"
    server.stop()
    again = start_server("--listen", server.address)
    with PythonWorker(again.host, again.port):
        assert value(session, "select gman_do('echo', 'x')") == "x"


def test_a_server_lost_on_the_way_is_an_error_that_says_so(
    session: Connection, server: ServerProcess, worker: PythonWorker
) -> None:
    def kill() -> None:
        worker.taken.acquire()
        server.kill()

    thread = threading.Thread(target=kill)
    thread.start()
    with pytest.raises(errors.ConnectionFailure, match=f"^postgear: server {server.address}: "):
        session.execute("select gman_do('never', 'x')")
    thread.join()


def test_no_server_at_all_is_an_error_that_says_what_to_do(session: Connection) -> None:
    with pytest.raises(errors.SqlclientUnableToEstablishSqlconnection, match="no server of this database's queue runs") as caught:
        session.execute("select gman_do('echo', 'x')")
    assert "postgear serve" in str(caught.value.diag.message_hint)


def test_a_database_without_a_queue_is_a_client_all_the_same(empty_dsn: str, server: ServerProcess, worker: PythonWorker) -> None:
    with psycopg.connect(empty_dsn, autocommit=True) as session:
        session.execute("create extension postgear cascade")
        with pytest.raises(errors.SqlclientUnableToEstablishSqlconnection, match="has no queue"):
            session.execute("select gman_do('echo', 'x')")
        with pytest.raises(errors.InvalidSchemaName, match="postgear"):
            session.execute("select gman_do_background('echo', 'x')")
        session.execute("select gman_servers_set(%s)", [server.address])
        assert value(session, "select gman_do('echo', 'x')") == "x"
        assert str(value(session, "select gman_do_background('echo', 'y')")).startswith("H:test:")
        worker.taken.acquire()
        assert worker.taken.acquire(timeout=10)
        assert worker.workloads == [b"x", b"y"]


def test_a_unique_joins_a_running_job(dsn: str, server: ServerProcess, worker: PythonWorker) -> None:
    results: list[object] = []

    def ask() -> None:
        with psycopg.connect(dsn, autocommit=True) as session:
            results.append(value(session, "select gman_do('echo', 'x', 'k')"))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == ["x"] * 3
