"""A queue of each kind, PostgreSQL's functions and the one in memory, and a decorator that asks a test of both."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import psycopg
import pytest

from postgear.dispatch.peer import Function, Peer
from postgear.job import ClaimedJob, Ending, Lane, SubmitBatch
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

    def keep_results(self, seconds: float | None) -> None:
        """Have f keep the results of its jobs for so long; None: no more."""
        if self.dsn is None:
            self.memory.functions[b"f"].keep_seconds = seconds
            self.memory.notify("functions")
            return
        with psycopg.connect(self.dsn) as connection:
            connection.execute("select postgear.keep_results('f', make_interval(secs => %s))", [seconds])

    def results(self) -> dict[int, Ending]:
        """Return what is kept, by job, be its time over or not."""
        if self.dsn is None:
            return {job_id: result for job_id, (result, _) in self.memory.results.items()}
        with psycopg.connect(self.dsn) as connection:
            rows = connection.execute("select job_id, outcome, result from postgear.result").fetchall()
        return {job_id: Ending(outcome == "completed", result) for job_id, outcome, result in rows}

    def now(self) -> int:
        return int(self.memory.now)

    def pass_time(self, seconds: float) -> None:
        """Make everything in the queue so much older."""
        self.memory.now += seconds
        if self.dsn is not None:
            with psycopg.connect(self.dsn) as connection:
                connection.execute("update postgear.server set renewed_at = renewed_at - make_interval(secs => %s)", [seconds])
                connection.execute("update postgear.result set expires_at = expires_at - make_interval(secs => %s)", [seconds])
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
