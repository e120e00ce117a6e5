"""Workers straight on the database: what they run, what becomes of jobs that fail, what people see of them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from postgear.errors import ConfigError, PostgearError, SchemaError, StoreRefused
from postgear.functions import Handler
from postgear.worker.job import Job
from postgear.worker.runner import Worker
from tests.server_process import ServerProcess
from tests.worker.conftest import running
from tests.worker_direct.conftest import WAIT_SECONDS, Database


def test_jobs_queued_before_and_after_the_start_run_and_leave_the_queue(database: Database) -> None:
    worker = Worker(dsn=database.dsn, concurrency=4)
    seen: list[str] = []

    @worker.function("f")
    async def f(payload: str) -> None:
        seen.append(payload)

    database.queue_many("f", 100)
    with running(worker):
        database.wait_empty()
        database.queue("f", "later")
        database.wait_empty()
    assert sorted(seen) == sorted([*map(str, range(1, 101)), "later"])
    assert worker.jobs_done == 101


def test_plain_handlers_run_side_by_side_in_threads(database: Database) -> None:
    worker = Worker(dsn=database.dsn, concurrency=3)
    meeting = threading.Barrier(3, timeout=WAIT_SECONDS)
    met: list[str] = []

    @worker.function("f")
    def f(payload: str) -> None:
        meeting.wait()
        met.append(payload)

    database.queue_many("f", 3)
    with running(worker):
        database.wait_empty()
    assert sorted(met) == ["1", "2", "3"]


def test_high_before_normal_before_low_across_functions_and_oldest_first(database: Database) -> None:
    worker = Worker(dsn=database.dsn)
    order: list[str] = []

    def note(payload: str) -> None:
        order.append(payload)

    for name in ("f", "g"):
        worker.add(Handler(note, name))
    for priority in ("low", "", "high"):
        for number in (1, 2):
            for name in ("f", "g"):
                database.queue(name, f"{priority} {name}{number}", priority=priority)
    with running(worker):
        database.wait_empty()
    assert [payload.partition(" ")[0] for payload in order] == ["high"] * 4 + [""] * 4 + ["low"] * 4
    for name in ("f", "g"):
        assert [payload for payload in order if payload.split()[-1][0] == name] == [
            f"{priority} {name}{number}" for priority in ("high", "", "low") for number in (1, 2)
        ]


def test_how_jobs_have_ended_is_kept_where_their_function_asks_for_it(database: Database) -> None:
    worker = Worker(dsn=database.dsn)

    @worker.function("f")
    def f(payload: str) -> str:
        if payload == "bad":
            raise ValueError("no")
        return payload.upper()

    worker.add(Handler(lambda payload: payload, "g"))
    for name in ("f", "g"):
        database.rows("select postgear.function_id(%s::text::bytea)", name)
    database.rows("select postgear.keep_results('f', '1 day')")
    good, bad, _other = database.queue("f", "good"), database.queue("f", "bad"), database.queue("g", "good")
    with running(worker):
        database.wait_empty()
    found = database.rows("select job_id, outcome, convert_from(result, 'utf8') from postgear.result order by job_id")
    assert found == [(good, "completed", "GOOD"), (bad, "failed", "ValueError: no")]


def test_a_job_says_what_is_known_of_it(database: Database) -> None:
    worker = Worker(dsn=database.dsn)
    seen: list[tuple[object, ...]] = []

    @worker.function("f")
    def f(payload: str, job: Job) -> None:
        seen.append((job.handle, job.unique, job.attempt, job.possible_duplicate, job.server, job.id))

    job_id = database.queue("f", "x", unique="k")
    database.rows("update postgear.job set attempt = 2")
    with running(worker):
        database.wait_empty()
    assert seen == [(f"H:test:{job_id}", "k", 3, True, "database", job_id)]


def test_a_worker_holds_no_more_jobs_than_it_can_run_at_a_time(database: Database) -> None:
    worker = Worker(dsn=database.dsn, concurrency=2)
    go = threading.Event()
    started = threading.Semaphore(0)

    def wait(_payload: bytes) -> None:
        started.release()
        assert go.wait(WAIT_SECONDS)

    for name in ("f", "g", "h"):
        worker.add(Handler(wait, name))
        for priority in ("high", "", "low"):
            database.queue(name, priority=priority)
    with running(worker):
        for _ in range(2):
            assert started.acquire(timeout=WAIT_SECONDS)
        # It looks for jobs again and again all the while; sleeping, it has looked a last time.
        database.wait_for("select bool_and(sleeping) from postgear.server")
        assert database.value("select count(*) from postgear.job where lease is not null") == 2
        go.set()
        database.wait_empty()


def test_jobs_claimed_ahead_go_back_when_the_slots_stay_busy(database: Database) -> None:
    worker = Worker(dsn=database.dsn)
    go = threading.Event()
    stuck = threading.Event()

    @worker.function("f")
    def f(payload: str) -> None:
        if payload == "500":
            stuck.set()
            assert go.wait(WAIT_SECONDS)

    database.queue_many("f", 5000)
    with running(worker):
        assert stuck.wait(WAIT_SECONDS)
        database.wait_for("select count(*) from postgear.job where lease is not null", expected=1)
        assert database.value("select max(attempt) from postgear.job where lease is null") == 0
        go.set()
        database.wait_empty()


def test_a_failed_job_leaves_the_queue_unless_it_has_retries(database: Database) -> None:
    worker = Worker(dsn=database.dsn)
    attempts: list[tuple[str, int | None]] = []

    @worker.function("once")
    def once(payload: str, job: Job) -> None:
        attempts.append(("once", job.attempt))
        raise ValueError(payload)

    @worker.function("twice", retries=1)
    def twice(payload: str, job: Job) -> None:
        attempts.append(("twice", job.attempt))
        raise ValueError(payload)

    database.queue("once")
    job_id = database.queue("twice")
    with running(worker):
        database.wait_for("select state = 'scheduled' and attempt = 1 from postgear.jobs where function = 'twice'")
        assert database.rows("select id, lease from postgear.job") == [(job_id, None)]
        database.rows("update postgear.job set run_at = now()")
        database.wait_empty()
    assert attempts == [("once", 1), ("twice", 1), ("twice", 2)]
    assert worker.jobs_failed == 2


def test_a_retry_outlives_the_worker(database: Database) -> None:
    first, second = Worker(dsn=database.dsn), Worker(dsn=database.dsn)
    seen: list[int | None] = []

    @first.function("f", retries=5)
    def fail(payload: bytes) -> None:
        raise ValueError

    @second.function("f")
    def f(payload: bytes, job: Job) -> None:
        seen.append(job.attempt)

    database.queue("f")
    with running(first):
        database.wait_for("select count(*) from postgear.jobs where state = 'scheduled'", expected=1)
    database.rows("update postgear.job set run_at = now()")
    with running(second):
        database.wait_empty()
    assert seen == [2]


def test_progress_is_stored_for_those_who_ask(database: Database) -> None:
    worker = Worker(dsn=database.dsn)
    go = threading.Event()

    @worker.function("f")
    def f(payload: bytes, job: Job) -> None:
        job.status(3, 7)
        job.data("nobody gets it")
        job.warning("nor this")
        assert go.wait(WAIT_SECONDS)

    database.queue("f")
    with running(worker):
        database.wait_for("select array[progress_numerator, progress_denominator] from postgear.job", expected=[3, 7])
        go.set()
        database.wait_empty()


def test_jobs_with_the_same_unique_are_one_while_it_runs(database: Database) -> None:
    worker = Worker(dsn=database.dsn)
    go, started = threading.Event(), threading.Event()

    @worker.function("f")
    def f(payload: bytes) -> None:
        started.set()
        assert go.wait(WAIT_SECONDS)

    job_id = database.queue("f", unique="k")
    with running(worker):
        assert started.wait(WAIT_SECONDS)
        assert database.queue("f", unique="k") == job_id
        go.set()
        database.wait_empty()
        assert database.queue("f", unique="k") != job_id
        database.wait_empty()


def test_a_cancelled_job_is_not_run_or_its_end_changes_nothing(database: Database) -> None:
    worker = Worker(dsn=database.dsn)
    started = threading.Event()
    ended: list[str] = []

    @worker.function("f")
    async def f(payload: str) -> None:
        started.set()
        try:
            await asyncio.sleep(WAIT_SECONDS)
        except asyncio.CancelledError:
            ended.append(payload)
            raise

    @worker.function("g")
    async def g(payload: str) -> None:
        ended.append(payload)

    running_id = database.queue("f", "running")
    with running(worker):
        assert started.wait(WAIT_SECONDS)
        queued_id = database.queue("g", "queued")
        assert database.value("select postgear.cancel_job(%s) and postgear.cancel_job(%s)", queued_id, running_id)
        database.queue("g", "last")
        database.wait_empty()
    assert ended == ["running", "last"]


def test_functions_come_and_go_while_it_runs(database: Database) -> None:
    worker = Worker(dsn=database.dsn)
    seen: list[str] = []

    @worker.function("f")
    async def f(payload: str) -> None:
        seen.append(f"f {payload}")

    async def note(payload: str) -> None:
        seen.append(f"g {payload}")

    with running(worker):
        database.queue("g", "1")
        worker.add(Handler(note, "g"))
        database.wait_empty()
        worker.remove("f")
        database.wait_for("select functions from postgear.workers", expected=["g"])
        database.queue("f", "2")
        database.queue("g", "3")
        database.wait_for("select count(*) from postgear.job", expected=1)
    assert seen == ["g 1", "g 3"]


def test_what_is_held_goes_back_when_it_stops_before_the_end(database: Database) -> None:
    worker = Worker(dsn=database.dsn, concurrency=2, drain_seconds=0.1)
    started = threading.Semaphore(0)

    @worker.function("f")
    async def f(payload: bytes) -> None:
        started.release()
        await asyncio.sleep(WAIT_SECONDS)

    database.queue_many("f", 5)
    with running(worker):
        for _ in range(2):
            assert started.acquire(timeout=WAIT_SECONDS)
    assert database.rows("select lease, attempt, count(*) from postgear.job group by 1, 2 order by 2") == [
        (None, 0, 3),
        (None, 1, 2),
    ]
    assert database.rows("select from postgear.server") == []


def test_it_is_shown_as_a_worker_and_not_as_a_server(database: Database, start_server: Callable[..., ServerProcess]) -> None:
    server = start_server("--name", "same")
    worker = Worker(dsn=database.dsn, client_id="same")

    @worker.function("f")
    def f(payload: bytes) -> None:
        pass

    with running(worker):
        shown = database.rows("select name, host is not null, pid, functions, jobs from postgear.workers")
        assert [(name, has_host, functions, jobs) for name, has_host, _, functions, jobs in shown] == [("same", True, ["f"], 0)]
        assert database.rows("select * from postgear.live_servers()") == [(server.address,)]
        start_server("--name", "other").stop()
        second = start_server("--name", "same")
        warning = second.wait_for_log("another server has this name.*")[0]
        assert second.log().count("another server has this name") == 1
        assert server.address in warning


def test_jobs_of_servers_and_of_direct_workers_are_one_queue(
    database: Database, start_server: Callable[..., ServerProcess]
) -> None:
    server = start_server()
    direct, over_the_wire = Worker(dsn=database.dsn), Worker(server.address)
    seen: dict[str, list[str]] = {"direct": [], "wire": []}

    @direct.function("f")
    async def f(payload: str) -> None:
        seen["direct"].append(payload)

    @over_the_wire.function("f")
    async def g(payload: str) -> None:
        seen["wire"].append(payload)

    with running(direct), running(over_the_wire):
        database.queue_many("f", 2000)
        database.wait_empty()
    assert sorted(map(int, seen["direct"] + seen["wire"])) == list(range(1, 2001))


def test_jobs_of_a_claim_under_way_at_the_stop_go_back_uncounted(database: Database) -> None:
    # A claim waits in the database until the gate opens.
    database.rows(
        "create function gate() returns trigger language plpgsql as"
        " 'begin perform pg_advisory_xact_lock_shared(4711); return new; end'"
    )
    database.rows(
        "create trigger gate before update on postgear.job for each row"
        " when (old.lease is null and new.lease is not null) execute function gate()"
    )
    database.rows("select pg_advisory_lock(4711)")
    worker = Worker(dsn=database.dsn)

    @worker.function("f")
    def f(payload: str) -> None:
        raise AssertionError("nothing was to run")

    with running(worker) as run:
        database.queue("f")
        database.wait_for("select exists (select from pg_locks where locktype = 'advisory' and objid = 4711 and not granted)")
        worker.stop()
        run.thread.join(2)  # it is to wait for the claim
        database.rows("select pg_advisory_unlock(4711)")
    database.wait_for("select count(*) from postgear.job where lease is null", expected=1)
    assert database.rows("select lease, attempt from postgear.job") == [(None, 0)]
    assert worker.jobs_failed == 0


@pytest.mark.parametrize(
    ("dsn_of", "error", "text"),
    [
        (lambda dsn: "host", ConfigError, 'dsn: missing "=" after "host"'),
        (lambda dsn: make_conninfo(dsn, dbname="nowhere"), StoreRefused, '"nowhere" does not exist'),
        (lambda dsn: make_conninfo(dsn, user="nobody_here"), StoreRefused, '"nobody_here" does not exist'),
        (lambda dsn: make_conninfo(dsn, user="only_producer"), StoreRefused, "needs the rights of role postgear_worker"),
        (lambda dsn: make_conninfo(dsn, user="nothing_at_all"), StoreRefused, "needs the rights of role postgear_worker"),
    ],
    ids=["malformed", "no database", "no role", "too few rights", "no rights"],
)
def test_what_waiting_would_not_mend_ends_the_start(
    database: Database, dsn_of: Callable[[str], str], error: type[PostgearError], text: str
) -> None:
    database.rows("create role only_producer login in role postgear_producer")
    database.rows("create role nothing_at_all login")
    try:
        with pytest.raises(error, match=text):
            Worker(dsn=dsn_of(database.dsn)).run()
    finally:
        database.rows("drop role only_producer")
        database.rows("drop role nothing_at_all")


def test_a_database_without_the_schema_ends_the_start(empty_dsn: str) -> None:
    with pytest.raises(SchemaError, match=r"no postgear schema.*run: postgear init --dsn"):
        Worker(dsn=empty_dsn).run()


def test_a_role_with_the_workers_rights_is_enough(database: Database) -> None:
    database.rows("create role just_worker login in role postgear_worker")
    database.rows("grant insert on effect to just_worker")
    worker = Worker(dsn=make_conninfo(database.dsn, user="just_worker"))

    @worker.function("f", retries=1, transactional=True)
    def f(payload: str, job: Job) -> None:
        assert isinstance(job.connection, psycopg.Connection)
        job.connection.execute("insert into effect (payload) values (%s)", [payload])
        job.status(1, 2)
        if job.attempt == 1:
            raise ValueError

    database.queue("f", "x")
    try:
        with running(worker):
            database.wait_empty()
            assert database.rows("select payload from effect") == [("x",)]
    finally:
        database.rows("drop owned by just_worker")
        database.rows("drop role just_worker")
