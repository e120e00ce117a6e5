"""The Dispatcher: every rule about who gets which job.

Events are method calls: ``connected``, ``receive``, ``closed`` (connections); ``submitted``, ``submit_failed``, ``claimed``,
``joined``, ``status_known`` (answers of the store); ``tick`` (time). It never raises for what a peer sends.

Order: replies of one connection come in the order of its packets. A background submit is answered after its commit, so a
connection that has submits under way may only go on submitting; other packets of it are held until they are answered.
Source of behaviour where PROTOCOL is silent: gearmand 1.1.20 and 2.0, seen on the wire; differences stand in docs/differences.md.
"""

from __future__ import annotations

import heapq
import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from postgear.job import (
    ClaimedJob,
    FunctionRow,
    Job,
    JobEvent,
    JobState,
    JoinedJob,
    Lane,
    StoredStatus,
    SubmitBatch,
    coalescing_key,
)
from postgear.wire import connection as wire
from postgear.wire.packet import FUNCTION_MAX_BYTES, HEADER, RESPONSE_MAGIC, UNIQUE_MAX_BYTES, PacketType, encode_response

from .messages import Request, RequestKind, Settings
from .peer import Function, Peer

log = logging.getLogger("postgear.dispatch")

Handler = Callable[[Peer, Sequence[bytes]], None]

NOOP: Final = encode_response(PacketType.NOOP)
NO_JOB: Final = encode_response(PacketType.NO_JOB)
INVALID_COMMAND: Final = encode_response(PacketType.ERROR, b"INVALID_COMMAND", b"Command not expected")
UNIQUE_TOO_LARGE: Final = encode_response(PacketType.ERROR, b"ARGUMENT_TOO_LARGE", b"Unique value too large")
FUNCTION_TOO_LARGE: Final = encode_response(PacketType.ERROR, b"ARGUMENT_TOO_LARGE", b"Function name too large")
QUEUE_FULL: Final = encode_response(PacketType.ERROR, b"QUEUE_ERROR", b"Job queue is full")
UNKNOWN_OPTION: Final = encode_response(PacketType.ERROR, b"UNKNOWN_OPTION", b"Server does not recognize given option")

BACKGROUND_SUBMITS: Final = frozenset(
    (
        PacketType.SUBMIT_JOB_BG,
        PacketType.SUBMIT_JOB_HIGH_BG,
        PacketType.SUBMIT_JOB_LOW_BG,
        PacketType.SUBMIT_JOB_EPOCH,
        PacketType.SUBMIT_REDUCE_JOB_BACKGROUND,
    )
)
EPOCH_MAX: Final = 253_402_300_799  # the end of the year 9999, well inside timestamptz
TIMEOUT_MIN_SECONDS: Final = 1.0  # gearmand raises shorter ones
CLIENT_ID_MAX_BYTES: Final = 127
TICK_SECONDS: Final = 0.1
BATCH_MAX_JOBS: Final = 5000
"""Larger batches insert no faster, and a larger one would keep its first job waiting longer."""
BATCH_MAX_BYTES: Final = 16 * 1024 * 1024
REVIEW_TICKS: Final = 20
"""Every so many ticks (2 s) claimed jobs that no worker asked for go back."""

_ERROR_TEXTS: Final = {
    PacketType.WORK_STATUS: b"Job given in work result not found",
    PacketType.WORK_COMPLETE: b"Job given in work result not found",
    PacketType.WORK_FAIL: b"Job given in work result not found",
    PacketType.WORK_DATA: b"Job does not exist on server",
    PacketType.WORK_WARNING: b"Job does not exist on server",
    PacketType.WORK_EXCEPTION: b"An exception was received for a job that does not exist",
}


class Dispatcher:
    """The rules. ``now`` is monotonic seconds, set by the shell before it calls.

    dirty: peers with something in ``out``, to be drained and cleared by the shell.
    submits: batches to be stored, oldest first; the last is still open.
    finishes, releases (given out), unused (never given out): ids for the store.
    requests: what connections wait for. unresolved: functions whose id is not known. progress: newest report by id.
    claim_wanted: something changed that makes a claim worth while.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.now = 0.0
        self.peers: dict[Peer, None] = {}
        self.functions: dict[bytes, Function] = {}
        self.functions_by_id: dict[int, Function] = {}
        self.jobs: dict[bytes, Job] = {}
        self.uniques: dict[tuple[Function, bytes], Job] = {}
        self.dirty: list[Peer] = []
        self.submits: deque[SubmitBatch] = deque()
        self.finishes: list[int] = []
        self.finishing: dict[tuple[Function, bytes], int] = {}  # keys of jobs in finishes or being deleted
        self.releases: list[int] = []
        self.unused: list[int] = []
        self.requests: list[Request] = []
        self.unresolved: list[Function] = []
        self.progress: dict[int, tuple[int, int]] = {}
        self.claim_wanted = False
        self.waiting: dict[Peer, PacketType] = {}  # workers whose grab waits for a claim
        self.store_is_up = False
        self.draining = False  # no job is given out any more
        self.claims_stopped = False  # no background job is taken from the database any more
        self.suspended = False  # the lease is in doubt: no background job is given out
        self._deadlines: list[tuple[float, int, Job, Peer, int]] = []
        self._sequence = 0
        self._ticks = 0
        # The f keeps them apart from background handles where server and queue have the same name.
        self._foreground_prefix = f"{settings.handle_prefix or 'H'}:{settings.server_name}:f".encode()
        self.background_prefix = b"H:?:"
        self._queue_prefix = b"H:?:"
        self._handlers: dict[int, Handler] = self._make_handlers()

    def set_queue_name(self, queue_name: str) -> None:
        """Name the queue: background handles carry it."""
        self._queue_prefix = f"H:{queue_name}:".encode()
        prefix = self.settings.handle_prefix
        self.background_prefix = f"{prefix}:".encode() if prefix else self._queue_prefix

    # -- connections ---------------------------------------------------------------------------------------------

    def connected(self, peer: Peer) -> None:
        """Take a connection in."""
        peer.exceptions = self.settings.exceptions
        self.peers[peer] = None

    def closed(self, peer: Peer) -> None:
        """Forget a connection: requeue what it runs, drop what only it waited for."""
        peer.closed = True
        peer.held = None
        self.peers.pop(peer, None)
        self.waiting.pop(peer, None)
        for job in reversed(list(peer.jobs.values())):  # each goes to the front, so the oldest last
            self._lose(job)
        for function in list(peer.abilities):
            self._drop_ability(peer, function)
        for job in list(peer.listening):
            job.listeners = [listener for listener in job.listeners if listener is not peer]
            self._end_unwanted(job)
        peer.listening.clear()

    def receive(self, peer: Peer, messages: Iterable[wire.Message]) -> None:
        """Take a connection's messages, in order."""
        if peer.held is not None:
            peer.held.extend(messages)
            return
        handlers = self._handlers
        iterator = iter(messages)
        for message in iterator:
            kind, arguments = message
            if peer.pending and (peer.pending_requests or kind not in BACKGROUND_SUBMITS):
                peer.held = [message, *iterator]
                return
            handler = handlers.get(kind)
            if handler is None:
                self.send(peer, INVALID_COMMAND)
            else:
                handler(peer, arguments)
                if peer.held is not None:
                    peer.held.extend(iterator)  # type: ignore[unreachable]  # the handler may have set it
                    return

    def send(self, peer: Peer, data: bytes) -> None:
        """Queue bytes for a connection; nothing if it is gone."""
        if peer.closed:
            return
        peer.out.append(data)
        if not peer.dirty:
            peer.dirty = True
            self.dirty.append(peer)

    def answered(self, peer: Peer) -> None:
        """End a request of a connection and go on with what it sent since."""
        peer.pending_requests -= 1
        peer.pending -= 1
        self._resume(peer)

    def send_store_error(self, peer: Peer, text: str) -> None:
        """Tell a connection that the database could not answer."""
        self.send(peer, encode_response(PacketType.ERROR, b"QUEUE_ERROR", text.encode()))

    def _resume(self, peer: Peer) -> None:
        if peer.held is not None and not peer.pending and not peer.closed:
            held, peer.held = peer.held, None
            self.receive(peer, held)

    def _ask(self, kind: RequestKind, peer: Peer, function: Function | None, *arguments: bytes, number: int = 0) -> None:
        peer.pending += 1
        peer.pending_requests += 1
        self.requests.append(Request(kind, peer, function, arguments, number))

    def _make_handlers(self) -> dict[int, Handler]:
        def submit(priority: int) -> Handler:
            return lambda peer, a: self._submit_foreground(peer, priority, a[0], a[1], a[2], None)

        def submit_background(priority: int) -> Handler:
            return lambda peer, a: self._submit_background(peer, priority, a[0], a[1], a[2])

        def error(packet_type: PacketType) -> bytes:
            return encode_response(PacketType.ERROR, b"JOB_NOT_FOUND", _ERROR_TEXTS[packet_type])

        not_found = error(PacketType.WORK_COMPLETE)
        no_such_job = error(PacketType.WORK_DATA)
        no_exception_job = error(PacketType.WORK_EXCEPTION)
        return {
            wire.TEXT: lambda peer, a: self._text(peer, a[0]),
            wire.INVALID: lambda peer, a: self.send(peer, encode_response(PacketType.ERROR, *a)),
            wire.FATAL: self._fatal,
            wire.FATAL_TEXT: self._fatal_text,
            PacketType.SUBMIT_JOB: submit(1),
            PacketType.SUBMIT_JOB_HIGH: submit(0),
            PacketType.SUBMIT_JOB_LOW: submit(2),
            PacketType.SUBMIT_JOB_BG: submit_background(1),
            PacketType.SUBMIT_JOB_HIGH_BG: submit_background(0),
            PacketType.SUBMIT_JOB_LOW_BG: submit_background(2),
            PacketType.SUBMIT_JOB_EPOCH: self._submit_epoch,
            PacketType.SUBMIT_REDUCE_JOB: lambda peer, a: self._submit_foreground(peer, 1, a[0], a[1], a[4], a[2]),
            PacketType.SUBMIT_REDUCE_JOB_BACKGROUND: lambda peer, a: self._submit_background(
                peer, 1, a[0], a[1], a[4], reducer=a[2]
            ),
            PacketType.CAN_DO: lambda peer, a: self._can_do(peer, a[0], 0.0),
            PacketType.CAN_DO_TIMEOUT: lambda peer, a: self._can_do(peer, a[0], _timeout_seconds(a[1])),
            PacketType.CANT_DO: lambda peer, a: self._cant_do(peer, a[0]),
            PacketType.RESET_ABILITIES: self._reset_abilities,
            PacketType.PRE_SLEEP: self._pre_sleep,
            PacketType.GRAB_JOB: lambda peer, _a: self._grab(peer, PacketType.GRAB_JOB),
            PacketType.GRAB_JOB_UNIQ: lambda peer, _a: self._grab(peer, PacketType.GRAB_JOB_UNIQ),
            PacketType.GRAB_JOB_ALL: lambda peer, _a: self._grab(peer, PacketType.GRAB_JOB_ALL),
            PacketType.WORK_COMPLETE: lambda peer, a: self._work_end(peer, a[0], PacketType.WORK_COMPLETE, a, not_found),
            PacketType.WORK_FAIL: lambda peer, a: self._work_end(
                peer, a[0].rstrip(b"\0"), PacketType.WORK_FAIL, (a[0].rstrip(b"\0"),), not_found
            ),
            PacketType.WORK_EXCEPTION: lambda peer, a: self._work_end(peer, a[0], PacketType.WORK_EXCEPTION, a, no_exception_job),
            PacketType.WORK_STATUS: lambda peer, a: self._work_status(peer, a, not_found),
            PacketType.WORK_DATA: lambda peer, a: self._work_data(peer, PacketType.WORK_DATA, a, no_such_job),
            PacketType.WORK_WARNING: lambda peer, a: self._work_data(peer, PacketType.WORK_WARNING, a, no_such_job),
            PacketType.GET_STATUS: self._get_status,
            PacketType.GET_STATUS_UNIQUE: self._get_status_unique,
            PacketType.ECHO_REQ: lambda peer, a: self.send(peer, encode_response(PacketType.ECHO_RES, *a)),
            PacketType.OPTION_REQ: self._option,
            PacketType.SET_CLIENT_ID: self._set_client_id,
        }

    # -- functions -----------------------------------------------------------------------------------------------

    def function(self, name: bytes) -> Function:
        """Return a function, known from now on; its id is asked of the database."""
        function = self.functions.get(name)
        if function is None:
            function = self.functions[name] = Function(name)
            self.unresolved.append(function)
        return function

    def ask_for_uniques(self) -> None:
        """Have functions with foreground submits looked up again: others may have queued jobs with a unique, or finished them."""
        for function in self.functions.values():
            if function.is_submitted_to:
                function.is_submitted_to = False
                self.unresolved.append(function)

    def resolved(self, rows: Iterable[FunctionRow]) -> None:
        """Learn ids and limits of functions."""
        for row in rows:
            function = self.functions.get(row.name)
            if function is not None:
                function.id = row.id
                function.limits = row.limits
                function.has_uniques = row.has_uniques
                self.functions_by_id[row.id] = function
        self.claim_wanted = True

    def forget_function(self, function: Function) -> None:
        """Forget a dropped function, unless jobs of it are on their way; the next use of its name starts anew."""
        if not any(function.claiming):
            self.functions.pop(function.name, None)
            self.functions_by_id.pop(function.id, None)

    # -- clients -------------------------------------------------------------------------------------------------

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
            refusal = _refusal(name, unique)
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
        elif function.workers and not function.backlog[priority] and not self.suspended and not self.claims_stopped:
            claim = claim or function.held[priority] + function.claiming[priority] < function.window()
            if not claim:
                function.backlog[priority] = True  # jobs after it must not be born claimed, or they would overtake it
            elif position not in batch.joins:
                function.claiming[priority] += 1
        if reducer is not None:
            batch.reducers[position] = reducer
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
        run_at = _leading_integer(epoch)
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
        """Acknowledge a committed batch; *ids* as ``submit_jobs`` returns them: id, negated id if coalesced, 0 if full."""
        prefix = self.background_prefix
        pack = HEADER.pack
        dirty = self.dirty
        waking: dict[Function, int] = {}
        for position, (peer, job_id) in enumerate(zip(batch.peers, ids, strict=True)):
            if batch.claims[position]:
                self._born(batch, position, job_id, waking)
            elif job_id > 0:
                function = batch.functions[position]
                function.backlog[batch.priorities[position]] = True
                if batch.unique_keys[position]:
                    function.has_uniques = True
                if function.sleepers:
                    self.claim_wanted = True
            if peer.closed:
                continue
            if job_id:
                handle = b"%b%d" % (prefix, job_id if job_id > 0 else -job_id)
                peer.out.append(pack(RESPONSE_MAGIC, 8, len(handle)) + handle)
            else:
                peer.out.append(QUEUE_FULL)
            if not peer.dirty:
                peer.dirty = True
                dirty.append(peer)
        self._offer(waking)
        self.serve_waiting()
        self._settle(batch)

    def submit_failed(self, batch: SubmitBatch, text: str) -> None:
        """Refuse a batch that was not, or not surely, committed. Never a false ack."""
        for position, peer in enumerate(batch.peers):
            if batch.claims[position]:
                self._unclaim(batch, position)
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
                self.finishes.append(job_id)  # it ended while its row was written
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
        else:
            function.running_foreground -= 1

    def _submit_foreground(
        self, peer: Peer, priority: int, name: bytes, unique: bytes, workload: bytes, reducer: bytes | None
    ) -> None:
        refusal = _refusal(name, unique)
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
        if concerns_store and function.id and self.store_is_up and not self.suspended:
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
        peer, function, priority = request.peer, request.function, request.number
        assert function is not None
        _name, key, workload, reducer = request.arguments
        if found is not None and found.is_claimed:
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

    def _end_unwanted(self, job: Job) -> None:
        """End a foreground job that waits for a worker while nobody waits for it any more."""
        if not job.listeners and not job.id and not job.pending_joins and job.state is JobState.READY:
            self._end(job)

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
        job.listeners.append(peer)
        peer.listening[job] = None
        function.foreground[priority] += 1
        function.ready[priority].append(job)
        self.send(peer, HEADER.pack(RESPONSE_MAGIC, 8, len(handle)) + handle)
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

    def background_id(self, handle: bytes) -> int:
        """Return the id in a background handle of this queue, else 0."""
        prefix, _, digits = handle.rpartition(b":")
        known = prefix + b":" in (self.background_prefix, self._queue_prefix)
        return int(digits) if known and digits.isdigit() and len(digits) < 19 else 0

    # -- workers -------------------------------------------------------------------------------------------------

    def _can_do(self, peer: Peer, name: bytes, timeout: float) -> None:
        refusal = _refusal(name, b"")
        if refusal is not None:
            self.send(peer, refusal)
            return
        function = self.function(name)
        peer.abilities.pop(function, None)
        peer.abilities[function] = timeout
        function.workers[peer] = None
        self.claim_wanted = True
        if peer.sleeping:
            function.sleepers[peer] = None
            if self._has_ready(function):
                self._wake(function, 1)

    def _cant_do(self, peer: Peer, name: bytes) -> None:
        function = self.functions.get(name)
        if function is None or function not in peer.abilities:
            return
        for job in [job for job in reversed(peer.jobs.values()) if job.function is function]:
            self._lose(job)
        self._drop_ability(peer, function)

    def _reset_abilities(self, peer: Peer, _arguments: Sequence[bytes]) -> None:
        for job in reversed(list(peer.jobs.values())):  # each goes to the front, so the oldest last
            self._lose(job)
        for function in list(peer.abilities):
            self._drop_ability(peer, function)

    def _drop_ability(self, peer: Peer, function: Function) -> None:
        del peer.abilities[function]
        function.workers.pop(peer, None)
        function.sleepers.pop(peer, None)
        if not function.workers:
            self._give_back(function, 0)
        elif self._has_ready(function):
            self._wake(function, 1)  # it may have been this worker that was woken for the job

    def _pre_sleep(self, peer: Peer, _arguments: Sequence[bytes]) -> None:
        if not self.draining:
            for function in peer.abilities:
                if self._has_ready(function):
                    self.send(peer, NOOP)
                    return
        peer.sleeping = True
        for function in peer.abilities:
            function.sleepers[peer] = None
            if True in function.backlog:
                self.claim_wanted = True

    def _wake(self, function: Function, jobs: int) -> None:
        """Send NOOP to sleeping workers: all of them, or ``worker_wakeup`` for each of *jobs*; one NOOP a sleep."""
        if not function.sleepers or self.draining:
            return
        peers = list(function.sleepers)
        if self.settings.worker_wakeup:
            del peers[self.settings.worker_wakeup * jobs :]
        for peer in peers:
            self._unsleep(peer)
            self.send(peer, NOOP)

    def _unsleep(self, peer: Peer) -> None:
        peer.sleeping = False
        for function in peer.abilities:
            function.sleepers.pop(peer, None)

    def _next_job(self, peer: Peer) -> Job | None:
        """Take the job that this worker is to run: high over all its functions, then normal, then low; oldest first."""
        if peer.sleeping:
            self._unsleep(peer)
        if self.draining:
            return None
        # gearmand 1.1.x, connection.cc: the ability registered last is looked at first.
        functions = list(peer.abilities)
        functions.reverse()
        for priority in (0, 1, 2):
            for function in functions:
                queue = function.ready[priority]
                while queue:
                    job = queue[0]
                    if job.state is not JobState.READY:
                        queue.popleft()
                        continue
                    if job.id and self.suspended:
                        break
                    queue.popleft()
                    self._assign(peer, job)
                    return job
            if self._may_find(functions, priority):
                break  # not a job of lower priority while the database may have one of this
        for function in functions:
            function.missed += 1
            if True in function.backlog:
                self.claim_wanted = True
        return None

    def _has_ready(self, function: Function) -> bool:
        """Whether ``_next_job`` would find one."""
        for queue in function.ready:
            while queue and queue[0].state is not JobState.READY:
                queue.popleft()
            if queue and not (queue[0].id and self.suspended):
                return True
        return False

    def _assign(self, peer: Peer, job: Job) -> None:
        function = job.function
        job.move(JobEvent.ASSIGN)
        job.owner = peer
        job.was_given_out = True
        peer.jobs[job.handle] = job
        function.running += 1
        priority = job.priority
        if job.id:
            held = function.held[priority] = function.held[priority] - 1
            function.assigned += 1
            function.assigned_since_claim += 1
            if function.backlog[priority] and not function.claiming[priority] and held * 2 <= function.window():
                self.claim_wanted = True
        else:
            job.attempt += 1
            function.foreground[priority] -= 1
            function.running_foreground += 1
        timeout = peer.abilities[function]
        if self.settings.round_robin:
            # The last registered is looked at first, so the chosen one goes to the front of the registrations.
            peer.abilities = {
                function: timeout,
                **{other: value for other, value in peer.abilities.items() if other is not function},
            }
        if timeout:
            self._sequence += 1
            heapq.heappush(self._deadlines, (self.now + timeout, self._sequence, job, peer, job.attempt))

    def _grab(self, peer: Peer, packet_type: PacketType) -> None:
        job = self._next_job(peer)
        if job is not None:
            self._send_assign(peer, packet_type, job)
        elif self._may_find(peer.abilities):
            # gearmand says NO_JOB only when there is none, and some workers then wait for long: ask the database first.
            self.waiting[peer] = packet_type
            peer.pending += 1
            peer.pending_requests += 1
            self.claim_wanted = True
        else:
            self.send(peer, NO_JOB)

    def _may_find(self, functions: Iterable[Function], priority: int | None = None) -> bool:
        """Whether a claim under way or to come may bring a job of these functions (of this priority)."""
        if not self.store_is_up or self.suspended or self.claims_stopped:
            return False
        if priority is None:
            return any(True in function.backlog for function in functions)
        return any(function.backlog[priority] for function in functions)

    def serve_waiting(self) -> None:
        """Answer the grabs that wait for the database, where it brought a job or is known to have none."""
        for peer, packet_type in list(self.waiting.items()):
            job = self._next_job(peer)
            if job is not None:
                self._send_assign(peer, packet_type, job)
            elif self._may_find(peer.abilities):
                self.claim_wanted = True
                continue
            else:
                self.send(peer, NO_JOB)
            del self.waiting[peer]
            self.answered(peer)

    def _send_assign(self, peer: Peer, packet_type: PacketType, job: Job) -> None:
        if packet_type is PacketType.GRAB_JOB:
            kind = PacketType.JOB_ASSIGN
            body = b"%b\0%b\0%b" % (job.handle, job.function.name, job.workload)
        elif packet_type is PacketType.GRAB_JOB_UNIQ or job.reducer is None:
            kind = PacketType.JOB_ASSIGN_UNIQ
            body = b"%b\0%b\0%b\0%b" % (job.handle, job.function.name, job.unique, job.workload)
        else:
            kind = PacketType.JOB_ASSIGN_ALL
            body = b"%b\0%b\0%b\0%b\0%b" % (job.handle, job.function.name, job.unique, job.reducer, job.workload)
        self.send(peer, HEADER.pack(RESPONSE_MAGIC, kind, len(body)) + body)

    # -- results -------------------------------------------------------------------------------------------------

    def _work_end(self, peer: Peer, handle: bytes, packet_type: PacketType, arguments: Sequence[bytes], not_found: bytes) -> None:
        job = peer.jobs.get(handle)
        if job is None:
            self.send(peer, not_found)
            return
        job.has_outcome = True
        if job.listeners:
            self._tell_end(job, packet_type, arguments)
        if job.id and not job.cancelled:
            self._finish(job)
        self._end(job)

    def _finish(self, job: Job) -> None:
        self.finishes.append(job.id)
        self.progress.pop(job.id, None)
        if job.unique_key:
            key = (job.function, job.unique_key)
            self.finishing[key] = job.id

    def finished(self, ids: Iterable[int]) -> None:
        """Learn that finished jobs have left the database."""
        if self.finishing:
            gone = set(ids)
            self.finishing = {key: job_id for key, job_id in self.finishing.items() if job_id not in gone}

    def _tell_end(self, job: Job, packet_type: PacketType, arguments: Sequence[bytes]) -> None:
        if packet_type is not PacketType.WORK_EXCEPTION:
            self._tell(job, encode_response(packet_type, *arguments))
            return
        exception = encode_response(packet_type, *arguments)
        failure = encode_response(PacketType.WORK_FAIL, job.handle)
        for listener in job.listeners:
            self.send(listener, exception if listener.exceptions else failure)

    def _tell(self, job: Job, data: bytes) -> None:
        for listener in job.listeners:
            self.send(listener, data)

    def _work_status(self, peer: Peer, arguments: Sequence[bytes], not_found: bytes) -> None:
        job = peer.jobs.get(arguments[0])
        if job is None:
            self.send(peer, not_found)
            return
        job.numerator = min(max(_leading_integer(arguments[1]), 0), 2**63 - 1)
        job.denominator = min(max(_leading_integer(arguments[2]), 0), 2**63 - 1)
        if job.id:
            self.progress[job.id] = (job.numerator, job.denominator)
        if job.listeners:
            self._tell(job, encode_response(PacketType.WORK_STATUS, *arguments))

    def _work_data(self, peer: Peer, packet_type: PacketType, arguments: Sequence[bytes], not_found: bytes) -> None:
        job = peer.jobs.get(arguments[0])
        if job is None:
            self.send(peer, not_found)
        elif job.listeners:
            self._tell(job, encode_response(packet_type, *arguments))

    def _end(self, job: Job) -> None:
        """Forget a job, wherever it is."""
        function = job.function
        if job.state is JobState.RUNNING:
            function.running -= 1
            if not job.id:
                function.running_foreground -= 1
            if job.owner is not None:
                job.owner.jobs.pop(job.handle, None)
        elif job.id:
            function.held[job.priority] -= 1
        else:
            function.foreground[job.priority] -= 1
        job.move(JobEvent.END)
        job.owner = None
        job.workload = b""
        self.jobs.pop(job.handle, None)
        if job.durable_handle is not job.handle:
            self.jobs.pop(job.durable_handle, None)
        self._free_unique(job)
        for listener in job.listeners:
            listener.listening.pop(job, None)
        job.listeners = []

    def _free_unique(self, job: Job) -> None:
        key = (job.function, job.unique_key)
        if job.unique_key and self.uniques.get(key) is job:
            del self.uniques[key]

    def _lose(self, job: Job) -> None:
        """Take a running job from its worker: requeue it, or end it if its retries are used up or nobody wants it."""
        function = job.function
        retries = self.settings.job_retries
        if job.cancelled:
            self._end(job)
            return
        if retries >= 0 and job.attempt >= max(retries, 1):
            _log(logging.WARNING, "job failed, retries used up", job)
            job.has_outcome = True
            if job.listeners:
                self._tell(job, encode_response(PacketType.WORK_FAIL, job.handle))
            if job.id:
                self._finish(job)
            self._end(job)
            return
        _log(logging.INFO, "job requeued", job)
        if job.id and not job.listeners:
            self.releases.append(job.id)
            self.progress.pop(job.id, None)
            self._end(job)
            return
        if not job.id and not job.listeners and not job.pending_joins:
            self._end(job)
            return
        job.move(JobEvent.LOSE)
        if job.owner is not None:
            job.owner.jobs.pop(job.handle, None)
        job.owner = None
        job.numerator = job.denominator = 0
        function.running -= 1
        if job.id:
            # A foreground client waits for it here, so it stays; its row learns of the attempt if this server dies.
            job.attempt += 1
            function.held[job.priority] += 1
        else:
            function.running_foreground -= 1
            function.foreground[job.priority] += 1
        function.ready[job.priority].appendleft(job)
        self._wake(function, 1)

    def cancel(self, handle: bytes, job_id: int = 0) -> bool:
        """Cancel a job in memory by its handle or row id: clients get WORK_FAIL, a running worker's result is dropped."""
        job = self.jobs.get(handle) or self.jobs.get(b"%b%d" % (self.background_prefix, job_id))
        if job is None:
            return False
        job.has_outcome = True
        self._tell(job, encode_response(PacketType.WORK_FAIL, job.handle))
        for listener in job.listeners:
            listener.listening.pop(job, None)
        job.listeners = []
        if job.durable_handle is not job.handle:
            self.finishes.append(job.id)  # the database is only asked to cancel by the handle of the row
        if job.state is JobState.RUNNING:
            job.cancelled = True
            self._free_unique(job)  # what is submitted from now on is another job
        else:
            self._end(job)
        return True

    # -- claims --------------------------------------------------------------------------------------------------

    def demands(self, *, poll: bool) -> list[Lane]:
        """Return what is worth claiming; *poll*: also where the database was empty at the last look."""
        self.claim_wanted = False
        if self.claims_stopped or self.suspended:
            return []
        lanes = []
        for function in self.functions.values():
            if not function.workers or not function.id:
                continue
            window = function.window()
            for priority in (0, 1, 2):
                if poll or function.backlog[priority]:
                    present = function.held[priority] + function.claiming[priority]
                    if present * 2 <= window and window:  # half a window at a time: a claim of few jobs costs nearly as much
                        lanes.append(Lane(function.id, priority, window - present))
                        function.claiming[priority] += window - present
            function.assigned_since_claim = 0
            function.missed = 0
        return lanes

    def claimed(self, lanes: Sequence[Lane], jobs: Sequence[ClaimedJob], *, cut: bool = False) -> None:
        """Take claimed jobs in. *cut*: the answer was cut at its byte limit, so a short lane says nothing."""
        got: dict[tuple[int, int], int] = {}
        waking: dict[Function, int] = {}
        for row in jobs:
            lane = (row.function_id, row.priority)
            got[lane] = got.get(lane, 0) + 1
            function = self.functions_by_id[row.function_id]
            job = self._add_claimed(function, row.priority, row.id, row.attempt, row.unique_key or b"", row.reducer, row.workload)
            if job is not None:
                waking[function] = waking.get(function, 0) + 1
        for function_id, priority, wanted in lanes:
            function = self.functions_by_id[function_id]
            function.claiming[priority] -= wanted
            count = got.get((function_id, priority), 0)
            function.backlog[priority] = cut or count >= wanted
        self._offer(waking)
        self.serve_waiting()

    def _offer(self, waking: dict[Function, int]) -> None:
        """Wake workers for so many claimed jobs of each function."""
        for function, count in waking.items():
            if function.workers:
                self._wake(function, count)
            else:
                self._give_back(function, 0)  # the last one left while the jobs were on their way

    def claim_failed(self, lanes: Sequence[Lane]) -> None:
        """Learn that a claim did not happen, or that its answer was lost."""
        for function_id, priority, wanted in lanes:
            function = self.functions_by_id[function_id]
            function.claiming[priority] -= wanted
            function.backlog[priority] = True
        self.serve_waiting()

    def _add_claimed(
        self,
        function: Function,
        priority: int,
        job_id: int,
        attempt: int,
        key: bytes,
        reducer: bytes | None,
        workload: bytes,
    ) -> Job | None:
        handle = b"%b%d" % (self.background_prefix, job_id)
        if handle in self.jobs:
            return None
        job = Job(handle, function, priority, key, workload, reducer, job_id, attempt)
        if attempt > 1:
            _log(logging.INFO, "possible duplicate", job)
        self.jobs[handle] = job
        if key:
            function.has_uniques = True
            self.uniques.setdefault((function, key), job)
        function.held[priority] += 1
        function.ready[priority].append(job)
        return job

    def _give_back(self, function: Function, keep: int) -> None:
        """Release claimed jobs that were not given out, newest first, down to *keep* a priority."""
        for priority in (0, 1, 2):
            queue = function.ready[priority]
            excess = function.held[priority] - keep
            if excess <= 0:
                continue
            kept: list[Job] = []
            while queue and excess > 0:
                job = queue.pop()
                if job.state is JobState.READY and job.id and not job.listeners:
                    (self.releases if job.was_given_out else self.unused).append(job.id)
                    self._end(job)
                    function.backlog[priority] = True
                    excess -= 1
                elif job.state is JobState.READY:
                    kept.append(job)
            queue.extend(reversed(kept))

    def stop_claims(self) -> None:
        """Take no more background jobs from the database; those held go back."""
        self.claims_stopped = True
        self.serve_waiting()
        for function in self.functions.values():
            self._give_back(function, 0)

    def drain(self) -> None:
        """Give no more jobs out."""
        self.stop_claims()
        self.draining = True

    @property
    def is_running(self) -> bool:
        """Whether any worker runs a job."""
        return any(function.running for function in self.functions.values())

    def forget_lease(self) -> None:
        """Drop every claimed job: the lease was lost, they belong to others. Results of running ones come too late."""
        for job in list(self.jobs.values()):
            if job.id and job.state is not JobState.ENDED:  # one that became durable stands there twice
                _log(logging.WARNING, "job lost with its lease", job)
                self._tell(job, encode_response(PacketType.WORK_FAIL, job.handle))
                self._end(job)
        self.finishes.clear()
        self.finishing.clear()
        self.releases.clear()
        self.unused.clear()
        self.progress.clear()
        self.reopen_backlogs()

    def held_ids(self) -> list[int]:
        """Return the ids of all claimed jobs in memory."""
        return [job.id for job in self.jobs.values() if job.id]

    def drop_held(self, ids: Iterable[int]) -> None:
        """Forget claimed jobs that the database no longer counts as this server's."""
        for job_id in ids:
            job = self.jobs.get(b"%b%d" % (self.background_prefix, job_id))
            if job is not None:
                self._tell(job, encode_response(PacketType.WORK_FAIL, job.handle))
                self._end(job)

    def reopen_backlogs(self) -> None:
        """Look at the database again for every function: something was queued by others."""
        for function in self.functions.values():
            function.backlog = [True, True, True]
        self.claim_wanted = True

    # -- time ----------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Do what time asks for; called every TICK_SECONDS."""
        self._ticks += 1
        while self._deadlines and self._deadlines[0][0] <= self.now:
            _deadline, _sequence, job, peer, attempt = heapq.heappop(self._deadlines)
            if job.state is JobState.RUNNING and job.owner is peer and job.attempt == attempt:
                _log(logging.INFO, "job timed out", job)
                self._lose(job)
        self.serve_waiting()
        review = self._ticks % REVIEW_TICKS == 0
        for function in self.functions.values():
            if function.assigned or function.rate:
                function.rate = (function.rate + function.assigned / TICK_SECONDS) / 2
                if function.rate < 1.0:
                    function.rate = 0.0
                function.assigned_since_review += function.assigned
                function.assigned = 0
            if function.sleepers and self._has_ready(function):
                self._wake(function, 1)  # those woken for the job did not come
            if review:
                if sum(function.held):
                    keep = max(function.assigned_since_review, function.window()) if function.workers else 0
                    self._give_back(function, keep)
                function.assigned_since_review = 0

    # -- the rest ------------------------------------------------------------------------------------------------

    def _option(self, peer: Peer, arguments: Sequence[bytes]) -> None:
        if arguments[0].lower() == b"exceptions":
            peer.exceptions = True
            self.send(peer, encode_response(PacketType.OPTION_RES, arguments[0]))
        else:
            self.send(peer, UNKNOWN_OPTION)

    def _set_client_id(self, peer: Peer, arguments: Sequence[bytes]) -> None:
        peer.client_id = arguments[0][:CLIENT_ID_MAX_BYTES] or b"-"

    def _fatal(self, peer: Peer, arguments: Sequence[bytes]) -> None:
        self.send(peer, encode_response(PacketType.ERROR, *arguments))
        peer.closing = True

    def _fatal_text(self, peer: Peer, arguments: Sequence[bytes]) -> None:
        code, text = arguments
        self.send(peer, b"ERR %b %b\r\n" % (code, text.replace(b" ", b"+")))
        peer.closing = True

    def _text(self, peer: Peer, line: bytes) -> None:
        words = line.split()
        if not words or line[:1].isspace():
            words.insert(0, b"")  # as in gearmand, a leading blank is an empty first word
        self._ask(RequestKind.ADMIN, peer, None, *words)


def _log(level: int, name: str, job: Job) -> None:
    fields = {"handle": job.handle, "function": job.function.name, "attempt": job.attempt}
    log.log(level, name, extra={"fields": fields})


def _refusal(name: bytes, unique: bytes) -> bytes | None:
    if len(name) > FUNCTION_MAX_BYTES:
        return FUNCTION_TOO_LARGE
    if len(unique) > UNIQUE_MAX_BYTES:
        return UNIQUE_TOO_LARGE
    return None


def _leading_integer(text: bytes) -> int:
    """Read a number as C's strtoll does: leading blanks, sign and digits; 0 if there is none."""
    text = text.strip()[:40]
    end = 1 if text[:1] in (b"-", b"+") else 0
    while end < len(text) and text[end : end + 1].isdigit():
        end += 1
    digits = text[:end]
    return int(digits) if digits.lstrip(b"+-") else 0


def _timeout_seconds(text: bytes) -> float:
    """Read CAN_DO_TIMEOUT's milliseconds; 0: none. Shorter than a second is raised to one, as gearmand does."""
    milliseconds = _leading_integer(text)
    return max(milliseconds / 1000, TIMEOUT_MIN_SECONDS) if milliseconds > 0 else 0.0
