"""The store in plain Python, for tests and the simulation: what sql/functions do, without a database.

``MemoryQueue`` stands for the database: several ``MemoryStore``, each with a lease, may share one. Its clock is ``now``, set by
the caller. Every method finishes at once. Not here: durability, and the waiting of one transaction for another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import sha512
from typing import Final

from postgear.errors import StoreError, StoreUnavailable
from postgear.job import (
    ClaimedJob,
    Durability,
    Ending,
    FunctionCount,
    FunctionRow,
    JoinedJob,
    Lane,
    ListedJob,
    StoredStatus,
    SubmitBatch,
)

ATTEMPT_MAX: Final = 32767
REAP_SECONDS: Final = 1.5
RESULTS_EXPIRED: Final = 50
"""At most so many results are deleted a call."""


@dataclass
class MemoryJob:
    """A row of ``postgear.job``."""

    id: int
    function_id: int
    priority: int
    unique_key: bytes | None
    workload: bytes
    reducer: bytes | None
    run_at: float | None
    lease: int | None
    attempt: int
    progress: tuple[int, int] | None = None
    until_claimed: bool = False

    @property
    def is_queued(self) -> bool:
        """Whether it can be claimed."""
        return self.lease is None and self.run_at is None

    def claim(self, lease: int) -> None:
        """Give it to a server."""
        self.lease, self.attempt = lease, min(self.attempt + 1, ATTEMPT_MAX)
        if self.until_claimed:
            self.unique_key = None

    def release(self) -> None:
        """Take it from its server; its id keeps its place."""
        self.lease = self.progress = None


@dataclass
class MemoryFunction:
    """A row of ``postgear.function``."""

    id: int
    name: bytes
    limits: tuple[int | None, int | None, int | None] = (None, None, None)
    dropped: bool = False
    durability: Durability = Durability.REPLICATED
    keep_seconds: float | None = None


@dataclass
class MemoryServer:
    """A row of ``postgear.server``. is_locked: its session, which holds the advisory lock, lives."""

    lease_seconds: float
    renewed_at: float
    is_locked: bool = True
    sleeping: bool = False


@dataclass
class MemoryQueue:
    """The tables. now: epoch seconds. jobs: by id, ascending."""

    name: str = "test"
    now: float = 0.0
    jobs: dict[int, MemoryJob] = field(default_factory=dict)
    functions: dict[bytes, MemoryFunction] = field(default_factory=dict)
    servers: dict[int, MemoryServer] = field(default_factory=dict)
    results: dict[int, tuple[Ending, float]] = field(default_factory=dict)
    """By job, until a time."""
    batches: dict[int, tuple[SubmitBatch, tuple[int, int], Sequence[int]]] = field(default_factory=dict)
    listeners: list[Callable[[str], None]] = field(default_factory=list)
    last_job: int = 0
    last_lease: int = 0

    def notify(self, payload: str) -> None:
        """Tell all servers."""
        for listener in self.listeners:
            listener(payload)

    def wake_servers(self) -> None:
        """Tell the servers that sleep, if any does."""
        if any(server.sleeping for server in self.servers.values()):
            self.notify("wake")

    def find(self, function_id: int | None, key: bytes) -> MemoryJob | None:
        """Return the job with this key, of this function or of any."""
        for job in self.jobs.values():
            if job.unique_key == key and function_id in (None, job.function_id):
                return job
        return None

    def count(self, function_id: int) -> int:
        """Return how many jobs a function has, in any state."""
        return sum(job.function_id == function_id for job in self.jobs.values())

    def submit_coalesced(self, function_id: int, key: bytes, workload: bytes) -> int:
        """Do what the SQL function of this name does for a job of normal priority that is due; returns its id."""
        key = b"t" + sha512(b"key:" + key).digest()
        job = self.find(function_id, key)
        if job is None:
            self.last_job += 1
            job = MemoryJob(self.last_job, function_id, 1, key, workload, None, None, None, 0, until_claimed=True)
            self.jobs[job.id] = job
        job.workload = workload
        self.wake_servers()
        return job.id

    def end_lease(self, lease: int) -> int:
        """End a lease and release what it holds."""
        self.servers.pop(lease, None)
        held = [job for job in self.jobs.values() if job.lease == lease]
        for job in held:
            job.release()
        if held:
            self.wake_servers()
        return len(held)


class MemoryStore:
    """See ``base.Store``."""

    def __init__(self, queue: MemoryQueue, on_notify: Callable[[str], None] | None = None) -> None:
        self.lease = 0
        self.queue_name = ""
        self._queue = queue
        self._on_notify = on_notify
        self._is_open = False

    async def connect(self) -> None:
        """Open, at first or again after ``close``."""
        self._is_open = True
        if self._on_notify is not None:
            self._queue.listeners.append(self._on_notify)

    def close(self) -> None:
        """Close: calls fail, and the session that proves the lease alive ends."""
        self._is_open = False
        if self._on_notify in self._queue.listeners:
            self._queue.listeners.remove(self._on_notify)
        if self.lease in self._queue.servers:
            self._queue.servers[self.lease].is_locked = False

    async def ensure_functions(self, names: Sequence[bytes]) -> list[FunctionRow]:
        """See ``base.Store``."""
        queue = self._open()
        rows = []
        for name in names:
            function = queue.functions.setdefault(name, MemoryFunction(len(queue.functions) + 1, name))
            function.dropped = False
            has_uniques = any(job.function_id == function.id and job.unique_key for job in queue.jobs.values())
            switches = has_uniques, function.durability, function.keep_seconds is not None
            rows.append(FunctionRow(name, function.id, function.limits, *switches))
        return rows

    async def submit_jobs(self, batch: SubmitBatch) -> Sequence[int]:
        """See ``base.Store``."""
        queue = self._open()
        batch.sent_as = (self.lease, batch.sent_as[1] + 1)
        if any(batch.claims[position] and run_at > queue.now for position, run_at in batch.run_ats.items()):
            raise StoreError("a scheduled job cannot be born claimed")
        limits = {function.id: function.limits for function in queue.functions.values()}
        ids = []
        for position, function in enumerate(batch.functions):
            key = batch.unique_keys[position]
            present = queue.find(function.id, key) if key else None
            if present is not None:
                ids.append(-present.id)
                continue
            limit = limits[function.id][batch.priorities[position]]
            if limit is not None and queue.count(function.id) >= limit:
                ids.append(0)
                continue
            queue.last_job += 1
            ids.append(queue.last_job)
            run_at = batch.run_ats.get(position, 0)
            claim = batch.claims[position]
            queue.jobs[queue.last_job] = MemoryJob(
                id=queue.last_job,
                function_id=function.id,
                priority=batch.priorities[position],
                unique_key=key or None,
                workload=batch.workloads[position],
                reducer=batch.reducers.get(position),
                run_at=run_at if run_at > queue.now else None,
                lease=self.lease if claim else None,
                attempt=int(claim),
            )
        if not all(batch.claims):
            queue.wake_servers()
        queue.batches[self.lease] = batch, batch.sent_as, ids
        return ids

    async def settle_batch(self, batch: SubmitBatch) -> Sequence[int] | None:
        """See ``base.Store``."""
        last, sent_as, ids = self._open().batches.get(batch.sent_as[0], (None, (0, 0), []))
        return ids if last is batch and sent_as == batch.sent_as else None

    async def claim_jobs(self, lanes: Sequence[Lane], max_bytes: int, max_jobs: int | None = None) -> list[ClaimedJob]:
        """See ``base.Store``."""
        queue = self._open()
        if self.lease not in queue.servers:
            return []
        candidates: list[MemoryJob] = []
        for lane in sorted(lanes, key=lambda lane: lane.priority):
            queued = (job for job in queue.jobs.values() if job.is_queued)
            fitting = [job for job in queued if (job.function_id, job.priority) == (lane.function_id, lane.priority)]
            candidates += fitting[: lane.wanted]
        claimed: list[MemoryJob] = []
        size_bytes = 0
        for job in candidates[:max_jobs]:
            if size_bytes >= max_bytes:
                break
            size_bytes += len(job.workload)
            job.claim(self.lease)
            claimed.append(job)
        claimed.sort(key=lambda job: (job.priority, job.id))
        return [
            ClaimedJob(job.id, job.function_id, job.priority, job.attempt, job.unique_key, job.reducer, job.workload)
            for job in claimed
        ]

    async def claim_unique(self, function_id: int, key: bytes) -> JoinedJob | None:
        """See ``base.Store``."""
        queue = self._open()
        job = queue.find(function_id, key)
        if job is None:
            return None
        if not job.is_queued or self.lease not in queue.servers:
            return JoinedJob(job.id, False, 0, 0, None, b"")
        job.claim(self.lease)
        return JoinedJob(job.id, True, job.priority, job.attempt, job.reducer, job.workload)

    async def finish_jobs(self, ids: Sequence[int]) -> list[int]:
        """See ``base.Store``."""
        queue = self._open()
        held = {job.id for job in self._held(ids)}
        for job_id in held:
            del queue.jobs[job_id]
        return [job_id for job_id in ids if job_id not in held]

    async def finish_with_results(self, results: dict[int, Ending]) -> list[int]:
        """See ``base.Store``."""
        queue = self._open()
        keep_seconds = {function.id: function.keep_seconds for function in queue.functions.values()}
        for job in self._held(list(results)):
            seconds = keep_seconds[job.function_id]
            if seconds is not None:
                ending = results[job.id]
                queue.results[job.id] = Ending(ending.is_completed, ending.kept_data), queue.now + seconds
        return await self.finish_jobs(list(results))

    async def expire_results(self) -> bool:
        """See ``base.Store``."""
        queue = self._open()
        expired = [job_id for job_id, (_, until) in queue.results.items() if until <= queue.now][:RESULTS_EXPIRED]
        for job_id in expired:
            del queue.results[job_id]
        return len(expired) == RESULTS_EXPIRED

    async def release_jobs(self, ids: Sequence[int], *, given_out: bool) -> None:
        """See ``base.Store``."""
        queue = self._open()
        held = self._held(ids)
        for job in held:
            job.release()
            job.attempt = max(job.attempt - (not given_out), 0)
        if held:
            queue.wake_servers()

    async def postpone_jobs(self, seconds: dict[int, float]) -> None:
        """See ``base.Store``."""
        queue = self._open()
        held = self._held(list(seconds))
        for job in held:
            job.release()
            if seconds[job.id] > 0:
                job.run_at = queue.now + seconds[job.id]
        if held:
            queue.wake_servers()

    async def release_others(self, held: Sequence[int]) -> list[int]:
        """See ``base.Store``."""
        queue = self._open()
        for job in queue.jobs.values():
            if job.lease == self.lease and job.id not in held:
                job.release()
        return [job_id for job_id in held if not self._held([job_id])]

    async def cancel_job(self, job_id: int) -> bool:
        """See ``base.Store``."""
        queue = self._open()
        if queue.jobs.pop(job_id, None) is None:
            return False
        queue.notify(f"cancel {job_id}")
        return True

    async def promote_jobs(self) -> float | None:
        """See ``base.Store``."""
        queue = self._open()
        scheduled = sorted((job.run_at, job.id) for job in queue.jobs.values() if job.run_at is not None)
        due = [job_id for run_at, job_id in scheduled if run_at <= queue.now][:1000]
        for job_id in due:
            queue.jobs[job_id].run_at = None
        if due:
            queue.wake_servers()
        left = scheduled[len(due) :]
        return max(left[0][0] - queue.now, 0.0) if left else None

    async def record_attempts(self, attempts: dict[int, int]) -> None:
        """See ``base.Store``."""
        self._open()
        for job in self._held(list(attempts)):
            job.attempt = max(job.attempt, attempts[job.id])

    async def record_progress(self, progress: dict[int, tuple[int, int]]) -> None:
        """See ``base.Store``."""
        self._open()
        for job in self._held(list(progress)):
            job.progress = progress[job.id]

    async def job_status(self, job_id: int | None, key: bytes | None) -> StoredStatus | None:
        """See ``base.Store``."""
        queue = self._open()
        job = queue.jobs.get(job_id or 0) or (queue.find(None, key) if key else None)
        if job is None:
            return None
        return StoredStatus(job.id, job.lease is not None, *(job.progress or (0, 0)))

    async def count_jobs(self) -> list[FunctionCount]:
        """See ``base.Store``."""
        queue = self._open()
        rows = []
        for function in sorted(queue.functions.values(), key=lambda function: function.name):
            jobs = [job for job in queue.jobs.values() if job.function_id == function.id]
            waiting = [job.priority for job in jobs if job.lease is None]
            if jobs or not function.dropped:
                by_priority = (waiting.count(0), waiting.count(1), waiting.count(2))
                own = sum(job.lease == self.lease for job in jobs)
                rows.append(FunctionCount(function.name, *by_priority, len(jobs) - len(waiting), own))
        return rows

    async def is_full(self, function_id: int, limit: int) -> bool:
        """See ``base.Store``."""
        return self._open().count(function_id) >= limit

    async def list_jobs(self, after_id: int, limit: int) -> list[ListedJob]:
        """See ``base.Store``."""
        page = [job for job in self._open().jobs.values() if job.id > after_id][:limit]
        return [ListedJob(job.id, job.attempt, job.lease is not None, job.unique_key) for job in page]

    async def set_limits(self, name: bytes, high: int, normal: int, low: int) -> bool:
        """See ``base.Store``."""
        queue = self._open()
        function = queue.functions.get(name)
        if function is None or function.dropped:
            return False
        function.limits = (high if high > 0 else None, normal if normal > 0 else None, low if low > 0 else None)
        queue.notify("functions")
        return True

    async def drop_function(self, name: bytes) -> str:
        """See ``base.Store``."""
        queue = self._open()
        function = queue.functions.get(name)
        if function is None or function.dropped:
            return "missing"
        if queue.count(function.id):
            return "in use"
        function.dropped, function.limits = True, (None, None, None)
        return "dropped"

    async def register_server(self, name: str, address: str, pid: int, version: str, lease_seconds: float) -> None:
        """See ``base.Store``."""
        queue = self._open()
        queue.last_lease += 1
        self.lease = queue.last_lease
        self.queue_name = queue.name
        queue.servers[self.lease] = MemoryServer(lease_seconds, queue.now)

    async def register_worker(
        self, name: str, host: str, pid: int, version: str, lease_seconds: float, functions: Sequence[bytes]
    ) -> None:
        """See ``base.Store``."""
        await self.register_server(name, "", pid, version, lease_seconds)

    async def set_functions(self, functions: Sequence[bytes]) -> None:
        """See ``base.Store``. Nothing here shows them."""
        self._open()

    async def renew_lease(self, *, sleeping: bool, duties_seconds: float | None = None) -> bool:
        """See ``base.Store``. Nothing here shows the duties."""
        queue = self._open()
        server = queue.servers.get(self.lease)
        if server is None:
            return False
        server.renewed_at, server.is_locked, server.sleeping = queue.now, True, sleeping
        return True

    async def end_lease(self) -> None:
        """See ``base.Store``."""
        self._open().end_lease(self.lease)

    async def reap_leases(self) -> list[tuple[int, int]]:
        """See ``base.Store``."""
        queue = self._open()
        dead = set()
        for lease, server in queue.servers.items():
            silent = queue.now - server.renewed_at
            if silent > REAP_SECONDS and (silent > server.lease_seconds or not server.is_locked):
                dead.add(lease)
        dead.update(job.lease for job in queue.jobs.values() if job.lease is not None and job.lease not in queue.servers)
        return [(lease, queue.end_lease(lease)) for lease in sorted(dead)]

    def _open(self) -> MemoryQueue:
        if not self._is_open:
            raise StoreUnavailable("the database connection is down")
        return self._queue

    def _held(self, ids: Sequence[int]) -> list[MemoryJob]:
        found = (self._queue.jobs.get(job_id) for job_id in dict.fromkeys(ids))
        return [job for job in found if job is not None and job.lease == self.lease]
