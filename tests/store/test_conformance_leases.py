"""What every store must do, asked of both: leases, wake-ups, and what people see."""

from __future__ import annotations

import pytest

from postgear.errors import StoreUnavailable
from postgear.job import FunctionCount, ListedJob
from tests.store.both_stores import HIGH, LEASE_SECONDS, LOW, Queue, on_both_stores

# -- what people see -------------------------------------------------------------------------------------------------


@on_both_stores
async def test_jobs_are_counted_by_function_priority_and_state(queue: Queue) -> None:
    store = await queue.server()
    await queue.function(store, b"empty")
    await queue.function(store, b"g")
    await queue.submit(
        store,
        {"priority": HIGH},
        {"priority": HIGH, "claim": True},
        {"run_at": queue.now() + 60},
        {},
        {"priority": LOW, "function": b"g"},
        {"claim": True, "function": b"g"},
        {"claim": True, "function": b"g"},
    )
    assert await store.count_jobs() == [
        FunctionCount(b"empty", 0, 0, 0, 0, 0),
        FunctionCount(b"f", 1, 2, 0, 1, 1),
        FunctionCount(b"g", 0, 0, 1, 2, 2),
    ]


@on_both_stores
async def test_attempts_made_from_memory_are_counted(queue: Queue) -> None:
    store, other = await queue.server("a"), await queue.server("b")
    ids = await queue.submit(store, {"claim": True}, {"claim": True}, {})
    await store.record_attempts({ids[0]: 3, ids[2]: 3})
    await store.record_attempts({ids[0]: 2})  # an older count
    await other.record_attempts({ids[1]: 9})
    assert [job.attempt for job in await store.list_jobs(0, 9)] == [3, 1, 0]
    await store.release_jobs([ids[0]], given_out=True)
    assert [job.attempt for job in await store.list_jobs(0, 1)] == [3]


@on_both_stores
async def test_jobs_are_listed_in_pages(queue: Queue) -> None:
    store = await queue.server()
    ids = await queue.submit(store, {"key": b"k"}, {"claim": True}, {"run_at": queue.now() + 60})
    first = await store.list_jobs(0, 2)
    assert first == [ListedJob(ids[0], 0, False, b"k"), ListedJob(ids[1], 1, True, None)]
    assert await store.list_jobs(first[-1].id, 2) == [ListedJob(ids[2], 0, False, None)]
    assert await store.list_jobs(ids[2], 2) == []


@on_both_stores
async def test_status_is_known_by_id_and_by_key(queue: Queue) -> None:
    store = await queue.server()
    queued, running = await queue.submit(store, {"key": b"q"}, {"key": b"r", "claim": True})
    await store.record_progress({running: (3, 2**62), queued: (1, 1), 12345: (1, 1)})
    assert await store.job_status(queued, None) == (queued, False, 0, 0)
    assert await store.job_status(running, None) == (running, True, 3, 2**62)
    assert await store.job_status(None, b"q") == (queued, False, 0, 0)
    assert await store.job_status(None, b"r") == (running, True, 3, 2**62)
    assert await store.job_status(12345, None) is None
    assert await store.job_status(None, b"nothing") is None


@on_both_stores
async def test_progress_goes_with_the_worker(queue: Queue) -> None:
    store = await queue.server()
    (job_id,) = await queue.submit(store, {"claim": True})
    await store.record_progress({job_id: (1, 2)})
    await store.release_jobs([job_id], given_out=True)
    assert await store.job_status(job_id, None) == (job_id, False, 0, 0)


@on_both_stores
async def test_progress_of_a_job_that_another_server_holds_is_ignored(queue: Queue) -> None:
    store, other = await queue.server("a"), await queue.server("b")
    (job_id,) = await queue.submit(store, {"claim": True})
    await other.record_progress({job_id: (1, 2)})
    assert await store.job_status(job_id, None) == (job_id, True, 0, 0)


# -- leases ----------------------------------------------------------------------------------------------------------


@on_both_stores
async def test_each_start_gets_a_new_lease_and_the_queue_name(queue: Queue) -> None:
    first, second = await queue.server("a"), await queue.server("a")
    assert 0 < first.lease < second.lease
    assert first.queue_name == "test"
    await second.end_lease()
    third = await queue.server("a")
    assert third.lease > second.lease


@on_both_stores
async def test_the_end_of_a_lease_releases_its_jobs_and_their_attempts_count(queue: Queue) -> None:
    store, other = await queue.server("a"), await queue.server("b")
    (job_id,) = await queue.submit(store, {"claim": True})
    await store.record_progress({job_id: (1, 2)})
    await store.end_lease()
    assert not await store.renew_lease(sleeping=False)
    assert await other.job_status(job_id, None) == (job_id, False, 0, 0)
    (job,) = await queue.claim(other)
    assert (job.id, job.attempt) == (job_id, 2)


@on_both_stores
async def test_a_live_lease_is_not_reaped(queue: Queue) -> None:
    _store, other = await queue.server("a"), await queue.server("b")
    assert await other.reap_leases() == []
    queue.pass_time(LEASE_SECONDS - 5)
    await other.renew_lease(sleeping=False)
    assert await other.reap_leases() == []


@on_both_stores
async def test_a_lease_that_was_not_renewed_is_reaped_when_it_expires(queue: Queue) -> None:
    store, other = await queue.server("a"), await queue.server("b")
    await queue.submit(store, {"claim": True}, {"claim": True}, {})
    queue.pass_time(LEASE_SECONDS + 1)
    await other.renew_lease(sleeping=False)
    assert await other.reap_leases() == [(store.lease, 2)]
    assert not await store.renew_lease(sleeping=False)
    assert len(await queue.claim(other)) == 3


@on_both_stores
async def test_a_lease_whose_session_ended_is_reaped_after_a_moment(queue: Queue) -> None:
    store, other = await queue.server("a"), await queue.server("b")
    (job_id,) = await queue.submit(store, {"claim": True})
    queue.kill_session(store)
    assert await other.reap_leases() == []
    queue.pass_time(2)
    assert await other.reap_leases() == [(store.lease, 1)]
    assert await queue.claimed_ids(other) == [job_id]


@on_both_stores
async def test_a_lease_renewed_on_a_new_session_lives_on(queue: Queue) -> None:
    store, other = await queue.server("a"), await queue.server("b")
    queue.kill_session(store)
    queue.pass_time(2)
    store.close()
    await store.connect()
    assert await store.renew_lease(sleeping=False)
    queue.pass_time(2)
    assert await other.reap_leases() == []


@on_both_stores
async def test_orphans_of_an_unregistered_lease_are_reaped(queue: Queue) -> None:
    store, other = await queue.server("a"), await queue.server("b")
    await store.end_lease()
    ids = await queue.submit(store, {"claim": True}, {"claim": True})
    assert await other.reap_leases() == [(store.lease, 2)]
    assert await queue.claimed_ids(other) == list(ids)


@on_both_stores
async def test_a_closed_store_is_unavailable(queue: Queue) -> None:
    store = await queue.server()
    store.close()
    with pytest.raises(StoreUnavailable):
        await store.list_jobs(0, 1)


# -- wake-ups --------------------------------------------------------------------------------------------------------


@on_both_stores
async def test_nobody_is_notified_while_all_servers_are_awake(queue: Queue) -> None:
    store = await queue.server()
    (job_id,) = await queue.submit(store, {})
    await store.cancel_job(job_id)
    assert await queue.notification() == f"cancel {job_id}"


@on_both_stores
async def test_a_sleeping_server_is_notified_of_submitted_released_and_due_jobs(queue: Queue) -> None:
    store = await queue.server()
    await store.renew_lease(sleeping=True)
    (job_id,) = await queue.submit(store, {})
    assert await queue.notification() == "wake"
    await queue.claim(store)
    await store.release_jobs([job_id], given_out=True)
    assert await queue.notification() == "wake"
    await queue.submit(store, {"run_at": queue.now() + 60})
    assert await queue.notification() == "wake"
    queue.pass_time(100)
    await store.promote_jobs()
    assert await queue.notification() == "wake"


@on_both_stores
async def test_a_sleeping_server_is_notified_of_the_jobs_of_a_dead_one(queue: Queue) -> None:
    store, other = await queue.server("a"), await queue.server("b")
    await queue.submit(store, {"claim": True})
    queue.pass_time(LEASE_SECONDS + 1)
    await other.renew_lease(sleeping=True)
    await other.reap_leases()
    assert await queue.notification() == "wake"


@on_both_stores
async def test_born_claimed_jobs_wake_nobody(queue: Queue) -> None:
    store = await queue.server()
    await store.renew_lease(sleeping=True)
    (job_id,) = await queue.submit(store, {"claim": True})
    await store.cancel_job(job_id)
    assert await queue.notification() == f"cancel {job_id}"
