"""What every store must do, asked of both: claims and what ends them."""

from __future__ import annotations

from postgear.job import ClaimedJob, JoinedJob, Lane, ListedJob
from tests.store.both_stores import HIGH, LOW, NORMAL, PLENTY_BYTES, Queue, on_both_stores

# -- claim -----------------------------------------------------------------------------------------------------------


@on_both_stores
async def test_a_lane_gives_the_oldest_jobs_up_to_the_number_wanted(queue: Queue) -> None:
    store = await queue.server()
    ids = await queue.submit(store, *({} for _ in range(5)))
    assert await queue.claimed_ids(store, 2) == list(ids[:2])
    assert await queue.claimed_ids(store, 9) == list(ids[2:])
    assert await queue.claimed_ids(store, 9) == []


@on_both_stores
async def test_a_claimed_job_comes_with_all_its_columns(queue: Queue) -> None:
    store = await queue.server()
    (job_id,) = await queue.submit(store, {"priority": HIGH, "key": b"k", "workload": b"w", "reducer": b"r"})
    assert await queue.claim(store, priority=HIGH) == [ClaimedJob(job_id, queue.functions[b"f"].id, HIGH, 1, b"k", b"r", b"w")]


@on_both_stores
async def test_lanes_are_answered_together_by_priority_and_id(queue: Queue) -> None:
    store = await queue.server()
    await queue.function(store, b"g")
    names = [(b"g", LOW), (b"f", LOW), (b"g", HIGH), (b"f", HIGH), (b"f", NORMAL), (b"g", NORMAL), (b"f", HIGH)]
    ids = await queue.submit(store, *({"function": name, "priority": priority} for name, priority in names))
    lanes = [Lane(queue.functions[name].id, priority, 2) for name in (b"f", b"g") for priority in (LOW, HIGH, NORMAL)]
    jobs = await store.claim_jobs(lanes, PLENTY_BYTES)
    assert [(job.priority, job.id) for job in jobs] == sorted(
        (priority, job_id) for (_, priority), job_id in zip(names, ids, strict=True)
    )


@on_both_stores
async def test_lanes_that_were_not_asked_for_stay_queued(queue: Queue) -> None:
    store = await queue.server()
    high, normal = await queue.submit(store, {"priority": HIGH}, {})
    assert await queue.claimed_ids(store, priority=HIGH) == [high]
    assert await queue.claimed_ids(store) == [normal]


@on_both_stores
async def test_max_bytes_cuts_a_claim_after_the_job_that_reaches_it(queue: Queue) -> None:
    store = await queue.server()
    ids = await queue.submit(store, *({"workload": b"x" * 100} for _ in range(5)))
    lanes = [Lane(queue.functions[b"f"].id, NORMAL, 10)]
    assert [job.id for job in await store.claim_jobs(lanes, 150)] == list(ids[:2])
    assert [job.id for job in await store.claim_jobs(lanes, 1)] == [ids[2]]
    assert [job.id for job in await store.claim_jobs(lanes, PLENTY_BYTES)] == list(ids[3:])


@on_both_stores
async def test_max_bytes_spares_high_jobs_before_low_ones(queue: Queue) -> None:
    store = await queue.server()
    _low, high = await queue.submit(store, {"workload": b"x" * 100, "priority": LOW}, {"workload": b"x" * 100, "priority": HIGH})
    lanes = [Lane(queue.functions[b"f"].id, priority, 10) for priority in (LOW, HIGH)]
    assert [job.id for job in await store.claim_jobs(lanes, 100)] == [high]


@on_both_stores
async def test_two_servers_never_claim_the_same_job(queue: Queue) -> None:
    first, second = await queue.server("a"), await queue.server("b")
    ids = await queue.submit(first, *({} for _ in range(4)))
    assert await queue.claimed_ids(first, 2) + await queue.claimed_ids(second, 9) == list(ids)


@on_both_stores
async def test_a_reaped_server_claims_nothing(queue: Queue) -> None:
    store = await queue.server()
    (job_id,) = await queue.submit(store, {"key": b"k"})
    await store.end_lease()
    assert await queue.claim(store) == []
    assert await store.claim_unique(queue.functions[b"f"].id, b"k") == JoinedJob(job_id, False, 0, 0, None, b"")


@on_both_stores
async def test_claim_unique_takes_a_queued_job(queue: Queue) -> None:
    store = await queue.server()
    (job_id,) = await queue.submit(store, {"key": b"k", "priority": LOW, "workload": b"w", "reducer": b"r"})
    assert await store.claim_unique(queue.functions[b"f"].id, b"k") == JoinedJob(job_id, True, LOW, 1, b"r", b"w")
    assert await queue.claimed_ids(store, priority=LOW) == []


@on_both_stores
async def test_claim_unique_only_reports_a_job_that_is_claimed_or_scheduled(queue: Queue) -> None:
    store = await queue.server()
    claimed, scheduled = await queue.submit(store, {"key": b"c", "claim": True}, {"key": b"s", "run_at": queue.now() + 60})
    function_id = queue.functions[b"f"].id
    assert await store.claim_unique(function_id, b"c") == JoinedJob(claimed, False, 0, 0, None, b"")
    assert await store.claim_unique(function_id, b"s") == JoinedJob(scheduled, False, 0, 0, None, b"")


@on_both_stores
async def test_claim_unique_finds_nothing_under_another_key_or_function(queue: Queue) -> None:
    store = await queue.server()
    other = await queue.function(store, b"g")
    await queue.submit(store, {"key": b"k"})
    assert await store.claim_unique(queue.functions[b"f"].id, b"l") is None
    assert await store.claim_unique(other.id, b"k") is None


# -- finish, release, cancel -----------------------------------------------------------------------------------------


@on_both_stores
async def test_finish_deletes_jobs(queue: Queue) -> None:
    store = await queue.server()
    ids = await queue.submit(store, {"claim": True}, {"claim": True}, {})
    assert await store.finish_jobs(ids[:2]) == []
    assert [job.id for job in await store.list_jobs(0, 10)] == [ids[2]]


@on_both_stores
async def test_finish_by_a_stale_lease_changes_nothing_and_says_which(queue: Queue) -> None:
    stale, holder = await queue.server("a"), await queue.server("b")
    lost, own, queued = await queue.submit(stale, {"claim": True}, {"claim": True}, {})
    await stale.release_jobs([lost], given_out=True)
    assert await queue.claimed_ids(holder, 1) == [lost]
    before = await holder.list_jobs(0, 10)
    assert sorted(await stale.finish_jobs([lost, own, queued, 12345])) == sorted([lost, queued, 12345])
    assert await holder.list_jobs(0, 10) == [job for job in before if job.id != own]
    assert await holder.finish_jobs([lost]) == []


@on_both_stores
async def test_finish_twice_is_stale_the_second_time(queue: Queue) -> None:
    store = await queue.server()
    (job_id,) = await queue.submit(store, {"claim": True})
    assert await store.finish_jobs([job_id]) == []
    assert await store.finish_jobs([job_id]) == [job_id]


@on_both_stores
async def test_a_released_job_keeps_its_place(queue: Queue) -> None:
    store = await queue.server()
    ids = await queue.submit(store, *({} for _ in range(3)))
    await queue.claim(store, 2)
    await store.release_jobs([ids[0]], given_out=True)
    assert await queue.claimed_ids(store) == [ids[0], ids[2]]


@on_both_stores
async def test_the_attempt_counts_when_a_worker_had_the_job(queue: Queue) -> None:
    store = await queue.server()
    (job_id,) = await queue.submit(store, {"claim": True})
    await store.release_jobs([job_id], given_out=True)
    (job,) = await queue.claim(store)
    assert job.attempt == 2


@on_both_stores
async def test_the_attempt_does_not_count_when_the_job_never_left_the_server(queue: Queue) -> None:
    store = await queue.server()
    (job_id,) = await queue.submit(store, {})
    for _ in range(3):
        (job,) = await queue.claim(store)
        assert job.attempt == 1
        await store.release_jobs([job_id], given_out=False)


@on_both_stores
async def test_release_by_a_stale_lease_changes_nothing(queue: Queue) -> None:
    stale, holder = await queue.server("a"), await queue.server("b")
    (job_id,) = await queue.submit(holder, {"claim": True})
    await stale.release_jobs([job_id], given_out=False)
    assert await holder.list_jobs(0, 10) == [ListedJob(job_id, 1, True, None)]


@on_both_stores
async def test_a_job_is_cancelled_in_any_state_and_servers_are_told(queue: Queue) -> None:
    store = await queue.server()
    ids = await queue.submit(store, {}, {"claim": True}, {"run_at": queue.now() + 60})
    for job_id in ids:
        assert await store.cancel_job(job_id)
        assert await queue.notification() == f"cancel {job_id}"
    assert await store.list_jobs(0, 10) == []
    assert not await store.cancel_job(ids[0])
    assert await store.finish_jobs([ids[1]]) == [ids[1]]


@on_both_stores
async def test_release_others_frees_what_the_server_does_not_know(queue: Queue) -> None:
    store, other = await queue.server("a"), await queue.server("b")
    known, unknown = await queue.submit(store, {"claim": True}, {"claim": True})
    (foreign,) = await queue.submit(other, {"claim": True})
    assert await store.release_others([known]) == []
    assert [(job.id, job.running, job.attempt) for job in await store.list_jobs(0, 10)] == [
        (known, True, 1),
        (unknown, False, 1),
        (foreign, True, 1),
    ]


@on_both_stores
async def test_release_others_says_what_is_lost(queue: Queue) -> None:
    store, other = await queue.server("a"), await queue.server("b")
    own, cancelled = await queue.submit(store, {"claim": True}, {"claim": True})
    (foreign,) = await queue.submit(other, {"claim": True})
    await store.cancel_job(cancelled)
    assert sorted(await store.release_others([own, cancelled, foreign])) == sorted([cancelled, foreign])
    assert [job.running for job in await store.list_jobs(0, 10)] == [True, True]


@on_both_stores
async def test_release_others_with_nothing_held_frees_all(queue: Queue) -> None:
    store = await queue.server()
    (job_id,) = await queue.submit(store, {"claim": True})
    assert await store.release_others([]) == []
    assert await queue.claimed_ids(store) == [job_id]
