"""What clients do: submit in the background and in the foreground, and ask for status."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from postgear.dispatch.claims import Claims
from postgear.dispatch.messages import Request, RequestKind
from postgear.dispatch.peer import Function, Peer
from postgear.dispatch.workers import leading_integer, refusal_of
from postgear.job import (
    LOCKED,
    Job,
    JobState,
    JoinedJob,
    StoredStatus,
    SubmitBatch,
    coalescing_key,
)
from postgear.wire import connection as wire
from postgear.wire.packet import HEADER, RESPONSE_MAGIC, UNIQUE_MAX_BYTES, PacketType, encode_response

QUEUE_FULL: Final = encode_response(PacketType.ERROR, b"QUEUE_ERROR", b"Job queue is full")
KEY_LOCKED: Final = encode_response(
    PacketType.ERROR, b"QUEUE_ERROR", b"An open transaction in the database queues a job with the same unique"
)
EPOCH_MAX: Final = 253_402_300_799  # the end of the year 9999, well inside timestamptz
BATCH_MAX_JOBS: Final = 5000
"""Larger batches insert no faster, and a larger one would keep its first job waiting longer."""
BATCH_MAX_BYTES: Final = 16 * 1024 * 1024


class Clients(Claims):
    """Submits, their acknowledgement, and status."""

    def _submit_background(
        self,
        peer: Peer,
        priority: int,
        name: bytes,
        unique: bytes,
        workload: bytes,
        run_at: int = 0,
        reducer: bytes | None = None,
    ) -> None:
        function = self.functions.get(name)
        if function is None or len(unique) > UNIQUE_MAX_BYTES:
            refusal = refusal_of(name, unique)
            if refusal is not None:
                self._refuse_in_turn(peer, refusal)
                return
            function = self.function(name)
        key = coalescing_key(unique, workload) if unique == b"-" else unique
        limit = function.limits[priority]
        if limit is not None and function.foreground_jobs() >= limit and (function, key) not in self.uniques:
            self._refuse_in_turn(peer, QUEUE_FULL)  # durable jobs are counted when it is stored
            return
        batches = self.submits
        if not batches or len(batches[-1].peers) >= BATCH_MAX_JOBS or batches[-1].size_bytes >= BATCH_MAX_BYTES:
            batches.append(SubmitBatch(self.now))
            batches[-1].durability = function.durability
        batch = batches[-1]
        position = len(batch.peers)
        claim = False
        if key:
            function.has_uniques = True
            if (function, key) in self.finishing:
                batch.after_finishes = True
            joined = self.uniques.get((function, key))
            if joined is not None and not joined.id:
                batch.joins[position] = joined
                joined.pending_joins += 1
                claim = True
        if run_at and position not in batch.joins:
            batch.run_ats[position] = run_at
        elif (
            function.workers and not function.backlog[priority] and not (self.suspended or self.claims_stopped or self.is_behind)
        ):
            claim = claim or function.held[priority] + function.claiming[priority] < function.window()
            if not claim:
                function.backlog[priority] = True  # jobs after it must not be born claimed, or they would overtake it
            elif position not in batch.joins:
                function.claiming[priority] += 1
        if not claim:
            function.uncommitted[priority] += 1
        if reducer is not None:
            batch.reducers[position] = reducer
        if function.durability > batch.durability:
            batch.durability = function.durability
        batch.peers.append(peer)
        batch.functions.append(function)
        batch.priorities.append(priority)
        batch.unique_keys.append(key)
        batch.workloads.append(workload)
        batch.claims.append(claim)
        batch.size_bytes += len(workload)
        peer.pending += 1

    def _submit_epoch(self, peer: Peer, arguments: Sequence[bytes]) -> None:
        name, unique, epoch, workload = arguments
        run_at = leading_integer(epoch)
        if run_at > EPOCH_MAX:
            text = b"The epoch %s is past the year 9999" % epoch[:32]
            self._refuse_in_turn(peer, encode_response(PacketType.ERROR, b"INVALID_ARGUMENT", text))
            return
        self._submit_background(peer, 1, name, unique, workload, run_at=max(run_at, 0))

    def _refuse_in_turn(self, peer: Peer, reply: bytes) -> None:
        """Answer a bad background submit, after the good ones before it."""
        if peer.pending:
            peer.held = [(wire.INVALID, tuple(reply[12:].split(b"\0", 1)))]
        else:
            self.send(peer, reply)

    def submitted(self, batch: SubmitBatch, ids: Sequence[int]) -> None:
        """Acknowledge a committed batch; *ids* as the store returns them: id, negated id if coalesced, 0 if full, LOCKED."""
        prefix = self.background_prefix
        pack = HEADER.pack
        dirty = self.dirty
        waking: dict[Function, int] = {}
        for position, (peer, job_id) in enumerate(zip(batch.peers, ids, strict=True)):
            if batch.claims[position]:
                self._born(batch, position, job_id, waking)
            else:
                function = batch.functions[position]
                priority = batch.priorities[position]
                function.uncommitted[priority] -= 1
                if job_id > 0:
                    function.backlog[priority] = True
                    function.stored_since_claim[priority] = True
                    if batch.unique_keys[position]:
                        function.has_uniques = True
                    if function.sleepers:
                        self.claim_wanted = True
            if peer.closed:
                continue
            if job_id > 0 or LOCKED < job_id < 0:
                handle = b"%b%d" % (prefix, job_id if job_id > 0 else -job_id)
                peer.out.append(pack(RESPONSE_MAGIC, 8, len(handle)) + handle)
            else:
                peer.out.append(KEY_LOCKED if job_id else QUEUE_FULL)
            if not peer.dirty:
                peer.dirty = True
                dirty.append(peer)
        self._offer(waking)
        self.serve_waiting()
        self._settle(batch)

    def forget_claims(self, batch: SubmitBatch) -> None:
        """Take it that nothing of a batch is held here: it was stored, but its jobs went back before that was known."""
        for position, function in enumerate(batch.functions):
            if batch.claims[position]:
                self._unclaim(batch, position)
                batch.claims[position] = False
                function.uncommitted[batch.priorities[position]] += 1
        batch.joins.clear()

    def submit_failed(self, batch: SubmitBatch, text: str) -> None:
        """Refuse a batch that was not, or not surely, committed. Never a false ack."""
        for position, peer in enumerate(batch.peers):
            if batch.claims[position]:
                self._unclaim(batch, position)
            else:
                batch.functions[position].uncommitted[batch.priorities[position]] -= 1
            self.send_store_error(peer, text)
        self._settle(batch)

    def _settle(self, batch: SubmitBatch) -> None:
        for peer in batch.peers:
            peer.pending -= 1
        for peer in dict.fromkeys(batch.peers):
            self._resume(peer)

    def _unclaim(self, batch: SubmitBatch, position: int) -> Job | None:
        """Take back what ``_submit_background`` reserved for a born-claimed job; return the foreground job it joined."""
        joined = batch.joins.get(position)
        if joined is None:
            batch.functions[position].claiming[batch.priorities[position]] -= 1
            return None
        joined.pending_joins -= 1
        self._end_unwanted(joined)
        return joined

    def _born(self, batch: SubmitBatch, position: int, job_id: int, waking: dict[Function, int]) -> None:
        """Take a job into memory that was inserted with this server's lease."""
        joined = batch.joins.get(position)
        if joined is not None:
            joined.pending_joins -= 1
            if job_id <= 0:
                self._end_unwanted(joined)
                return
            if joined.has_outcome:
                self._finish_row(joined, job_id)  # it ended while its row was written
                return
            if not joined.id and joined.state is not JobState.ENDED:
                self._make_durable(joined, job_id)
                return
            # It had become durable by another submit, and that row is gone: this one is a job of its own.
            batch.functions[position].claiming[batch.priorities[position]] += 1
        function = batch.functions[position]
        priority = batch.priorities[position]
        function.claiming[priority] -= 1
        if job_id <= 0:
            return
        job = self._add_claimed(function, priority, job_id, 1, batch.unique_keys[position], batch.reducers.get(position),
                                batch.workloads[position])  # fmt: skip
        if job is not None:
            waking[function] = waking.get(function, 0) + 1

    def _make_durable(self, job: Job, job_id: int) -> None:
        """A foreground job has got its row: from now on it outlives its clients and this server."""
        job.id = job_id
        job.durable_handle = b"%b%d" % (self.background_prefix, job_id)
        self.jobs[job.durable_handle] = job
        function = job.function
        if job.state is JobState.READY:
            job.attempt += 1  # a claimed job carries the number of its next delivery, a foreground job that of its last
            function.foreground[job.priority] -= 1
            function.held[job.priority] += 1
            self.active[function] = None  # it may have no workers
        else:
            function.running_foreground -= 1
            if job.attempt > 1:
                self.attempts[job_id] = job.attempt

    def _submit_foreground(
        self, peer: Peer, priority: int, name: bytes, unique: bytes, workload: bytes, reducer: bytes | None
    ) -> None:
        refusal = refusal_of(name, unique)
        if refusal is not None:
            self.send(peer, refusal)
            return
        function = self.function(name)
        key = coalescing_key(unique, workload)
        if key:
            job = self.uniques.get((function, key))
            if job is not None:
                self._listen(peer, job)
                return
            function.is_submitted_to = True
        concerns_store = (key and function.has_uniques) or function.limits[priority] is not None
        if concerns_store and self.store_is_up and not self.suspended:
            self._ask(RequestKind.JOIN, peer, function, name, key, workload, reducer or b"", number=priority)
            return
        self._add_foreground(peer, function, priority, key, workload, reducer)

    def room_for(self, request: Request) -> int | None:
        """Return how many durable jobs the function of a foreground submit may have for it to be taken; None: any number."""
        assert request.function is not None
        limit = request.function.limits[request.number]
        return None if limit is None else limit - request.function.foreground_jobs()

    def joined(self, request: Request, found: JoinedJob | None, *, is_full: bool = False) -> None:
        """Go on with a foreground submit that may join a durable job. *is_full*: there is no room for another."""
        peer, priority = request.peer, request.number
        name, key, workload, reducer = request.arguments
        function = self.function(name)  # it may have been dropped meanwhile, and begins anew
        if found is not None and found.is_claimed:
            self.active[function] = None  # it may have no workers
            self._add_claimed(function, found.priority, found.id, found.attempt, key, found.reducer, found.workload)
        job = self.uniques.get((function, key))  # not always the one found: another client may have been quicker
        if not peer.closed:
            if job is not None:
                self._listen(peer, job)
            elif is_full:
                self.send(peer, QUEUE_FULL)
            else:
                self._add_foreground(peer, function, priority, key, workload, reducer or None)
        if job is not None:
            self._wake(function, 1)

    def _listen(self, peer: Peer, job: Job) -> None:
        job.listeners.append(peer)
        peer.listening[job] = None
        self.send(peer, encode_response(PacketType.JOB_CREATED, job.handle))

    def _add_foreground(
        self, peer: Peer, function: Function, priority: int, key: bytes, workload: bytes, reducer: bytes | None
    ) -> None:
        self._sequence += 1
        handle = b"%b%d" % (self._foreground_prefix, self._sequence)
        job = Job(handle, function, priority, key, workload, reducer)
        self.jobs[handle] = job
        if key:
            self.uniques[function, key] = job
        is_only_one = not peer.listening
        job.listeners.append(peer)
        peer.listening[job] = None
        function.foreground[priority] += 1
        function.ready[priority].append(job)
        created = HEADER.pack(RESPONSE_MAGIC, 8, len(handle)) + handle
        if is_only_one and peer.is_waiting_client:
            # It does nothing before the result comes, so both go out together: a write here and a wake-up there less.
            self.send_late(peer, created)
        else:
            self.send(peer, created)
        if function.sleepers:
            self._wake(function, 1)

    def _get_status(self, peer: Peer, arguments: Sequence[bytes]) -> None:
        handle = arguments[0].rstrip(b"\0")
        job = self.jobs.get(handle)
        if job is not None:
            self.send_status(peer, handle, StoredStatus(1, job.owner is not None, job.numerator, job.denominator))
            return
        job_id = self.background_id(handle)
        if job_id:
            self._ask(RequestKind.STATUS, peer, None, handle, number=job_id)
        else:
            self.send_status(peer, handle, None)

    def send_status(self, peer: Peer, handle: bytes, status: StoredStatus | None) -> None:
        """Answer GET_STATUS; None: no such job."""
        _id, running, numerator, denominator = status or (0, False, 0, 0)
        fields = [b"%d" % number for number in (status is not None, running, numerator, denominator)]
        self.send(peer, encode_response(PacketType.STATUS_RES, handle, *fields))

    def _get_status_unique(self, peer: Peer, arguments: Sequence[bytes]) -> None:
        unique = arguments[0].rstrip(b"\0")
        for (_function, key), job in self.uniques.items():
            if key == unique:
                status = StoredStatus(1, job.owner is not None, job.numerator, job.denominator)
                self.send_status_unique(peer, unique, status, len(job.listeners))
                return
        if 0 < len(unique) <= UNIQUE_MAX_BYTES and unique != b"-":
            self._ask(RequestKind.STATUS_UNIQUE, peer, None, unique)
        else:
            self.send_status_unique(peer, unique, None, 0)

    def send_status_unique(self, peer: Peer, unique: bytes, status: StoredStatus | None, clients: int) -> None:
        """Answer GET_STATUS_UNIQUE; None: no such job."""
        _id, running, numerator, denominator = status or (0, False, 0, 0)
        fields = [b"%d" % number for number in (status is not None, running, numerator, denominator, clients)]
        self.send(peer, encode_response(PacketType.STATUS_RES_UNIQUE, unique, *fields))
