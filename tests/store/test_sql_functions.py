"""The SQL face of the queue: gman_do_background and its kin, transactions, concurrent sessions, plans."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import psycopg
import pytest

Connection = psycopg.Connection[tuple[object, ...]]
SUFFIXES = [("_high", 0), ("", 1), ("_low", 2)]


@pytest.fixture
def session(dsn: str) -> Iterator[Connection]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        yield connection


@pytest.fixture
def other(dsn: str) -> Iterator[Connection]:
    """A second session."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        yield connection


def value(connection: Connection, sql: str, *parameters: object) -> object:
    row = connection.execute(sql, parameters).fetchone()
    assert row is not None
    return row[0]


def rows(connection: Connection, sql: str, *parameters: object) -> list[tuple[object, ...]]:
    return connection.execute(sql, parameters).fetchall()


def workloads(connection: Connection) -> list[object]:
    return [row[0] for row in rows(connection, "select workload from postgear.job order by id")]


def start_server(connection: Connection) -> object:
    return value(connection, "select lease from postgear.register_server('a', 'here', 1, 'test', 30)")


def claim(connection: Connection, lease: object, wanted: int) -> list[object]:
    function_id = value(connection, "select id from postgear.function where name = 'f'")
    claimed = rows(
        connection,
        "select id from postgear.claim_jobs(%s, array[%s::integer], array[1::smallint], array[%s::integer], 1000000)",
        lease,
        function_id,
        wanted,
    )
    return [row[0] for row in claimed]


def wait_until_blocked(connection: Connection, pid: int) -> None:
    """Wait until a session waits for another's lock."""
    while not value(connection, "select cardinality(pg_blocking_pids(%s)) > 0", pid):
        pass


# -- gman_do_background ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("suffix", "priority"), SUFFIXES)
@pytest.mark.parametrize("kind", ["text", "json", "jsonb", "bytea"])
def test_each_variant_queues_one_job_and_returns_its_handle(session: Connection, suffix: str, priority: int, kind: str) -> None:
    handle = value(session, f"select gman_do{suffix}_background('f', '1'::{kind}, 'k')")
    ((job_id, *columns),) = rows(
        session,
        "select job.id, function.name, priority, unique_key, workload, lease, attempt, run_at"
        " from postgear.job join postgear.function on function.id = function_id",
    )
    assert handle == f"H:test:{job_id}"
    assert columns == [b"f", priority, b"k", b"1", None, 0, None]


def test_text_is_stored_as_utf8(session: Connection) -> None:
    session.execute("select gman_do_background('f', %s::text)", ["grüße, 世界"])
    assert workloads(session) == ["grüße, 世界".encode()]


def test_bytea_is_stored_byte_for_byte(session: Connection) -> None:
    everything = bytes(range(256))
    session.execute("select gman_do_background('f', %s::bytea)", [everything])
    assert workloads(session) == [everything]


def test_json_keeps_its_spelling_and_jsonb_its_normal_form(session: Connection) -> None:
    session.execute("""select gman_do_background('f', '{"b":  1, "a": 2}'::json)""")
    session.execute("""select gman_do_background('f', '{"b":  1, "a": 2}'::jsonb)""")
    assert workloads(session) == [b'{"b":  1, "a": 2}', b'{"a": 2, "b": 1}']


def test_an_empty_workload_is_a_workload(session: Connection) -> None:
    session.execute("select gman_do_background('f', '')")
    assert workloads(session) == [b""]


def test_literals_of_unknown_type_are_text(session: Connection) -> None:
    session.execute("select gman_do_background('f', 'plain'), gman_do_high_background('f', '{', 'k')")
    assert workloads(session) == [b"plain", b"{"]


def test_a_function_name_may_be_any_text(session: Connection) -> None:
    session.execute("select gman_do_background(%s, 'x')", ["naïve name"])
    assert value(session, "select name from postgear.function") == "naïve name".encode()


def test_null_function_is_refused(session: Connection) -> None:
    with pytest.raises(psycopg.errors.NullValueNotAllowed, match="must not be null"):
        session.execute("select gman_do_background(null, 'x')")


@pytest.mark.parametrize("workload", ["null", "null::text", "null::json", "null::jsonb", "null::bytea"])
def test_null_workload_is_empty(session: Connection, workload: str) -> None:
    session.execute(f"select gman_do_background('f', {workload})")
    assert workloads(session) == [b""]


@pytest.mark.parametrize("unique", ["null", "''"])
def test_a_null_or_empty_unique_never_coalesces(session: Connection, unique: str) -> None:
    session.execute(f"select gman_do_background('f', 'x', {unique}), gman_do_background('f', 'x', {unique})")
    assert len(workloads(session)) == 2


def test_a_unique_coalesces_with_a_queued_job(session: Connection) -> None:
    first = value(session, "select gman_do_background('f', 'first', 'k')")
    assert value(session, "select gman_do_low_background('f', 'second', 'k')") == first
    assert workloads(session) == [b"first"]


def test_the_unique_dash_coalesces_jobs_of_one_workload(session: Connection) -> None:
    first = value(session, "select gman_do_background('f', 'x', '-')")
    assert value(session, "select gman_do_background('f', 'x', '-')") == first
    assert value(session, "select gman_do_background('f', 'y', '-')") != first
    assert value(session, "select gman_do_background('f', '', '-')") != value(session, "select gman_do_background('f', '', '-')")


def test_a_unique_has_at_most_64_bytes(session: Connection) -> None:
    session.execute("select gman_do_background('f', 'x', %s)", ["é" * 32])
    with pytest.raises(psycopg.errors.StringDataRightTruncation, match="65"):
        session.execute("select gman_do_background('f', 'x', %s)", ["é" * 32 + "k"])


def test_a_function_name_has_at_most_512_bytes(session: Connection) -> None:
    session.execute("select gman_do_background(%s, 'x')", ["f" * 512])
    with pytest.raises(psycopg.errors.StringDataRightTruncation, match="513"):
        session.execute("select gman_do_background(%s, 'x')", ["f" * 513])


def test_a_full_queue_is_an_error_that_undoes_the_statement(session: Connection) -> None:
    session.execute("select gman_do_background('f', 'x')")
    session.execute("update postgear.function set max_normal = 1")
    with pytest.raises(psycopg.errors.ConfigurationLimitExceeded, match="full"):
        session.execute("select gman_do_background('f', 'y')")
    assert workloads(session) == [b"x"]


def test_a_trigger_sends_its_row_as_json(session: Connection) -> None:
    session.execute(
        """
        create table article (id integer, title text);
        create function announce() returns trigger language plpgsql as $$
        begin
            perform gman_do_background('index', row_to_json(new), new.id::text);
            return null;
        end $$;
        create trigger announce after insert or update on article for each row execute function announce();
        """
    )
    session.execute("insert into article values (1, 'ä'), (2, null)")
    session.execute("update article set title = 'late' where id = 1")
    assert workloads(session) == ['{"id":1,"title":"ä"}'.encode(), b'{"id":2,"title":null}']


# -- transactions ----------------------------------------------------------------------------------------------------


def test_a_rollback_leaves_no_job(session: Connection) -> None:
    session.execute("begin; select gman_do_background('f', 'x'); rollback")
    assert workloads(session) == []


def test_a_rollback_to_a_savepoint_leaves_no_job(session: Connection) -> None:
    session.execute(
        "begin; select gman_do_background('f', 'kept'); savepoint s; select gman_do_background('f', 'gone');"
        " rollback to s; commit"
    )
    assert workloads(session) == [b"kept"]


def test_a_job_is_not_claimed_before_its_commit(session: Connection, other: Connection) -> None:
    lease = start_server(other)
    session.execute("select gman_do_background('f', 'known')")
    assert len(claim(other, lease, 9)) == 1
    session.execute("begin; select gman_do_background('f', 'x')")
    assert claim(other, lease, 9) == []
    session.execute("commit")
    assert len(claim(other, lease, 9)) == 1


def test_a_lower_id_that_commits_later_is_still_claimed(session: Connection, other: Connection) -> None:
    lease = start_server(other)
    other.execute("select gman_do_background('f', 'known')")
    session.execute("begin")
    early = value(session, "select gman_do_background('f', 'early')")
    late = value(other, "select gman_do_background('f', 'late')")
    assert f"H:test:{claim(other, lease, 9)[-1]}" == late
    session.execute("commit")
    assert [f"H:test:{job_id}" for job_id in claim(other, lease, 9)] == [early]


def test_concurrent_claimers_never_get_the_same_job(dsn: str, session: Connection) -> None:
    session.execute("select gman_do_background('f', 'x') from generate_series(1, 3000)")
    claimed: list[object] = []
    barrier = threading.Barrier(4)

    def run() -> None:
        with psycopg.connect(dsn, autocommit=True) as connection:
            lease = start_server(connection)
            barrier.wait()
            while ids := claim(connection, lease, 37):
                claimed.extend(ids)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(claimed) == len(set(claimed)) == 3000


def test_a_claim_skips_jobs_that_another_claim_is_taking(session: Connection, other: Connection) -> None:
    session.execute("select gman_do_background('f', 'x') from generate_series(1, 4)")
    first, second = start_server(session), start_server(other)
    session.execute("begin")
    taken = claim(session, first, 2)
    left = claim(other, second, 9)
    session.execute("rollback")
    assert len(taken) == len(left) == 2
    assert set(taken).isdisjoint(left)
    assert claim(other, second, 9) == taken


def submit_in_thread(connection: Connection) -> tuple[threading.Thread, list[object]]:
    result: list[object] = []
    thread = threading.Thread(target=lambda: result.append(value(connection, "select gman_do_background('f', 'second', 'k')")))
    thread.start()
    return thread, result


def test_a_submit_of_the_same_unique_waits_for_the_commit_and_coalesces(dsn: str, session: Connection, other: Connection) -> None:
    session.execute("select postgear.function_id('f')")
    session.execute("begin")
    first = value(session, "select gman_do_background('f', 'first', 'k')")
    thread, result = submit_in_thread(other)
    wait_until_blocked(session, other.info.backend_pid)
    session.execute("commit")
    thread.join()
    assert result == [first]
    assert workloads(session) == [b"first"]


def test_a_submit_of_the_same_unique_is_added_when_the_other_rolls_back(session: Connection, other: Connection) -> None:
    session.execute("select postgear.function_id('f')")
    session.execute("begin")
    first = value(session, "select gman_do_background('f', 'first', 'k')")
    thread, result = submit_in_thread(other)
    wait_until_blocked(session, other.info.backend_pid)
    session.execute("rollback")
    thread.join()
    assert result != [first]
    assert workloads(session) == [b"second"]


def test_a_worker_completes_its_job_in_its_own_transaction(session: Connection) -> None:
    lease = start_server(session)
    session.execute("create table effect (id bigint); select gman_do_background('f', 'x')")
    (job_id,) = claim(session, lease, 1)
    session.execute(f"begin; insert into effect values ({job_id}); delete from postgear.job where id = {job_id}; rollback")
    assert (workloads(session), rows(session, "select from effect")) == ([b"x"], [])
    session.execute(f"begin; insert into effect values ({job_id}); delete from postgear.job where id = {job_id}; commit")
    assert value(session, "select postgear.finish_jobs(%s, array[%s::bigint])", lease, job_id) == [job_id]


# -- plans -----------------------------------------------------------------------------------------------------------

STATEMENTS = {
    "count_jobs": "select * from postgear.count_jobs(1)",
    "claim_jobs": "select * from postgear.claim_jobs(1, array[1, 2], array[0, 1]::smallint[], array[10, 10], 1000000)",
    "claim_unique": "select * from postgear.claim_unique(1, 1, 'k')",
    "finish_jobs": "select postgear.finish_jobs(1, array[1, 2, 3])",
    "finish_with_results": "select postgear.finish_with_results(1, array[1, 2], array[true, false], array['x', null]::bytea[])",
    "expire_results": "select postgear.expire_results()",
    "handle_result": "select * from postgear.handle_result('H:test:1')",
    "release_others": "select postgear.release_others(1, array[1, 2, 3])",
    "release_jobs": "select postgear.release_jobs(1, array[1, 2, 3], true)",
    "promote_jobs": "select postgear.promote_jobs()",
    "end_lease": "select postgear.end_lease(77)",
    "reap_leases": "select * from postgear.reap_leases()",
    "list_jobs": "select * from postgear.list_jobs(500, 10)",
    "job_status": "select * from postgear.job_status(500, null)",
    "job_status by key": "select * from postgear.job_status(null, 'k')",
    "record_attempts": "select postgear.record_attempts(1, array[1], array[1::smallint])",
    "record_progress": "select postgear.record_progress(1, array[1], array[1], array[1])",
    "is_full": "select postgear.is_full(1, 100)",
}


def test_no_function_reads_the_whole_table(dsn: str, session: Connection) -> None:
    session.execute(
        "insert into postgear.job (function_id, priority, workload, unique_key, run_at, lease)"
        " select 1 + n % 5, n % 3, 'x', case when n % 10 = 0 then convert_to(n::text, 'UTF8') end,"
        " case when n % 50 = 0 then now() + interval '1 hour' end, case when n % 50 = 1 then 1 end"
        " from generate_series(1, 20000) n"
    )
    session.execute("insert into postgear.function (name) select convert_to(n::text, 'UTF8') from generate_series(1, 5) n")
    session.execute("analyze postgear.job")
    # A server's sessions plan without sequential scans; one that no index can serve would still be one.
    session.execute("load 'auto_explain'")
    session.execute(
        "select set_config(name, value, false) from (values ('auto_explain.log_min_duration', '0'),"
        " ('auto_explain.log_nested_statements', 'on'), ('auto_explain.log_level', 'notice'), ('client_min_messages', 'notice'),"
        " ('enable_seqscan', 'off'), ('enable_bitmapscan', 'off')) as setting (name, value)"
    )
    plans: list[str] = []
    session.add_notice_handler(lambda notice: plans.append(notice.message_primary or ""))
    for name, statement in STATEMENTS.items():
        plans.clear()
        session.execute(f"begin; {statement}; rollback")
        text = "\n".join(plans)
        assert "Scan" in text, name
        assert "Seq Scan on job" not in text, f"{name}: {text}"
        assert "Seq Scan on result" not in text, f"{name}: {text}"


def buffers(connection: Connection, statement: str, *parameters: object) -> int:
    """Run a statement and return how many pages it looked at."""
    ((plans,),) = connection.execute("explain (analyze, buffers, format json) " + statement, parameters).fetchall()
    plan = plans[0]["Plan"]  # type: ignore[index]
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


def submit_statement(jobs: int, key: str) -> str:
    return (
        "select postgear.submit_jobs(null, array_agg(function.id), array_agg(1::smallint), array_agg("
        f"{key}), array_agg('x'::bytea)) from generate_series(1, {jobs}) n, postgear.function where name = 'f'"
    )


@pytest.mark.parametrize("key", ["null::bytea", "convert_to(least(n, 99)::text, 'UTF8')"], ids=["plain", "coalescing"])
def test_a_limited_function_is_counted_once_a_batch(session: Connection, key: str) -> None:
    session.execute("select gman_do_background('f', 'x') from generate_series(1, 5000)")
    session.execute("set enable_seqscan = off; set enable_bitmapscan = off; set plan_cache_mode = force_generic_plan")
    unlimited = buffers(session, submit_statement(100, key))
    session.execute("delete from postgear.job where id > 5000")
    session.execute("update postgear.function set max_normal = 1000000")
    assert buffers(session, submit_statement(100, key)) < unlimited + 1000


@pytest.fixture
def old_snapshot(dsn: str) -> Iterator[None]:
    """A transaction that sees the database as it was, so that no row or index entry is cleared away."""
    with psycopg.connect(dsn) as connection:
        connection.execute("set transaction isolation level repeatable read")
        connection.execute("select from postgear.job")
        yield


@pytest.mark.usefixtures("old_snapshot")
def test_reaping_does_not_read_what_living_servers_have_finished(session: Connection, other: Connection) -> None:
    lease = start_server(other)
    session.execute("select gman_do_background('f', 'x') from generate_series(1, 10000)")
    session.execute("select postgear.finish_jobs(%s, %s)", [lease, claim(session, lease, 10000)])
    session.execute("set enable_seqscan = off; set enable_bitmapscan = off")
    for _ in range(2):  # the first call reads the catalogs, too
        session.execute("set postgear.orphans_due = ''")
        pages = buffers(session, "select * from postgear.reap_leases()")
    assert pages < 50


def test_queueing_what_is_due_does_not_read_what_is_scheduled_for_later(session: Connection) -> None:
    session.execute(
        "insert into postgear.job (function_id, priority, workload, run_at)"
        " select 1, 1, 'x', now() + interval '1 day' from generate_series(1, 20000)"
    )
    session.execute("set enable_seqscan = off; set enable_bitmapscan = off")
    for due in (1, 2):  # the first call reads the catalogs, too
        session.execute("insert into postgear.job (function_id, priority, workload, run_at) values (1, 1, 'x', now())")
        pages = buffers(session, "select postgear.promote_jobs()")
        assert rows(session, "select count(*) from postgear.job where run_at is null") == [(due,)]
    assert pages < 50


def test_orphans_between_beside_and_without_leases_are_found(session: Connection) -> None:
    first, second = start_server(session), start_server(session)
    orphans = [f"{first}", f"{second}", f"{second} + 5"]
    session.execute("select setval('postgear.lease_seq', 100)")
    third = start_server(session)
    session.execute("delete from postgear.server where lease = any (%s::bigint[])", [[first, second]])
    session.execute("select gman_do_background('f', 'x') from generate_series(1, 5)")
    for job_id, lease in enumerate([*orphans, f"{third}", "1000"], start=1):
        session.execute(f"update postgear.job set lease = {lease} where id = {job_id}")
    while rows(session, "select * from postgear.reap_leases()"):
        pass
    assert rows(session, "select lease from postgear.job where lease is not null") == [(third,)]
    session.execute("delete from postgear.server; set postgear.orphans_due = ''")
    assert rows(session, "select lease, released from postgear.reap_leases()") == [(third, 1)]


@pytest.mark.parametrize("end", ["rollback", "commit"])
def test_a_job_that_is_completed_and_not_committed_holds_up_nobody(
    session: Connection, other: Connection, dsn: str, end: str
) -> None:
    lease = start_server(session)
    session.execute("select gman_do_background('f', 'x') from generate_series(1, 3)")
    hung, *_ = claim(session, lease, 3)
    other.execute("begin")
    assert value(other, "select postgear.complete_job(%s, %s, 1::smallint)", lease, hung) is True
    with psycopg.connect(dsn, autocommit=True) as reaper:
        reaper.execute("set statement_timeout = '10s'")
        reaper.execute("update postgear.server set renewed_at = renewed_at - interval '1 hour'")
        assert rows(reaper, "select lease, released from postgear.reap_leases()") == [(lease, 2)]
        # Another orphan beside it is found, and the one that is locked is not told again and again.
        reaper.execute("update postgear.job set lease = %s::bigint + 1 where id <> %s", [lease, hung])
        assert rows(reaper, "select lease, released from postgear.reap_leases()") == [(int(str(lease)) + 1, 2)]
        assert rows(reaper, "select lease from postgear.reap_leases()") == []
        other.execute(end)
        reaper.execute("set postgear.orphans_due = ''")
        left = [(lease, 1)] if end == "rollback" else []
        assert rows(reaper, "select lease, released from postgear.reap_leases()") == left
        assert value(reaper, "select count(*) from postgear.job where lease is null") == 2 + len(left)
        assert value(reaper, "select count(*) from postgear.job") == 2 + len(left)


def test_who_holds_its_lease_may_renew_it_after_the_clock_was_set_forward(session: Connection, other: Connection) -> None:
    lease = start_server(other)
    assert rows(session, "select lease from postgear.reap_leases()") == []
    hour = "extract(epoch from clock_timestamp()) - 3600"
    session.execute("update postgear.server set renewed_at = renewed_at - interval '1 hour'")
    session.execute(f"select set_config('postgear.leases_looked_at', ({hour})::text, false)")
    assert rows(session, "select lease from postgear.reap_leases()") == []
    assert rows(session, "select lease from postgear.reap_leases()") == []
    session.execute(f"select set_config('postgear.clock_steady_at', ({hour})::text, false)")  # as 3 s later
    assert rows(session, "select lease from postgear.reap_leases()") == [(lease,)]


def test_a_slow_look_for_orphans_is_put_off_until_a_lease_ends(session: Connection, other: Connection) -> None:
    lease = start_server(other)
    session.execute("select gman_do_background('f', 'x')")
    session.execute("update postgear.job set lease = 1000")
    session.execute("set postgear.orphans_due = '1e12'")  # as after a look that took very long
    assert rows(session, "select * from postgear.reap_leases()") == []
    other.close()
    session.execute("update postgear.server set renewed_at = renewed_at - interval '2 seconds'")
    while not (ended := rows(session, "select lease from postgear.reap_leases()")):
        pass  # the session's lock is let go a moment after its socket
    assert ended == [(lease,)]
    assert rows(session, "select lease from postgear.reap_leases()") == [(1000,)]


# -- a commit that is not an ack -------------------------------------------------------------------------------------


def test_a_dropped_function_begins_anew(session: Connection) -> None:
    session.execute(
        "select postgear.function_id('f'), postgear.keep_results('f', '1 day'), postgear.set_durability('f', 'relaxed')"
    )
    session.execute("select postgear.set_limits('f', 1, 1, 1), postgear.drop_function('f'), postgear.function_id('f')")
    found = rows(session, "select max_normal, durability, keep_results from postgear.function where name = 'f'")
    assert found == [(None, "replicated", None)]
