"""gman_do*_background and gman_do_epoch, into the local queue and to servers; servers, status and cancel."""

from __future__ import annotations

import json
from collections.abc import Callable

import psycopg
import pytest
from psycopg import errors

from tests.extension.conftest import Connection
from tests.extension.python_worker import PythonWorker
from tests.server_process import ServerProcess

EVERYTHING = bytes(range(256))


def value(session: Connection, query: str, *arguments: object) -> object:
    row = session.execute(query, arguments or None).fetchone()
    assert row is not None
    return row[0]


def jobs(session: Connection) -> list[tuple[object, ...]]:
    return session.execute(
        "select function.name, priority, unique_key, workload, run_at is not null"
        " from postgear.job join postgear.function on function.id = function_id order by job.id"
    ).fetchall()


# -- the local queue -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("suffix", "priority"), [("_high", 0), ("", 1), ("_low", 2)])
@pytest.mark.parametrize("kind", ["text", "json", "jsonb", "bytea"])
def test_each_variant_queues_one_job(session: Connection, suffix: str, priority: int, kind: str) -> None:
    handle = value(session, f"select gman_do{suffix}_background('f', '1'::{kind}, 'k')")
    assert handle == value(session, "select 'H:test:' || id from postgear.job")
    assert jobs(session) == [(b"f", priority, b"k", b"1", False)]


@pytest.mark.parametrize(
    ("workload", "stored"),
    [
        ("'x'", b"x"),
        ("NULL", b""),
        ("row_to_json(row(1, 2))", b'{"f1":1,"f2":2}'),
        ("to_jsonb(array[1])", b"[1]"),
        (r"'\x00ff'::bytea", b"\x00\xff"),
        ("'x'::varchar", b"x"),
    ],
)
def test_no_workload_is_ambiguous(session: Connection, workload: str, stored: bytes) -> None:
    session.execute(f"select gman_do_background('f', {workload})")
    assert [job[3] for job in jobs(session)] == [stored]


def test_a_row_trigger_queues_the_row(session: Connection) -> None:
    session.execute("""
        create table article (id integer, title text);
        create function index_article() returns trigger language plpgsql as $$
        begin
            perform gman_do_background('index', row_to_json(new));
            perform gman_do_background('index', to_jsonb(new));
            return null;
        end $$;
        create trigger index_article after insert on article for each row execute function index_article();
        insert into article values (1, 'grüße'), (2, null);
    """)
    assert [json.loads(bytes(job[3])) for job in jobs(session)][::2] == [{"id": 1, "title": "grüße"}, {"id": 2, "title": None}]  # type: ignore[arg-type]


def test_the_job_ends_with_its_transaction(session: Connection) -> None:
    with session.transaction(force_rollback=True):
        session.execute("select gman_do_background('f', 'x')")
    assert jobs(session) == []
    with session.transaction():
        with session.transaction(force_rollback=True):
            session.execute("select gman_do_background('f', 'rolled back to a savepoint')")
        session.execute("select gman_do_background('f', 'kept')")
    assert [job[3] for job in jobs(session)] == [b"kept"]


def test_run_at_schedules(session: Connection) -> None:
    session.execute("select gman_do_high_background('f', 'later', run_at => now() + interval '1 hour')")
    session.execute("select gman_do_background('f', 'now', run_at => now() - interval '1 hour')")
    session.execute("select gman_do_epoch('f', 'later', extract(epoch from now())::bigint + 60, 'k')")
    session.execute("select gman_do_epoch('f', 'now', 1)")
    session.execute("select gman_do_epoch('f', 'now', null)")
    assert [job[3:] for job in jobs(session)] == [
        (b"later", True),
        (b"now", False),
        (b"later", True),
        (b"now", False),
        (b"now", False),
    ]
    with pytest.raises(errors.DatetimeFieldOverflow, match="cannot run at infinity"):
        session.execute("select gman_do_background('f', 'x', run_at => 'infinity')")
    with pytest.raises(errors.DatetimeFieldOverflow, match="cannot run at 128"):
        session.execute("select gman_do_epoch('f', 'milliseconds', 4000000000000)")


def test_uniques_coalesce(session: Connection) -> None:
    first = value(session, "select gman_do_background('f', 'a', 'k')")
    assert value(session, "select gman_do_background('f', 'b', 'k')") == first
    assert value(session, "select gman_do_background('g', 'b', 'k')") != first
    again = value(session, "select gman_do_background('f', 'same', '-')")
    assert value(session, "select gman_do_background('f', 'same', '-')") == again
    assert value(session, "select gman_do_background('f', 'other', '-')") != again
    assert len(jobs(session)) == 4


def test_bad_arguments_are_refused(session: Connection) -> None:
    with pytest.raises(errors.NullValueNotAllowed, match="must not be null"):
        session.execute("select gman_do_background(null, 'x')")
    with pytest.raises(errors.StringDataRightTruncation, match="512 bytes"):
        session.execute("select gman_do_background(repeat('f', 513), 'x')")
    with pytest.raises(errors.StringDataRightTruncation, match="64 bytes"):
        session.execute("select gman_do_background('f', 'x', repeat('u', 65))")
    assert jobs(session) == []


def test_a_full_queue_refuses(session: Connection) -> None:
    session.execute("select gman_do_background('f', 'x')")
    session.execute("update postgear.function set max_high = 1, max_normal = 1, max_low = 1")
    with pytest.raises(errors.ConfigurationLimitExceeded, match='queue of function "f" is full'):
        session.execute("select gman_do_background('f', 'y')")


def test_a_callers_search_path_and_objects_change_nothing(session: Connection) -> None:
    session.execute("""
        create schema evil;
        create function evil.convert_to(text, name) returns bytea language sql as $$ select 'evil'::bytea $$;
        create function evil.eq(text, text) returns boolean language sql as $$ select false $$;
        create operator evil.= (leftarg = text, rightarg = text, function = evil.eq);
        set search_path = evil, pg_catalog, public;
    """)
    session.execute("select public.gman_do_background('f', 'x')")
    assert session.execute("select workload from postgear.job").fetchall() == [(b"x",)]


# -- servers set -----------------------------------------------------------------------------------------------------


def test_with_servers_set_the_job_goes_to_them(session: Connection, server: ServerProcess, worker: PythonWorker) -> None:
    session.execute("select gman_servers_set(%s)", [server.address])
    with session.transaction(force_rollback=True):
        # Outside of the transaction, as documented.
        assert str(value(session, "select gman_do_background('echo', %s::bytea)", EVERYTHING)).startswith("H:test:")
    assert worker.taken.acquire(timeout=10)
    assert worker.workloads == [EVERYTHING]


def test_a_scheduled_job_goes_to_a_server_with_normal_priority_only(session: Connection, server: ServerProcess) -> None:
    session.execute("select gman_servers_set(%s)", [server.address])
    session.execute("select gman_do_background('f', 'x', 'k', now() + interval '1 hour')")
    session.execute("select gman_do_epoch('f', 'x', 4000000000)")
    assert jobs(session) == [(b"f", 1, b"k", b"x", True), (b"f", 1, None, b"x", True)]
    with pytest.raises(errors.FeatureNotSupported, match="normal priority"):
        session.execute("select gman_do_low_background('f', 'x', run_at => now() + interval '1 hour')")


def test_one_function_may_have_its_own_servers(session: Connection, server: ServerProcess, worker: PythonWorker) -> None:
    session.execute("select gman_servers_set(%s, 'echo')", [server.address])
    session.execute("select gman_do_background('elsewhere', 'local', 'k', now() + interval '1 hour')")
    session.execute("select gman_do_background('echo', 'sent')")
    assert worker.taken.acquire(timeout=10)
    assert worker.workloads == [b"sent"]
    assert (b"elsewhere", 1, b"k", b"local", True) in jobs(session)
    session.execute("select gman_servers_set('127.0.0.1:1', 'echo')")
    with pytest.raises(errors.SqlclientUnableToEstablishSqlconnection, match=r"127\.0\.0\.1:1: cannot be reached"):
        session.execute("select gman_do_background('echo', 'x')")
    session.execute("select gman_servers_set(null, 'echo')")
    session.execute("select gman_do_background('echo', 'x')")


def test_failover_to_the_next_server(session: Connection, server: ServerProcess, worker: PythonWorker) -> None:
    session.execute("select gman_servers_set(%s)", [f"127.0.0.1:1, localhost:1 ,{server.address}"])
    assert value(session, "select gman_do('echo', 'x')") == "x"
    assert value(session, "select current_setting('gman.servers')") == f"127.0.0.1:1,localhost:1,{server.address}"


def test_an_error_names_every_server_tried(session: Connection) -> None:
    session.execute("select gman_servers_set('127.0.0.1:1,[::1]:2')")
    with pytest.raises(errors.SqlclientUnableToEstablishSqlconnection) as caught:
        session.execute("select gman_do('echo', 'x')")
    assert "server 127.0.0.1:1: cannot be reached" in str(caught.value)
    assert "server [::1]:2: cannot be reached" in str(caught.value)


def test_a_server_that_accepts_and_is_silent_is_given_up(
    session: Connection, server: ServerProcess, worker: PythonWorker
) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        session.execute("select gman_servers_set(%s)", [f"127.0.0.1:{silent.getsockname()[1]},{server.address}"])
        assert value(session, "select gman_do('echo', 'x')") == "x"


def test_what_is_no_gearman_server_is_an_error(session: Connection) -> None:
    import socket
    import threading

    def answer() -> None:
        peer, _ = listener.accept()
        with peer:
            peer.recv(100)
            peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer)
        thread.start()
        session.execute("select gman_servers_set(%s)", [f"127.0.0.1:{listener.getsockname()[1]}"])
        with pytest.raises(errors.SqlclientUnableToEstablishSqlconnection, match=r"HTTP/1\.1 400"):
            session.execute("select gman_do('echo', 'x')")
        thread.join()


@pytest.mark.parametrize("servers", ["a b", "host:0", "host:99999", "::1", "host:x", ":4730"])
def test_a_bad_list_of_servers_is_refused(session: Connection, servers: str) -> None:
    with pytest.raises(errors.InvalidParameterValue, match="is not HOST or HOST:PORT"):
        session.execute("select gman_servers_set(%s)", [servers])
    assert value(session, "select coalesce(current_setting('gman.servers', true), '')") == ""


def test_a_bad_setting_is_told_when_it_is_used(session: Connection) -> None:
    session.execute("set gman.function_servers = 'x'")
    with pytest.raises(errors.InvalidParameterValue, match="JSON object"):
        session.execute("select gman_do_background('f', 'x')")
    session.execute("reset gman.function_servers; set gman.servers = 'a b'")
    with pytest.raises(errors.InvalidParameterValue, match="is not HOST or HOST:PORT"):
        session.execute("select gman_do_background('f', 'x')")


def test_a_setting_of_the_database_is_for_all_sessions(dsn: str, server: ServerProcess, worker: PythonWorker) -> None:
    with psycopg.connect(dsn, autocommit=True) as session:
        name = session.info.dbname
        session.execute(f"alter database {name} set gman.servers = '{server.address}'")
    with psycopg.connect(dsn, autocommit=True) as session:
        session.execute("select gman_do_background('echo', 'x')")
        assert worker.taken.acquire(timeout=10)


def test_servers_are_checked(session: Connection, server: ServerProcess) -> None:
    (row,) = session.execute("select * from gman_servers_check()").fetchall()
    assert row[:2] == (server.address, True)
    assert row[2]
    assert isinstance(row[3], float)
    session.execute("select gman_servers_set(%s)", [f"{server.address},127.0.0.1:1"])
    good, bad = session.execute("select * from gman_servers_check()").fetchall()
    assert good[:2] == (server.address, True)
    assert bad[:3] == ("127.0.0.1:1", False, None)
    assert "refused" in str(bad[4])


# -- status and cancel -----------------------------------------------------------------------------------------------

UNKNOWN = (False, False, 0, 0)


def test_status_follows_a_job_of_the_local_queue(session: Connection) -> None:
    handle = value(session, "select gman_do_background('f', 'x')")
    assert session.execute("select * from gman_status(%s)", [handle]).fetchone() == (True, False, 0, 0)
    session.execute("update postgear.job set progress_numerator = 1, progress_denominator = 2")
    assert session.execute("select * from gman_status(%s)", [handle]).fetchone() == (True, False, 1, 2)
    assert value(session, "select gman_cancel(%s)", handle) is True
    assert session.execute("select * from gman_status(%s)", [handle]).fetchone() == UNKNOWN
    assert value(session, "select gman_cancel(%s)", handle) is False


@pytest.mark.parametrize(
    "handle", ["", "H:test:1", "H:test:x", "H:other:1", "H:test:99999999999999999999", "H:test:f1", "x\ny", "ü" * 99]
)
@pytest.mark.parametrize("over_the_wire", [False, True])
def test_an_unknown_handle_is_no_error(
    session: Connection, request: pytest.FixtureRequest, handle: str, over_the_wire: bool
) -> None:
    if over_the_wire:
        session.execute("select gman_servers_set(%s)", [request.getfixturevalue("server").address])
    assert session.execute("select * from gman_status(%s)", [handle]).fetchone() == UNKNOWN
    assert value(session, "select gman_cancel(%s)", handle) is False


def test_status_and_cancel_over_the_wire(session: Connection, start_server: Callable[..., ServerProcess]) -> None:
    addresses = ",".join(start_server("--name", name).address for name in ("one", "two"))
    session.execute("select gman_servers_set(%s)", [addresses])
    handle = value(session, "select gman_do_background('f', 'x')")
    assert session.execute("select * from gman_status(%s)", [handle]).fetchone() == (True, False, 0, 0)
    assert value(session, "select gman_cancel(%s)", handle) is True
    assert session.execute("select * from gman_status(%s)", [handle]).fetchone() == UNKNOWN


def test_null_handle_is_null(session: Connection) -> None:
    assert session.execute("select known from gman_status(null)").fetchone() == (None,)
    assert value(session, "select gman_cancel(null)") is None


def test_the_handle_of_a_queue_whose_name_begins_alike_is_unknown(session: Connection) -> None:
    handle = str(value(session, "select gman_do_background('f', 'x')")).replace("H:test:", "H:test:2:")
    assert session.execute("select * from gman_status(%s)", [handle]).fetchone() == UNKNOWN
    assert value(session, "select gman_cancel(%s)", handle) is False
    assert len(jobs(session)) == 1


# -- results ---------------------------------------------------------------------------------------------------------


def finish(session: Connection, handle: object, completed: str, result: str) -> None:
    """End a queued job as whoever holds it does."""
    job_id = str(handle).rpartition(":")[2]
    session.execute(f"update postgear.job set lease = 1 where id = {job_id}")
    session.execute(f"select postgear.finish_with_results(1, array[{job_id}], array[{completed}], array[{result}::bytea])")


def test_the_result_of_a_job_is_there_once_it_has_ended_and_for_as_long_as_is_asked_for(session: Connection) -> None:
    handle = value(session, "select gman_do_background('f', 'x')")
    assert value(session, "select postgear.keep_results('f', '1 day')") is True
    assert value(session, "select postgear.keep_results('nobody', '1 day')") is False
    assert session.execute("select * from gman_result(%s)", [handle]).fetchall() == []
    finish(session, handle, "true", r"'\x00ff'")
    query = "select outcome, result, finished_at between now() - interval '1 minute' and now() from gman_result(%s)"
    assert session.execute(query, [handle]).fetchall() == [("completed", b"\x00\xff", True)]
    assert session.execute("select * from gman_status(%s)", [handle]).fetchone() == UNKNOWN
    assert value(session, "select expires_at - finished_at = '1 day' from postgear.result") is True
    session.execute("update postgear.result set expires_at = now()")
    assert session.execute(query, [handle]).fetchall() == []


@pytest.mark.parametrize(("result", "expected"), [("'why'", b"why"), ("null", None)])
def test_a_failed_job_has_a_result_that_says_so(session: Connection, result: str, expected: bytes | None) -> None:
    handle = value(session, "select gman_do_background('f', 'x')")
    session.execute("select postgear.keep_results('f', '1 s')")
    finish(session, handle, "false", result)
    assert session.execute("select outcome, result from gman_result(%s)", [handle]).fetchall() == [("failed", expected)]


@pytest.mark.parametrize(
    "handle", [None, "", "H:test:2", "H:test:x", "H:other:1", "H:test:99999999999999999999", "H:test:f1", "x\ny", "ü" * 99]
)
def test_an_unknown_handle_has_no_result(session: Connection, handle: str | None) -> None:
    known = value(session, "select gman_do_background('f', 'x')")
    session.execute("select postgear.keep_results('f', '1 day')")
    finish(session, known, "true", "'x'")
    assert session.execute("select * from gman_result(%s)", [handle]).fetchall() == []


def test_the_local_database_is_asked_for_results_whatever_servers_are_set(session: Connection, server: ServerProcess) -> None:
    handle = value(session, "select gman_do_background('f', 'x')")
    session.execute("select postgear.keep_results('f', '1 day')")
    finish(session, handle, "true", "'x'")
    session.execute("select gman_servers_set('127.0.0.1:1')")
    assert session.execute("select outcome, result from gman_result(%s)", [handle]).fetchall() == [("completed", b"x")]


@pytest.mark.parametrize("how_long", ["0", "-1 day", "101 years", "100 years 1 s"])
def test_results_are_kept_for_a_time_and_not_for_ever(session: Connection, how_long: str) -> None:
    session.execute("select gman_do_background('f', 'x')")
    with pytest.raises(errors.CheckViolation):
        session.execute("select postgear.keep_results('f', %s)", [how_long])


def test_a_job_number_that_comes_again_has_its_own_result(session: Connection) -> None:
    for workload in ("first", "second"):
        handle = value(session, "select gman_do_background('f', 'x')")
        session.execute("select postgear.keep_results('f', '1 day')")
        finish(session, handle, "true", f"'{workload}'")
        session.execute("truncate postgear.job restart identity")
    assert session.execute("select result from gman_result(%s)", [handle]).fetchall() == [(b"second",)]
