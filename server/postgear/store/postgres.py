"""The store in PostgreSQL: calls of the functions in sql/functions, over a few connections.

Four connections, so that none waits for another's commit: submits, finishes (and releases), claims, and the lease's own, which
must be direct to the server (it keeps the advisory lock and LISTENs); questions of people go over a fifth. Who submits nothing
does without the first.
"""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import Callable, Sequence
from struct import pack
from typing import Final

from psycopg import pq

from postgear.connecting import ANSWER_SECONDS
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
from postgear.logs import event

from . import arrays
from .results import boolean, data, float_or_none, integer, integer_or_none
from .session import Outcome, Session
from .statements import ASK, CLAIM, CLUSTER, FINISH, LEASE, RESOLVE, SUBMIT
from .told import Cluster, Relay, Standby

log = logging.getLogger("postgear.store")

COMMIT_LEVELS: Final = {Durability.REPLICATED: None, Durability.LOCAL: b"local", Durability.RELAXED: b"off"}
"""What each asks of synchronous_commit; None: what the session has, which is never off."""
LOCK_SECONDS: Final = 1
"""How long a batch of submits waits for a transaction of SQL that queues a job with the same unique, and a NOTIFY for others that
commit: all later calls of the session wait, too."""
OLD_SESSION_SECONDS: Final = 2
"""How long the end of a lost connection's statement is waited for before the connections are made anew."""


class PostgresStore:
    """See ``base.Store``. ``on_notify`` gets the payloads of channel ``postgear``; ``on_lost``: a connection broke, and why.

    submits: whether ``submit_jobs`` will be called.
    """

    def __init__(
        self,
        dsn: str,
        name: str,
        on_notify: Callable[[str], None] | None = None,
        on_lost: Callable[[str], None] | None = None,
        *,
        submits: bool = True,
    ) -> None:
        self.lease = 0
        self.queue_name = ""
        lost = on_lost or (lambda reason: None)

        def session(purpose: str, statements: dict[bytes, bytes], lock_seconds: int = 0) -> Session:
            return Session(dsn, f"postgear {name} {purpose}", statements, lost, lock_seconds=lock_seconds)

        self._finish = session("finish", FINISH)
        self._claim = session("claim", CLAIM)
        # Functions are asked for over the connection of submits, for a submit of a new one waits for the answer.
        self._asking = session("ask", ASK if submits else ASK | RESOLVE)
        self._submit = session("submit", SUBMIT | RESOLVE, LOCK_SECONDS) if submits else self._asking
        self._leasing = Session(dsn, f"postgear {name} lease", LEASE, lost, on_notify)
        self._last_hosts: list[tuple[str, str]] = []
        self._batches = 0  # sent by now; numbers go up through all leases of this process
        self._old_pids: set[int] = set()  # of lost connections
        self.cluster: Cluster | None = None
        self.address: dict[str, str] = {}
        """The parameters to connect to the host that the lease is at."""
        self._registered = ("", 0)  # as whom the lease was taken
        self._is_owner = True
        self._leases_of_others: set[int] = set()  # that were this one's on another timeline
        self._sessions = dict.fromkeys((self._submit, self._finish, self._claim, self._asking, self._leasing))

    @property
    def is_open(self) -> bool:
        """Whether all connections are up."""
        return all(session.is_open for session in self._sessions)

    async def connect(self) -> None:
        """Open the connections that are down; what went over the lost ones is over then. Raises StoreUnavailable, SchemaError."""
        down = [session for session in self._sessions if not session.is_open]
        self._old_pids.update(session.backend_pid for session in down)
        results = await asyncio.gather(*(session.connect(self._last_hosts) for session in down), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                if self._leasing in down:
                    await self.listen()
                    await self._know_cluster()
                await self._end_old_sessions()
        except TimeoutError:
            raise StoreUnavailable("the database took our connections, but does not answer") from None

    async def listen(self) -> None:
        """Have ``on_notify`` called with what is sent on channel ``postgear``, as long as the session of the lease lives."""
        await self._leasing.run(b"listen postgear")

    async def notify(self, payload: str) -> None:
        """Send *payload* to all that listen, over another session than listens. Raises StoreLocked after LOCK_SECONDS.

        The commit waits for all others that notify, and with it would this session: one of them may wait for a standby for ever.
        """
        await self._asking.call(b"notify", payload.encode(), b"%d" % (LOCK_SECONDS * 1000), writes=False)

    def put_host_last(self) -> None:
        """Try other hosts of the DSN before the one of these connections from now on: it says that it takes writes, but does not.

        So does a primary that was cut off while its standby was promoted.
        """
        host = self._leasing.host
        self._last_hosts = [*(each for each in self._last_hosts if each != host), host]

    async def _know_cluster(self) -> None:
        """See whether this is still the same PostgreSQL. On another timeline the lease may be another's: see to that.

        Where a standby was promoted that had not got everything, the numbers of leases that were lost are given again.
        """
        result = await self._leasing.run(CLUSTER)
        name, pid = self._registered
        before, cluster = self.cluster, Cluster(*(data(result, 0, column).decode() for column in range(3)))
        if before not in (None, cluster):
            self._old_pids.clear()  # of a postmaster that is gone; here they may be anybody's
        if before is not None and before[:2] != cluster[:2]:
            event(
                log,
                logging.WARNING,
                "database was promoted or replaced",
                timeline=f"{before.timeline}->{cluster.timeline}",
                system=cluster.system,
                is_the_same_system=before.system == cluster.system,
            )
            owner = await self._leasing.call(b"owner_of", pack(">q", self.lease), name.encode(), pack(">i", pid), writes=False)
            self._is_owner = bool(owner.ntuples) and boolean(owner, 0, 0)
            if owner.ntuples and not self._is_owner:
                self._leases_of_others.add(self.lease)
        self.address = self._leasing.address()
        self.cluster = cluster  # last: an attempt that fails before that is made again

    async def _end_old_sessions(self) -> None:
        """End backends of lost connections: one may still be at a statement, and would commit after the caller has settled.

        The role of a session may end its other sessions (PG docs, pg_terminate_backend).
        """
        pids = ", ".join(str(pid) for pid in self._old_pids - {0} - {session.backend_pid for session in self._sessions})
        if pids:
            result = await self._leasing.run(
                b"select coalesce(bool_and(pg_terminate_backend(pid, %d)), true) from pg_stat_activity"
                b" where pid in (%s) and usename = current_user and starts_with(application_name, 'postgear ')"
                % (OLD_SESSION_SECONDS * 1000, pids.encode())
            )
            if result.get_value(0, 0) != b"t":
                raise StoreUnavailable("a statement of a lost connection is still at work in the database")
        self._old_pids.clear()

    def close(self) -> None:
        """Close the connections; calls under way fail."""
        for session in self._sessions:
            session.close()

    async def ensure_functions(self, names: Sequence[bytes]) -> list[FunctionRow]:
        """See ``base.Store``."""
        result = await self._submit.call(b"learn_functions", arrays.bytea_array(names))
        rows = []
        for row in range(result.ntuples):
            limits = (integer_or_none(result, row, 2), integer_or_none(result, row, 3), integer_or_none(result, row, 4))
            durability = Durability[data(result, row, 6).decode().upper()]
            switches = boolean(result, row, 5), durability, boolean(result, row, 7)
            rows.append(FunctionRow(data(result, row, 0), integer(result, row, 1), limits, *switches))
        return rows

    async def submit_jobs(self, batch: SubmitBatch) -> Sequence[int]:
        """See ``base.Store``."""
        ended: asyncio.Future[Sequence[int]] = asyncio.get_running_loop().create_future()

        def done(outcome: Sequence[int] | StoreError) -> None:
            if isinstance(outcome, StoreError):
                ended.set_exception(outcome)
            else:
                ended.set_result(outcome)

        self.start_submit(batch, done)
        return await ended

    def start_submit(
        self, batch: SubmitBatch, done: Callable[[Sequence[int] | StoreError], None], *, around_locks: bool = False
    ) -> None:
        """As ``submit_jobs``; *done* is called with its result or error as soon as that is read, or at once.

        The error is StoreLocked where a job waited too long for a transaction that queues one with the same unique.
        *around_locks*: add the other jobs of such a batch; the number of one that would have to wait is LOCKED.
        """
        length = len(batch)
        self._batches += 1
        batch.sent_as = (self.lease, self._batches)

        def ended(outcome: Outcome) -> None:
            done(outcome if isinstance(outcome, StoreError) else arrays.read_int8_array(outcome.get_value(0, 0)))

        self._submit.start(
            b"submit_jobs_unlocked" if around_locks else b"submit_jobs",
            (
                pack(">q", self.lease),
                arrays.int4_array([function.id for function in batch.functions]),
                arrays.int2_array(batch.priorities),
                arrays.bytea_array(batch.unique_keys, empty_is_null=True),
                arrays.bytea_array(batch.workloads),
                arrays.sparse_int8_array(batch.run_ats, length) if batch.run_ats else None,
                arrays.sparse_bytea_array(batch.reducers, length) if batch.reducers else None,
                arrays.bool_array(batch.claims) if True in batch.claims else None,
                pack(">q", self._batches),
                COMMIT_LEVELS[batch.durability],
            ),
            ended,
        )

    async def settle_batch(self, batch: SubmitBatch) -> Sequence[int] | None:
        """See ``base.Store``."""
        lease, number = batch.sent_as
        if lease in self._leases_of_others:
            return None  # what was stored under it here is theirs, and what was ours went with our row of that number
        ids = (await self._submit.call(b"settle_batch", pack(">q", lease), pack(">q", number))).get_value(0, 0)
        return None if ids is None else arrays.read_int8_array(ids)

    async def has_sync_standby(self, *, asking: bool = False) -> bool:
        """Whether commits wait for a synchronous standby, and one is connected. *asking*: not in the way of submits."""
        session = self._asking if asking else self._submit
        return boolean(await session.call(b"has_sync_standby", writes=False), 0, 0)

    async def standbys(self) -> list[Standby]:
        """Return the standbys that stream."""
        result = await self._asking.call(b"standbys", writes=False)
        return [
            Standby(
                data(result, row, 0).decode(),
                data(result, row, 1).decode() or None,
                data(result, row, 2).decode() or None,
                integer_or_none(result, row, 3),
                float_or_none(result, row, 4),
            )
            for row in range(result.ntuples)
        ]

    async def relays(self) -> list[Relay]:
        """Return the outboxes whose rows relays move here."""
        result = await self._asking.call(b"relays", writes=False)
        return [
            Relay(
                data(result, row, 0).decode(),
                boolean(result, row, 1),
                integer_or_none(result, row, 2),
                float_or_none(result, row, 3),
                float_or_none(result, row, 4),
                integer(result, row, 5),
                integer(result, row, 6),
            )
            for row in range(result.ntuples)
        ]

    async def claim_jobs(self, lanes: Sequence[Lane], max_bytes: int, max_jobs: int | None = None) -> list[ClaimedJob]:
        """See ``base.Store``."""
        result = await self._claim.call(
            b"claim_jobs",
            pack(">q", self.lease),
            arrays.int4_array([lane.function_id for lane in lanes]),
            arrays.int2_array([lane.priority for lane in lanes]),
            arrays.int4_array([lane.wanted for lane in lanes]),
            pack(">q", max_bytes),
            None if max_jobs is None else pack(">i", max_jobs),
        )
        value = result.get_value
        fixed = struct.Struct(">qihh").unpack
        jobs = []
        for row in range(result.ntuples):
            numbers = (value(row, 0) or b"") + (value(row, 1) or b"") + (value(row, 2) or b"") + (value(row, 3) or b"")
            job_id, function_id, priority, attempt = fixed(numbers)
            jobs.append(ClaimedJob(job_id, function_id, priority, attempt, value(row, 4), value(row, 5), value(row, 6) or b""))
        return jobs

    async def claim_unique(self, function_id: int, key: bytes) -> JoinedJob | None:
        """See ``base.Store``."""
        result = await self._claim.call(b"claim_unique", pack(">q", self.lease), pack(">i", function_id), key)
        if not result.ntuples:
            return None
        return JoinedJob(
            integer(result, 0, 0),
            boolean(result, 0, 1),
            integer(result, 0, 2),
            integer(result, 0, 3),
            result.get_value(0, 4),
            data(result, 0, 5),
        )

    async def is_full(self, function_id: int, limit: int) -> bool:
        """See ``base.Store``."""
        return boolean(await self._asking.call(b"is_full", pack(">i", function_id), pack(">i", limit), writes=False), 0, 0)

    async def finish_jobs(self, ids: Sequence[int]) -> list[int]:
        """See ``base.Store``."""
        result = await self._finish.call(b"finish_jobs", pack(">q", self.lease), arrays.int8_array(ids))
        return arrays.read_int8_array(result.get_value(0, 0))

    async def finish_with_results(self, results: dict[int, Ending]) -> list[int]:
        """See ``base.Store``."""
        ended = results.values()
        texts = {position: data for position, each in enumerate(ended) if (data := each.kept_data) is not None}
        result = await self._finish.call(
            b"finish_with_results",
            pack(">q", self.lease),
            arrays.int8_array(list(results)),
            arrays.bool_array([result.is_completed for result in ended]),
            arrays.sparse_bytea_array(texts, len(results)),
        )
        return arrays.read_int8_array(result.get_value(0, 0))

    async def expire_results(self) -> bool:
        """See ``base.Store``."""
        return boolean(await self._asking.call(b"expire_results"), 0, 0)

    async def release_jobs(self, ids: Sequence[int], *, given_out: bool) -> None:
        """See ``base.Store``."""
        await self._finish.call(b"release_jobs", pack(">q", self.lease), arrays.int8_array(ids), pack(">?", given_out))

    async def postpone_jobs(self, seconds: dict[int, float]) -> None:
        """See ``base.Store``."""
        await self._finish.call(
            b"postpone_jobs",
            pack(">q", self.lease),
            arrays.int8_array(list(seconds)),
            arrays.float8_array(list(seconds.values())),
        )

    async def release_others(self, held: Sequence[int]) -> list[int]:
        """See ``base.Store``."""
        result = await self._finish.call(b"release_others", pack(">q", self.lease), arrays.int8_array(held))
        return arrays.read_int8_array(result.get_value(0, 0))

    async def cancel_job(self, job_id: int) -> bool:
        """See ``base.Store``."""
        return boolean(await self._asking.call(b"cancel_job", pack(">q", job_id)), 0, 0)

    async def promote_jobs(self) -> float | None:
        """See ``base.Store``."""
        return float_or_none(await self._claim.call(b"promote_jobs"), 0, 0)

    async def record_attempts(self, attempts: dict[int, int]) -> None:
        """See ``base.Store``."""
        counts = [min(attempt, 32767) for attempt in attempts.values()]
        await self._finish.call(
            b"record_attempts", pack(">q", self.lease), arrays.int8_array(list(attempts)), arrays.int2_array(counts)
        )

    async def record_progress(self, progress: dict[int, tuple[int, int]]) -> None:
        """See ``base.Store``."""
        await self._finish.call(
            b"record_progress",
            pack(">q", self.lease),
            arrays.int8_array(list(progress)),
            arrays.int8_array([numerator for numerator, _ in progress.values()]),
            arrays.int8_array([denominator for _, denominator in progress.values()]),
        )

    async def job_status(self, job_id: int | None, key: bytes | None) -> StoredStatus | None:
        """See ``base.Store``."""
        wanted = None if job_id is None else pack(">q", job_id)
        result = await self._asking.call(b"job_status", wanted, key, writes=False)
        if not result.ntuples or result.get_value(0, 0) is None:
            return None
        return StoredStatus(integer(result, 0, 0), boolean(result, 0, 1), integer(result, 0, 2), integer(result, 0, 3))

    async def ping(self) -> None:
        """Return when the database has answered. Raises StoreError."""
        await self._asking.run(b"select 1")

    async def count_jobs(self) -> list[FunctionCount]:
        """See ``base.Store``."""
        result = await self._asking.call(b"count_jobs", pack(">q", self.lease), writes=False)
        return [
            FunctionCount(data(result, row, 0), *(integer(result, row, column) for column in range(1, 6)))
            for row in range(result.ntuples)
        ]

    async def list_jobs(self, after_id: int, limit: int) -> list[ListedJob]:
        """See ``base.Store``."""
        result = await self._asking.call(b"list_jobs", pack(">q", after_id), pack(">i", limit), writes=False)
        return [
            ListedJob(integer(result, row, 0), integer(result, row, 1), boolean(result, row, 2), result.get_value(row, 3))
            for row in range(result.ntuples)
        ]

    async def set_limits(self, name: bytes, high: int, normal: int, low: int) -> bool:
        """See ``base.Store``."""
        limits = [pack(">i", min(max(limit, 0), 2**31 - 1)) for limit in (high, normal, low)]
        return boolean(await self._asking.call(b"set_limits", name, *limits), 0, 0)

    async def drop_function(self, name: bytes) -> str:
        """See ``base.Store``."""
        return data(await self._submit.call(b"drop_function", name), 0, 0).decode()

    async def register_server(self, name: str, address: str, pid: int, version: str, lease_seconds: float) -> None:
        """See ``base.Store``."""
        result = await self._leasing.call(
            b"register_server",
            name.encode(),
            address.encode(),
            pack(">i", pid),
            version.encode(),
            pack(">d", lease_seconds),
        )
        self._take_lease(result, name, pid)

    async def register_worker(
        self, name: str, host: str, pid: int, version: str, lease_seconds: float, functions: Sequence[bytes]
    ) -> None:
        """See ``base.Store``."""
        result = await self._leasing.call(
            b"register_worker",
            name.encode(),
            host.encode(),
            pack(">i", pid),
            version.encode(),
            pack(">d", lease_seconds),
            arrays.bytea_array(functions),
        )
        self._take_lease(result, name, pid)

    async def set_functions(self, functions: Sequence[bytes]) -> None:
        """See ``base.Store``."""
        await self._asking.call(b"set_functions", pack(">q", self.lease), arrays.bytea_array(functions))

    async def same_named(self, name: str) -> list[tuple[str, str]]:
        """Return address and pid of the other servers that live and have this name."""
        result = await self._leasing.call(b"same_named", name.encode(), pack(">q", self.lease), writes=False)
        return [(data(result, row, 0).decode(), data(result, row, 1).decode()) for row in range(result.ntuples)]

    async def misses_others(self) -> bool:
        """Whether there are leases that were not renewed since PostgreSQL was started or, once a standby, promoted."""
        return boolean(await self._leasing.call(b"misses_others", writes=False), 0, 0)

    def _take_lease(self, result: pq.abc.PGresult, name: str, pid: int) -> None:
        if not result.ntuples:
            raise StoreError("a lease was asked for and none given: the functions in the database are not postgear's")
        self.lease = integer(result, 0, 0)
        self._registered = (name, pid)
        self._is_owner = True
        self.queue_name = data(result, 0, 1).decode()

    async def renew_lease(self, *, sleeping: bool, duties_seconds: float | None = None) -> bool:
        """See ``base.Store``."""
        if not self._is_owner:
            return False
        duties = None if duties_seconds is None else pack(">d", duties_seconds)
        return boolean(await self._leasing.call(b"renew_lease", pack(">q", self.lease), pack(">?", sleeping), duties), 0, 0)

    async def end_lease(self) -> None:
        """See ``base.Store``."""
        await self._leasing.call(b"end_lease", pack(">q", self.lease))

    async def reap_leases(self) -> list[tuple[int, int]]:
        """See ``base.Store``."""
        result = await self._asking.call(b"reap_leases")
        return [(integer(result, row, 0), integer(result, row, 1)) for row in range(result.ntuples)]
