"""Handlers whose writes and whose job's end are one transaction: both are there, or neither."""

from __future__ import annotations

import asyncio
import contextlib
import random
import subprocess
import threading
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from postgear.errors import ConfigError, JobLost
from postgear.functions import Handler
from postgear.worker.job import Job
from postgear.worker.runner import Worker
from tests.worker.conftest import running
from tests.worker_direct.conftest import WAIT_SECONDS, Database

ADD = "insert into effect (payload) values (%s)"
Sql = psycopg.Connection[Any]
AsyncSql = psycopg.AsyncConnection[Any]
Errors = list[BaseException | None]


def effects(database: Database) -> list[str]:
    return [payload for (payload,) in database.rows("select payload from effect order by payload")]


def make_worker(database: Database, errors: Errors, concurrency: int = 1) -> Worker:
    """A worker that remembers how each run ended."""
    worker = Worker(dsn=database.dsn, concurrency=concurrency)

    @worker.after
    def remember(_job: Job, error: BaseException | None) -> None:
        errors.append(error)

    return worker


def add(worker: Worker, *, is_async: bool, then: Callable[[Job], None] = lambda _job: None, retries: int = 0) -> None:
    """Let the worker do function f: write a row, then do something that waits for nothing."""

    def plain(payload: str, job: Job) -> None:
        assert isinstance(job.connection, psycopg.Connection)
        job.connection.execute(ADD, [payload])
        then(job)

    async def in_loop(payload: str, job: Job) -> None:
        assert isinstance(job.connection, psycopg.AsyncConnection)
        await job.connection.execute(ADD, [payload])
        then(job)

    worker.add(Handler(in_loop if is_async else plain, "f", transactional=True, retries=retries))


both = pytest.mark.parametrize("is_async", [False, True], ids=["plain", "async"])


@both
def test_writes_and_end_are_one_transaction(database: Database, is_async: bool) -> None:
    errors: Errors = []
    worker = make_worker(database, errors, concurrency=3)
    add(worker, is_async=is_async)
    # Whoever sees the row sees its job gone.
    database.rows(
        "create function check_job() returns trigger language plpgsql as $$ begin"
        " if exists (select from postgear.job where convert_from(workload, 'utf8') = new.payload) then"
        "   raise 'job % is still there', new.payload; end if; return null; end $$"
    )
    database.rows(
        "create constraint trigger check_job after insert on effect deferrable initially deferred"
        " for each row execute function check_job()"
    )
    database.queue_many("f", 50)
    with running(worker):
        database.wait_empty()
    assert effects(database) == sorted(map(str, range(1, 51)))
    assert errors == [None] * 50
    assert database.value("select count(distinct worker) <= 3 from effect")  # connections are used again


@both
def test_the_result_is_kept_in_the_same_transaction(database: Database, is_async: bool) -> None:
    errors: Errors = []
    worker = make_worker(database, errors)

    def plain(payload: str, job: Job) -> str:
        job.connection.execute(ADD, [payload])
        if payload == "lost":
            database.rows("delete from postgear.job where workload = 'lost'")
        return f"did {payload}"

    async def in_loop(payload: str, job: Job) -> str:
        await job.connection.execute(ADD, [payload])
        if payload == "lost":
            await asyncio.to_thread(database.rows, "delete from postgear.job where workload = 'lost'")
        return f"did {payload}"

    worker.add(Handler(in_loop if is_async else plain, "f", transactional=True))
    # Whoever sees the row of the handler sees the result.
    database.rows(
        "create function check_result() returns trigger language plpgsql as $$ begin"
        " if not exists (select from postgear.result where result = convert_to('did ' || new.payload, 'utf8')) then"
        "   raise 'no result of %', new.payload; end if; return null; end $$"
    )
    database.rows(
        "create constraint trigger check_result after insert on effect deferrable initially deferred"
        " for each row execute function check_result()"
    )
    database.rows("select postgear.function_id('f'), postgear.keep_results('f', '1 day')")
    first = database.queue("f", "first")
    database.queue("f", "lost")
    with running(worker):
        database.wait_empty()
    assert effects(database) == ["first"]
    assert database.rows("select job_id, outcome, result from postgear.result") == [(first, "completed", b"did first")]
    assert [type(error) for error in errors] == [type(None), JobLost]


@both
def test_what_a_handler_raises_rolls_back_and_fails_the_job(database: Database, is_async: bool) -> None:
    errors: Errors = []
    worker = make_worker(database, errors)

    def fail(_job: Job) -> None:
        raise ValueError("no")

    add(worker, is_async=is_async, then=fail)
    database.queue("f", "x")
    with running(worker):
        database.wait_empty()
    assert effects(database) == []
    assert [str(error) for error in errors] == ["no"]


@both
def test_a_retry_after_a_rollback_has_a_fresh_transaction(database: Database, is_async: bool) -> None:
    errors: Errors = []
    worker = make_worker(database, errors)

    def fail_once(job: Job) -> None:
        if job.attempt == 1:
            raise ValueError("no")

    add(worker, is_async=is_async, then=fail_once, retries=1)
    database.queue("f", "x")
    with running(worker):
        database.wait_empty()
    assert effects(database) == ["x"]
    assert len(errors) == 2
    assert errors[1] is None


@both
def test_a_commit_that_the_database_refuses_is_a_failure(database: Database, is_async: bool) -> None:
    errors: Errors = []
    worker = make_worker(database, errors)
    add(worker, is_async=is_async)
    database.rows("alter table effect add constraint once unique (payload) deferrable initially deferred")
    database.rows("insert into effect (payload) values ('x')")
    database.queue("f", "x")
    with running(worker):
        database.wait_empty()
    assert effects(database) == ["x"]
    assert [type(error) for error in errors] == [psycopg.errors.UniqueViolation]


@both
def test_an_error_that_the_handler_swallowed_is_a_failure(database: Database, is_async: bool) -> None:
    errors: Errors = []
    worker = make_worker(database, errors)

    def plain(payload: str, job: Job) -> None:
        assert isinstance(job.connection, psycopg.Connection)
        job.connection.execute(ADD, [payload])
        with contextlib.suppress(psycopg.errors.DivisionByZero):
            job.connection.execute("select 1 / 0")

    async def in_loop(payload: str, job: Job) -> None:
        assert isinstance(job.connection, psycopg.AsyncConnection)
        await job.connection.execute(ADD, [payload])
        with contextlib.suppress(psycopg.errors.DivisionByZero):
            await job.connection.execute("select 1 / 0")

    worker.add(Handler(in_loop if is_async else plain, "f", transactional=True))
    database.queue("f", "x")
    with running(worker):
        database.wait_empty()
    assert effects(database) == []
    assert [type(error) for error in errors] == [psycopg.errors.InFailedSqlTransaction]


@both
def test_a_handler_cannot_commit_by_itself(database: Database, is_async: bool) -> None:
    errors: Errors = []
    worker = make_worker(database, errors)

    def plain(payload: str, job: Job) -> None:
        assert isinstance(job.connection, psycopg.Connection)
        job.connection.execute(ADD, [payload])
        job.connection.commit()

    async def in_loop(payload: str, job: Job) -> None:
        assert isinstance(job.connection, psycopg.AsyncConnection)
        await job.connection.execute(ADD, [payload])
        await job.connection.commit()

    worker.add(Handler(in_loop if is_async else plain, "f", transactional=True))
    database.queue("f", "x")
    with running(worker):
        database.wait_empty()
    assert effects(database) == []
    assert [type(error) for error in errors] == [psycopg.ProgrammingError]


@both
def test_a_job_that_was_given_out_again_is_rolled_back(database: Database, is_async: bool) -> None:
    """As when the lease had ended while the worker hung; the second delivery is by the same worker, under the same lease."""
    errors: Errors = []
    worker = make_worker(database, errors, concurrency=2)

    def lose_once(job: Job) -> None:
        if job.attempt == 1:
            with psycopg.connect(database.dsn) as other:
                other.execute("update postgear.job set lease = null where id = %s", [job.id])
            database_is_claimed(job.id)

    def database_is_claimed(job_id: int) -> None:
        with psycopg.connect(database.dsn, autocommit=True) as other:
            while other.execute("select attempt from postgear.job where id = %s", [job_id]).fetchone() == (1,):
                if is_async:
                    # The loop is not free to claim it meanwhile: so this stands for the other worker.
                    other.execute("update postgear.job set attempt = 2, lease = (select lease from postgear.server)")

    add(worker, is_async=is_async, then=lose_once)
    database.queue("f", "x")
    with running(worker):
        if is_async:
            database.wait_for("select count(*) from postgear.job where attempt = 2", expected=1)
            database.rows("update postgear.job set lease = null")
        database.wait_empty()
    assert effects(database) == ["x"]
    assert [type(error) for error in errors if error] == [JobLost]


@both
def test_a_job_cancelled_while_it_runs_leaves_no_effect(database: Database, is_async: bool) -> None:
    errors: Errors = []
    worker = make_worker(database, errors)

    def cancel(job: Job) -> None:
        with psycopg.connect(database.dsn) as other:
            other.execute("select postgear.cancel_job(%s)", [job.id])

    add(worker, is_async=is_async, then=cancel)
    database.queue("f", "x")
    with running(worker):
        database.wait_for("select count(*) from postgear.job", expected=0)
    assert effects(database) == []
    assert len(errors) == 1
    assert isinstance(errors[0], JobLost | asyncio.CancelledError)


@both
def test_a_job_whose_connection_breaks_runs_again(database: Database, is_async: bool) -> None:
    errors: Errors = []
    worker = make_worker(database, errors)

    def kill_once(job: Job) -> None:
        if job.attempt == 1:
            assert job.connection is not None
            with psycopg.connect(database.dsn) as other:
                other.execute("select pg_terminate_backend(%s, 10000)", [job.connection.info.backend_pid])

    add(worker, is_async=is_async, then=kill_once)
    database.queue("f", "x")
    with running(worker):
        database.wait_empty()
    assert effects(database) == ["x"]
    assert [type(error) for error in errors] == [JobLost, type(None)]


@both
def test_a_connection_that_broke_while_it_was_idle_is_replaced(database: Database, is_async: bool) -> None:
    errors: Errors = []
    worker = make_worker(database, errors)
    add(worker, is_async=is_async)
    with running(worker):
        database.queue("f", "1")
        database.wait_empty()
        database.rows("select pg_terminate_backend(pid, 10000) from pg_stat_activity where application_name like '% handler'")
        database.queue("f", "2")
        database.wait_empty()
    assert effects(database) == ["1", "2"]
    assert errors == [None, None]
    assert database.value("select count(distinct worker) from effect") == 2


@both
def test_a_job_whose_database_takes_no_writes_any_more_runs_again(database: Database, is_async: bool) -> None:
    errors: Errors = []
    worker = make_worker(database, errors)

    def plain(payload: str, job: Job) -> None:
        assert isinstance(job.connection, psycopg.Connection)
        job.connection.execute(ADD, [payload])
        if payload == "1":
            job.connection.execute("set default_transaction_read_only = on")  # for the transactions that come

    async def in_loop(payload: str, job: Job) -> None:
        assert isinstance(job.connection, psycopg.AsyncConnection)
        await job.connection.execute(ADD, [payload])
        if payload == "1":
            await job.connection.execute("set default_transaction_read_only = on")

    worker.add(Handler(in_loop if is_async else plain, "f", transactional=True))
    with running(worker):
        database.queue("f", "1")
        database.wait_empty()
        database.queue("f", "2")
        database.wait_empty()
    assert effects(database) == ["1", "2"]
    assert [type(error) for error in errors] == [type(None), JobLost, type(None)]


@both
def test_a_slot_waits_for_a_connection_and_runs_its_job_then(
    database: Database, limited_role: str, caplog: pytest.LogCaptureFixture, is_async: bool
) -> None:
    errors: Errors = []
    database.rows("grant insert on effect to limited")
    database.rows("alter role limited connection limit 4")  # the worker's own
    worker = Worker(dsn=limited_role)
    worker.after(lambda _job, error: errors.append(error))
    add(worker, is_async=is_async)
    database.queue("f", "x")
    with running(worker):
        while "no connection for a handler, retrying" not in caplog.text:
            database.wait_for("select attempt = 1 and lease is not null from postgear.job")
        database.rows("alter role limited connection limit -1")
        database.wait_empty()
    assert effects(database) == ["x"]
    assert errors == [None]


def test_transactional_functions_need_a_database() -> None:
    worker = Worker("127.0.0.1:1")
    with pytest.raises(ConfigError, match="transactional needs a worker with a dsn"):
        add(worker, is_async=False)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("function", ["effect", "effect_async"])
def test_workers_killed_at_any_moment_leave_each_effect_exactly_once(
    database: Database, start_worker: Callable[..., subprocess.Popen[bytes]], function: str
) -> None:
    seed = random.randrange(2**32)
    rng = random.Random(seed)
    jobs = 1000
    database.queue_many(function, jobs)
    workers = [start_worker(4) for _ in range(2)]
    kills = 0
    pause = threading.Event()
    while database.jobs():
        # The moment is by the progress of the work, and a little more.
        left = database.jobs()
        due = max(left - rng.randrange(1, 200), 0)
        database.wait_for("select count(*) <= %s from postgear.job", due)
        pause.wait(rng.random() * 0.02)
        if kills < 8:
            victim = rng.randrange(len(workers))
            workers[victim].kill()
            workers[victim].wait(WAIT_SECONDS)
            workers[victim] = start_worker(4)
            kills += 1
    found = database.value("select count(*) from effect"), database.value("select count(distinct payload) from effect")
    assert found == (jobs, jobs), f"seed {seed}, {kills} kills"
    assert kills > 0
