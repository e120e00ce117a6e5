"""What every store must do, asked of both: submits, schedules and keys."""

from __future__ import annotations

import psycopg
import pytest

from postgear.errors import StoreError
from postgear.job import ListedJob
from tests.store.both_stores import HIGH, LOW, NORMAL, Queue, on_both_stores

# -- submit ----------------------------------------------------------------------------------------------------------


@on_both_stores
async def test_ids_come_in_the_order_of_the_batch(queue: Queue) -> None:
    store = await queue.server()
    ids = await queue.submit(store, *({"workload": b"%d" % n, "priority": n % 3} for n in range(50)))
    assert list(ids) == sorted(ids)
    workloads = {job.id: job.workload for priority in (0, 1, 2) for job in await queue.claim(store, 100, priority)}
    assert [workloads[job_id] for job_id in ids] == [b"%d" % n for n in range(50)]


@on_both_stores
async def test_a_workload_and_a_reducer_are_kept_byte_for_byte(queue: Queue) -> None:
    store = await queue.server()
    everything = bytes(range(256)) * 10
    await queue.submit(
        store,
        {"workload": everything, "reducer": b"sum", "key": b"k" * 64},
        {"workload": b"", "reducer": b""},
        {"workload": b"x"},
    )
    jobs = await queue.claim(store)
    assert [(job.workload, job.reducer, job.unique_key) for job in jobs] == [
        (everything, b"sum", b"k" * 64),
        (b"", b"", None),
        (b"x", None, None),
    ]


@on_both_stores
async def test_a_key_coalesces_within_a_batch(queue: Queue) -> None:
    store = await queue.server()
    first, second, other = await queue.submit(store, {"key": b"k"}, {"key": b"k"}, {"key": b"l"})
    assert second == -first
    assert other > 0
    assert await queue.claimed_ids(store) == [first, other]


@on_both_stores
async def test_a_key_coalesces_with_a_queued_a_claimed_and_a_scheduled_job(queue: Queue) -> None:
    store = await queue.server()
    jobs = ({"key": b"q"}, {"key": b"c", "claim": True}, {"key": b"s", "run_at": queue.now() + 60})
    ids = await queue.submit(store, *jobs)
    assert list(await queue.submit(store, {"key": b"q"}, {"key": b"c"}, {"key": b"s"})) == [-job_id for job_id in ids]


@on_both_stores
async def test_a_coalesced_job_keeps_the_first_workload_and_priority(queue: Queue) -> None:
    store = await queue.server()
    await queue.submit(store, {"key": b"k", "workload": b"first", "priority": LOW})
    await queue.submit(store, {"key": b"k", "workload": b"second", "priority": HIGH, "claim": True})
    (job,) = await queue.claim(store, priority=LOW)
    assert (job.workload, job.attempt) == (b"first", 1)


@on_both_stores
async def test_the_same_key_in_two_functions_is_two_jobs(queue: Queue) -> None:
    store = await queue.server()
    await queue.function(store, b"g")
    assert min(await queue.submit(store, {"key": b"k"}, {"key": b"k", "function": b"g"})) > 0


@on_both_stores
async def test_jobs_without_a_key_never_coalesce(queue: Queue) -> None:
    store = await queue.server()
    assert min(await queue.submit(store, {}, {}, {"key": b"k"}, {})) > 0


@on_both_stores
async def test_a_key_is_free_again_after_finish_and_after_cancel(queue: Queue) -> None:
    store = await queue.server()
    (first,) = await queue.submit(store, {"key": b"k", "claim": True})
    await store.finish_jobs([first])
    (second,) = await queue.submit(store, {"key": b"k"})
    assert second > first
    await store.cancel_job(second)
    (third,) = await queue.submit(store, {"key": b"k"})
    assert third > second


@on_both_stores
async def test_a_full_queue_refuses_with_zero(queue: Queue) -> None:
    store = await queue.server()
    await store.set_limits(b"f", 0, 2, 0)
    first, second, third = await queue.submit(store, {}, {}, {})
    assert min(first, second) > 0
    assert third == 0


@on_both_stores
async def test_jobs_of_every_priority_and_state_count_for_a_limit(queue: Queue) -> None:
    store = await queue.server()
    await store.set_limits(b"f", 0, 3, 0)
    ids = await queue.submit(store, {"priority": HIGH}, {"priority": LOW, "claim": True}, {"run_at": queue.now() + 60}, {})
    assert [job_id > 0 for job_id in ids] == [True, True, True, False]
    assert (await queue.submit(store, {"priority": HIGH}))[0] > 0


@on_both_stores
async def test_a_full_queue_still_coalesces(queue: Queue) -> None:
    store = await queue.server()
    await store.set_limits(b"f", 0, 1, 0)
    (job_id,) = await queue.submit(store, {"key": b"k"})
    assert list(await queue.submit(store, {"key": b"k"}, {"key": b"l"})) == [-job_id, 0]


@on_both_stores
async def test_a_limit_of_one_function_does_not_bind_another(queue: Queue) -> None:
    store = await queue.server()
    await queue.function(store, b"g")
    await store.set_limits(b"g", 1, 1, 1)
    ids = await queue.submit(store, {}, {"function": b"g"}, {}, {"function": b"g"})
    assert [job_id > 0 for job_id in ids] == [True, True, True, False]


@on_both_stores
async def test_each_priority_of_a_batch_has_its_own_limit(queue: Queue) -> None:
    store = await queue.server()
    await store.set_limits(b"f", 3, 2, 1)
    ids = await queue.submit(store, *({"priority": priority} for priority in (LOW, LOW, NORMAL, NORMAL, HIGH, HIGH, LOW)))
    assert [job_id > 0 for job_id in ids] == [True, False, True, False, True, False, False]


@on_both_stores
async def test_priorities_without_a_limit_count_for_those_that_have_one(queue: Queue) -> None:
    store = await queue.server()
    await store.set_limits(b"f", 0, 2, 0)
    ids = await queue.submit(store, {"priority": LOW}, {"priority": HIGH}, {"priority": HIGH}, {}, {"priority": LOW})
    assert [job_id > 0 for job_id in ids] == [True, True, True, False, True]


@on_both_stores
async def test_only_added_jobs_count_within_a_batch(queue: Queue) -> None:
    store = await queue.server()
    await queue.function(store, b"g")
    await store.set_limits(b"f", 0, 2, 0)
    (first,) = await queue.submit(store, {"key": b"k"})
    ids = await queue.submit(store, {"key": b"k"}, {"function": b"g"}, {"key": b"l"}, {"key": b"k"}, {"key": b"m"})
    assert [ids[0], ids[3], ids[4]] == [-first, -first, 0]
    assert min(ids[1], ids[2]) > 0


@on_both_stores
async def test_is_full_counts_jobs_of_every_priority_and_state(queue: Queue) -> None:
    store = await queue.server()
    await queue.submit(store, {"priority": HIGH}, {"claim": True}, {"run_at": queue.now() + 60})
    function_id = queue.functions[b"f"].id
    assert await store.is_full(function_id, 3)
    assert not await store.is_full(function_id, 4)


@on_both_stores
async def test_a_job_is_born_claimed(queue: Queue) -> None:
    store = await queue.server()
    born, queued = await queue.submit(store, {"claim": True}, {})
    assert await store.list_jobs(0, 10) == [ListedJob(born, 1, True, None), ListedJob(queued, 0, False, None)]
    assert await queue.claimed_ids(store) == [queued]
    assert await store.finish_jobs([born]) == []


@on_both_stores
async def test_a_scheduled_job_cannot_be_born_claimed(queue: Queue) -> None:
    store = await queue.server()
    with pytest.raises(StoreError):
        await queue.submit(store, {}, {"claim": True, "run_at": queue.now() + 60})
    assert await store.list_jobs(0, 10) == []


# -- schedule --------------------------------------------------------------------------------------------------------


@on_both_stores
async def test_a_scheduled_job_waits_for_its_time(queue: Queue) -> None:
    store = await queue.server()
    early, late = await queue.submit(store, {"run_at": queue.now() + 100}, {"run_at": queue.now() + 1000})
    seconds = await store.promote_jobs()
    assert seconds == pytest.approx(100, abs=10)
    assert await queue.claimed_ids(store) == []
    queue.pass_time(500)
    seconds = await store.promote_jobs()
    assert seconds == pytest.approx(500, abs=10)
    assert await queue.claimed_ids(store) == [early]
    queue.pass_time(600)
    assert await store.promote_jobs() is None
    assert await queue.claimed_ids(store) == [late]


@on_both_stores
async def test_a_past_time_means_at_once(queue: Queue) -> None:
    store = await queue.server()
    ids = await queue.submit(store, {"run_at": queue.now() - 100}, {"run_at": 1})
    assert await store.promote_jobs() is None
    assert await queue.claimed_ids(store) == list(ids)


@on_both_stores
async def test_promote_takes_at_most_a_thousand_jobs_a_call(queue: Queue) -> None:
    store = await queue.server()
    await queue.submit(store, *({"run_at": queue.now() + 100} for _ in range(1001)))
    queue.pass_time(200)
    assert await store.promote_jobs() == 0
    assert len(await queue.claimed_ids(store, 2000)) == 1000
    assert await store.promote_jobs() is None
    assert len(await queue.claimed_ids(store, 2000)) == 1


@on_both_stores
async def test_without_scheduled_jobs_promote_says_so(queue: Queue) -> None:
    store = await queue.server()
    await queue.submit(store, {})
    assert await store.promote_jobs() is None


# -- keys that are for queued jobs only ------------------------------------------------------------------------------


def submit_coalesced(queue: Queue, key: bytes, workload: bytes) -> int:
    """Do what a trigger with a key does, for the function f."""
    if queue.dsn is None:
        return queue.memory.submit_coalesced(queue.functions[b"f"].id, key, workload)
    with psycopg.connect(queue.dsn) as connection:
        row = connection.execute("select postgear.submit_coalesced('f', %s, %s)", (key.decode(), workload)).fetchone()
        assert row is not None
        return int(row[0])


@on_both_stores
async def test_a_key_for_queued_jobs_takes_the_newest_workload(queue: Queue) -> None:
    store = await queue.server()
    first = submit_coalesced(queue, b"k", b"old")
    assert submit_coalesced(queue, b"k", b"new") == first
    assert submit_coalesced(queue, b"l", b"other") != first
    assert [job.workload for job in await queue.claim(store)] == [b"new", b"other"]


@on_both_stores
async def test_a_claim_takes_a_key_for_queued_jobs_away(queue: Queue) -> None:
    store = await queue.server()
    first = submit_coalesced(queue, b"k", b"old")
    (claimed,) = await queue.claim(store)
    assert (claimed.id, claimed.unique_key) == (first, None)
    second = submit_coalesced(queue, b"k", b"new")
    assert second != first
    await store.release_jobs([first], given_out=True)
    assert submit_coalesced(queue, b"k", b"newer") == second
    assert [job.workload for job in await queue.claim(store)] == [b"old", b"newer"]


@on_both_stores
async def test_a_key_for_queued_jobs_never_meets_a_unique(queue: Queue) -> None:
    store = await queue.server()
    submitted = await queue.submit(store, {"key": b"k"})
    assert submit_coalesced(queue, b"k", b"x") not in submitted
    joined = await store.claim_unique(queue.functions[b"f"].id, b"k")
    assert joined is not None
    assert [joined.id] == list(submitted)
