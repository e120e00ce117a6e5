"""What only workers straight on the database ask of a store: asked of both where both have it, else of the SQL functions."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from postgear.job import Lane
from tests.store.both_stores import HIGH, LOW, NORMAL, PLENTY_BYTES, Queue, on_both_stores


@pytest.fixture
def session(dsn: str) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """A connection to the test's database."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        yield connection


@on_both_stores
async def test_a_worker_takes_a_lease_that_claims_and_finishes(queue: Queue) -> None:
    server = await queue.server()
    worker = await queue.open("w")
    await worker.register_worker("w", "host", 1, "test", 30.0, [b"f"])
    assert worker.lease not in (0, server.lease)
    assert worker.queue_name == server.queue_name
    (job_id,) = await queue.submit(server, {})
    assert await queue.claimed_ids(worker) == [job_id]
    assert await server.finish_jobs([job_id]) == [job_id]
    assert await worker.finish_jobs([job_id]) == []
    await worker.set_functions([b"g"])


@on_both_stores
async def test_a_claim_takes_the_most_urgent_up_to_its_limit(queue: Queue) -> None:
    store = await queue.server()
    f = queue.functions[b"f"]
    low, normal, high = [(await queue.submit(store, *[{"priority": priority}] * 2)) for priority in (LOW, NORMAL, HIGH)]
    lanes = [Lane(f.id, priority, 100) for priority in (LOW, HIGH, NORMAL)]
    assert [job.id for job in await store.claim_jobs(lanes, PLENTY_BYTES, 3)] == [*high, normal[0]]
    assert [job.id for job in await store.claim_jobs(lanes, PLENTY_BYTES, 2)] == [normal[1], low[0]]
    assert [job.id for job in await store.claim_jobs(lanes, PLENTY_BYTES)] == [low[1]]


@on_both_stores
async def test_a_postponed_job_waits_for_its_time_and_its_attempt_counts(queue: Queue) -> None:
    store = await queue.server()
    (job_id,) = await queue.submit(store, {})
    await queue.claim(store)
    await store.record_progress({job_id: (1, 2)})
    await store.postpone_jobs({job_id: 60.0})
    assert await queue.claim(store) == []
    status = await store.job_status(job_id, None)
    assert status is not None
    assert (status.running, status.numerator) == (False, 0)
    seconds = await store.promote_jobs()
    assert seconds is not None
    assert 50 < seconds <= 60
    queue.pass_time(61)
    await store.promote_jobs()
    assert [job.attempt for job in await queue.claim(store)] == [2]


@on_both_stores
async def test_a_job_postponed_by_no_time_is_queued_at_once(queue: Queue) -> None:
    store = await queue.server()
    first, second = await queue.submit(store, {}, {})
    await queue.claim(store)
    await store.postpone_jobs({first: 0.0, second: -1.0})
    assert await queue.claimed_ids(store) == [first, second]


@on_both_stores
async def test_a_job_of_another_lease_is_not_postponed(queue: Queue) -> None:
    store, other = await queue.server(), await queue.server("b")
    (job_id,) = await queue.submit(store, {})
    await queue.claim(store)
    await other.postpone_jobs({job_id: 0.0})
    assert await queue.claim(other) == []
    assert await store.finish_jobs([job_id]) == []


@on_both_stores
async def test_a_postponed_job_wakes_who_sleeps(queue: Queue) -> None:
    store, sleeper = await queue.server(), await queue.server("b")
    (job_id,) = await queue.submit(store, {})
    await queue.claim(store)
    assert await sleeper.renew_lease(sleeping=True)
    await store.postpone_jobs({job_id: 1.0})
    assert await queue.notification() == "wake"


def test_a_server_of_the_release_before_claims_with_five_arguments(session: psycopg.Connection[tuple[object, ...]]) -> None:
    session.execute("select gman_do_background('f', 'x')")
    claimed = session.execute(
        "select claimed.workload from postgear.register_server('old', '127.0.0.1:1', 1, 'old', 30) as server,"
        " postgear.claim_jobs(server.lease, array[1], array[1::smallint], array[10], 1000000) as claimed"
    ).fetchall()
    assert claimed == [(b"x",)]


@pytest.mark.parametrize(
    ("lease", "job_id", "attempt", "is_done"),
    [(0, 0, 0, True), (1, 0, 0, False), (0, 1, 0, False), (0, 0, -1, False), (0, 0, 1, False)],
    ids=["its own", "another's", "another job", "an earlier delivery", "a later delivery"],
)
def test_only_the_delivery_of_this_moment_completes_a_job(
    session: psycopg.Connection[tuple[object, ...]], lease: int, job_id: int, attempt: int, is_done: bool
) -> None:
    session.execute("select gman_do_background('f', 'x')")
    (row,) = session.execute(
        "select worker.lease, claimed.id, claimed.attempt from postgear.register_worker('w', 'h', 1, 'v', 30, '{}') as worker,"
        " postgear.claim_jobs(worker.lease, array[1], array[1::smallint], array[10], 1000000) as claimed"
    ).fetchall()
    arguments = [known + off for known, off in zip(row, (lease, job_id, attempt), strict=True)]  # type: ignore[operator]
    done = session.execute("select postgear.complete_job(%s, %s, %s::smallint)", arguments).fetchone()
    assert done == (is_done,)
    assert session.execute("select count(*) from postgear.job").fetchone() == (int(not is_done),)


def test_jobs_are_finished_by_their_ids_however_many_the_lease_holds(session: psycopg.Connection[tuple[object, ...]]) -> None:
    """A way by the lease would go through all that it holds, and through what it held since the oldest snapshot."""
    session.execute("select gman_do_background('f', 'x') from generate_series(1, 2000)")
    session.execute("analyze postgear.job")  # before the claims: the statistics know of no lease
    session.execute("update postgear.job set lease = 7")
    session.execute("set enable_seqscan = off; set enable_bitmapscan = off; set plan_cache_mode = force_generic_plan")
    session.execute("select postgear.finish_jobs(7, array[1, 2, 3])")
    session.execute("select pg_stat_force_next_flush()" if session.info.server_version >= 150000 else "select 1")
    used = session.execute("select idx_scan from pg_stat_user_indexes where indexrelname = 'job_lease_idx'").fetchone()
    assert used == (0,)


def test_workers_are_shown_and_are_no_servers(session: psycopg.Connection[tuple[object, ...]]) -> None:
    session.execute("select postgear.register_server('s', '127.0.0.1:1', 1, 'v', 30)")
    session.execute("select postgear.register_worker('w', 'h', 2, 'v', 30, array['b', 'a']::bytea[])")
    assert session.execute("select name, host, pid, functions, jobs, sleeping from postgear.workers").fetchall() == [
        ("w", "h", 2, ["a", "b"], 0, False)
    ]
    assert session.execute("select * from postgear.live_servers()").fetchall() == [("127.0.0.1:1",)]
