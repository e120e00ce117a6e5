"""What every store must do, asked of both: PostgreSQL's functions and the queue in memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import psycopg
import pytest

from postgear.dispatch.peer import Function, Peer
from postgear.errors import StoreError, StoreUnavailable
from postgear.job import ClaimedJob, Durability, FunctionCount, JoinedJob, Lane, ListedJob, SubmitBatch
from postgear.store.base import Store
from postgear.store.memory import MemoryQueue, MemoryStore
from postgear.store.postgres import PostgresStore

HIGH, NORMAL, LOW = 0, 1, 2
PLENTY_BYTES = 1 << 20
LEASE_SECONDS = 30.0


class Queue:
    """A queue of either kind, and its servers."""

    def __init__(self, dsn: str | None) -> None:
        self.dsn = dsn
        self.memory = MemoryQueue(now=time.time())
        self.notified: list[str] = []
        self.stores: list[PostgresStore | MemoryStore] = []
        self.functions: dict[bytes, Function] = {}

    async def open(self, name: str) -> PostgresStore | MemoryStore:
        store: PostgresStore | MemoryStore
        if self.dsn is None:
            store = MemoryStore(self.memory, self.notified.append)
        else:
            store = PostgresStore(self.dsn, name, self.notified.append)
        await store.connect()
        self.stores.append(store)
        return store

    async def server(self, name: str = "a") -> PostgresStore | MemoryStore:
        """Start a server, which knows the function f."""
        store = await self.open(name)
        await store.register_server(name, "127.0.0.1:4730", 1, "test", LEASE_SECONDS)
        await self.function(store, b"f")
        return store

    async def function(self, store: Store, name: bytes) -> Function:
        (row,) = await store.ensure_functions([name])
        function = self.functions.setdefault(name, Function(name))
        function.id = row.id
        return function

    def batch(self, *jobs: dict[str, Any]) -> SubmitBatch:
        """Make a batch of jobs of f: keys priority, key, workload, run_at, reducer, claim, function."""
        batch = SubmitBatch()
        for position, job in enumerate(jobs):
            batch.peers.append(Peer())
            batch.functions.append(self.functions[job.get("function", b"f")])
            batch.priorities.append(job.get("priority", NORMAL))
            batch.unique_keys.append(job.get("key", b""))
            batch.workloads.append(job.get("workload", b"work"))
            batch.claims.append(job.get("claim", False))
            if "run_at" in job:
                batch.run_ats[position] = job["run_at"]
            if "reducer" in job:
                batch.reducers[position] = job["reducer"]
        return batch

    async def submit(self, store: Store, *jobs: dict[str, Any]) -> Sequence[int]:
        return await store.submit_jobs(self.batch(*jobs))

    async def claim(self, store: Store, wanted: int = 100, priority: int = NORMAL, function: bytes = b"f") -> list[ClaimedJob]:
        return await store.claim_jobs([Lane(self.functions[function].id, priority, wanted)], PLENTY_BYTES)

    async def claimed_ids(self, store: Store, wanted: int = 100, priority: int = NORMAL) -> list[int]:
        return [job.id for job in await self.claim(store, wanted, priority)]

    def now(self) -> int:
        return int(self.memory.now)

    def pass_time(self, seconds: float) -> None:
        """Make everything in the queue so much older."""
        self.memory.now += seconds
        if self.dsn is not None:
            with psycopg.connect(self.dsn) as connection:
                connection.execute("update postgear.server set renewed_at = renewed_at - make_interval(secs => %s)", [seconds])
                connection.execute("update postgear.job set run_at = run_at - make_interval(secs => %s)", [seconds])

    def kill_session(self, store: Store, name: str = "a") -> None:
        """End the session that proves the lease alive, as the server's death does."""
        if isinstance(store, MemoryStore):
            store.close()
            return
        assert self.dsn is not None
        with psycopg.connect(self.dsn) as connection:
            connection.execute(
                "select pg_terminate_backend(pid, 10000) from pg_stat_activity where application_name = %s",
                [f"postgear {name} lease"],
            )

    async def notification(self) -> str:
        while not self.notified:
            await asyncio.sleep(0.001)
        return self.notified.pop(0)


def on_both_stores(test: Callable[[Queue], Awaitable[None]]) -> Callable[..., None]:
    """Run a test on a fresh queue of each kind."""

    async def run(dsn: str | None) -> None:
        queue = Queue(dsn)
        try:
            await test(queue)
        finally:
            for store in queue.stores:
                store.close()

    @pytest.mark.parametrize("kind", ["memory", "postgres"])
    def run_test(kind: str, request: pytest.FixtureRequest) -> None:
        asyncio.run(run(request.getfixturevalue("dsn") if kind == "postgres" else None))

    run_test.__name__ = test.__name__
    return run_test


# -- functions -------------------------------------------------------------------------------------------------------


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
