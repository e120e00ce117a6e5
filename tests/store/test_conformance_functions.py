"""What every store must do, asked of both: functions, their limits, and batches in doubt."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
import pytest

from postgear.errors import StoreUnavailable
from postgear.job import Durability
from postgear.store.postgres import PostgresStore
from tests.store.both_stores import LEASE_SECONDS, Queue, on_both_stores


@on_both_stores
async def test_functions_keep_their_ids_and_come_in_the_order_asked(queue: Queue) -> None:
    store = await queue.server()
    first = await store.ensure_functions([b"g", b"h"])
    again = await store.ensure_functions([b"h", b"g"])
    assert [row.name for row in first] == [b"g", b"h"]
    assert again == [first[1], first[0]]
    assert first[0].id != first[1].id
    assert first[0].limits == (None, None, None)


@on_both_stores
async def test_a_function_name_may_hold_any_bytes(queue: Queue) -> None:
    store = await queue.server()
    name = bytes(range(1, 256))
    (row,) = await store.ensure_functions([name])
    assert row.name == name


@on_both_stores
async def test_a_function_has_uniques_while_a_job_with_a_key_exists(queue: Queue) -> None:
    store = await queue.server()
    await queue.submit(store, {})
    (row,) = await store.ensure_functions([b"f"])
    assert not row.has_uniques
    (job_id,) = await queue.submit(store, {"key": b"k", "claim": True})
    (row,) = await store.ensure_functions([b"f"])
    assert row.has_uniques
    await store.finish_jobs([job_id])
    (row,) = await store.ensure_functions([b"f"])
    assert not row.has_uniques


@pytest.mark.parametrize("tier", list(Durability))
def test_the_durability_of_a_function_is_learnt_and_its_batches_commit_with_it(tier: Durability, dsn: str) -> None:
    async def run() -> None:
        queue = Queue(dsn)
        store = await queue.server()
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("select postgear.set_durability('f', %s)", [tier.name.lower()])
            assert await queue.notification() == "functions"
            (row,) = await store.ensure_functions([b"f"])
            assert row.durability is tier
            connection.execute(
                "create function seen() returns trigger language plpgsql as"
                " $$ begin new.workload = current_setting('synchronous_commit')::bytea; return new; end $$"
            )
            connection.execute("create trigger seen before insert on postgear.job for each row execute function seen()")
            batch = queue.batch({})
            batch.durability = row.durability
            await store.submit_jobs(batch)
            levels = {Durability.REPLICATED: b"on", Durability.LOCAL: b"local", Durability.RELAXED: b"off"}
            assert connection.execute("select workload from postgear.job").fetchall() == [(levels[tier],)]
            await queue.submit(store, {})
            assert connection.execute("select workload from postgear.job order by id desc limit 1").fetchall() == [(b"on",)]
        for opened in queue.stores:
            opened.close()

    asyncio.run(run())


@on_both_stores
async def test_a_batch_in_doubt_is_settled_with_what_it_returned(queue: Queue) -> None:
    store = await queue.server()
    for jobs in ([{}], [{}, {"claim": True}, {}], [{"key": b"a"}, {}], [{"key": b"a"}, {"key": b"b"}, {}]):
        batch = queue.batch(*jobs)
        ids = await store.submit_jobs(batch)
        assert await store.settle_batch(batch) == ids
        assert await store.settle_batch(batch) == ids


@on_both_stores
async def test_a_batch_in_doubt_is_settled_after_its_lease_has_ended(queue: Queue) -> None:
    store = await queue.server()
    batch = queue.batch({"claim": True})
    ids = await store.submit_jobs(batch)
    await store.end_lease()
    await store.register_server("a", "127.0.0.1:4730", 1, "test", LEASE_SECONDS)
    assert await store.settle_batch(batch) == ids


def test_a_batch_of_a_lease_whose_number_was_given_again_is_not_there(dsn: str) -> None:
    async def run() -> None:
        queue = Queue(dsn)
        store = await queue.server()
        batch = queue.batch({})
        await store.submit_jobs(batch)
        assert store.cluster is not None
        store.cluster = store.cluster._replace(timeline="00000000")  # as if another were promoted, and this lease were another's
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("update postgear.server set name = 'another'")
            before = connection.execute("select * from postgear.batch").fetchall()
            store.close()
            await store.connect()
            assert not await store.renew_lease(sleeping=False)
            assert await store.settle_batch(batch) is None
            assert connection.execute("select * from postgear.batch").fetchall() == before
        for opened in queue.stores:
            opened.close()

    asyncio.run(run())


def test_a_batch_stored_around_locks_is_as_any_other(dsn: str) -> None:
    async def run() -> None:
        queue = Queue(dsn)
        store = await queue.server()
        (present,) = await queue.submit(store, {"key": b"there"})
        later = queue.now() + 1000
        jobs = [{}, {"claim": True}, {"key": b"there"}, {"run_at": later}, {"key": b"new", "claim": True, "reducer": b"r"}, {}]
        batch = queue.batch(*jobs)
        ended: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        store.start_submit(batch, ended.set_result, around_locks=True)
        ids = await ended
        assert await store.settle_batch(batch) == ids
        assert ids[2] == -present
        with psycopg.connect(dsn) as connection:
            rows = connection.execute(
                "select id, lease is not null, extract(epoch from run_at)::bigint, unique_key, reducer from postgear.job"
                " where id <> %s order by id", [present],
            ).fetchall()  # fmt: skip
        first, claimed, _, scheduled, keyed, last = ids
        assert rows == [
            (first, False, None, None, None),
            (claimed, True, None, None, None),
            (scheduled, False, later, None, None),
            (keyed, True, None, b"new", b"r"),
            (last, False, None, None, None),
        ]
        for opened in queue.stores:
            opened.close()

    asyncio.run(run())


@on_both_stores
async def test_a_batch_that_was_not_stored_is_settled_as_such_and_can_be_sent_again(queue: Queue) -> None:
    store = await queue.server()
    await queue.submit(store, {})
    batch = queue.batch({})
    batch.sent_as = (store.lease, 2)
    assert await store.settle_batch(batch) is None
    assert await store.settle_batch(batch) is None
    if isinstance(store, PostgresStore):  # the number is used up: a statement that is still on its way cannot store it
        with pytest.raises(StoreUnavailable, match="batch 2 of lease"):
            await store.submit_jobs(batch)
        await store.connect()
    assert len(await store.submit_jobs(batch)) == 1


@on_both_stores
async def test_limits_are_set_and_taken_away(queue: Queue) -> None:
    store = await queue.server()
    assert await store.set_limits(b"f", 1, 2, 3)
    assert await queue.notification() == "functions"
    assert (await store.ensure_functions([b"f"]))[0].limits == (1, 2, 3)
    assert await store.set_limits(b"f", 0, -5, 3)
    assert (await store.ensure_functions([b"f"]))[0].limits == (None, None, 3)


@on_both_stores
async def test_limits_of_an_unknown_function_are_refused(queue: Queue) -> None:
    store = await queue.server()
    assert not await store.set_limits(b"nobody", 1, 1, 1)


@on_both_stores
async def test_a_function_without_jobs_is_dropped(queue: Queue) -> None:
    store = await queue.server()
    await store.set_limits(b"f", 1, 2, 3)
    assert await store.drop_function(b"f") == "dropped"
    assert await store.count_jobs() == []
    assert await store.drop_function(b"f") == "missing"
    assert not await store.set_limits(b"f", 1, 1, 1)


@on_both_stores
async def test_a_function_that_never_was_is_missing(queue: Queue) -> None:
    store = await queue.server()
    assert await store.drop_function(b"nobody") == "missing"


@on_both_stores
async def test_a_function_with_jobs_in_any_state_is_in_use(queue: Queue) -> None:
    store = await queue.server()
    for job in ({}, {"claim": True}, {"run_at": queue.now() + 60}):
        (job_id,) = await queue.submit(store, job)
        assert await store.drop_function(b"f") == "in use", job
        await store.cancel_job(job_id)


@on_both_stores
async def test_a_dropped_function_comes_back_without_limits_under_its_id(queue: Queue) -> None:
    store = await queue.server()
    function_id = queue.functions[b"f"].id
    await store.set_limits(b"f", 1, 2, 3)
    await store.drop_function(b"f")
    (row,) = await store.ensure_functions([b"f"])
    assert (row.id, row.limits) == (function_id, (None, None, None))
