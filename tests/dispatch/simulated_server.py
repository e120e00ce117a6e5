"""A server in the simulation: a Dispatcher, and the store calls that ``exchange`` would make for it, in steps of their own.

A call is begun, carried out (its commit) and answered; a connection may break at any point between. Here are only servers and
their connections; ``simulation`` says what happens when, and what must hold.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from postgear.dispatch.dispatcher import Dispatcher
from postgear.dispatch.messages import Request, RequestKind
from postgear.dispatch.peer import Peer
from postgear.job import Ending, Lane, SubmitBatch
from postgear.store.memory import MemoryQueue, MemoryStore
from postgear.wire.connection import PacketReader
from postgear.wire.packet import REQUEST_MAGIC, RESPONSE_MAGIC, PacketType

Result = TypeVar("Result")
LEASE_SECONDS = 8.0


def run(coroutine: Coroutine[Any, Any, Result]) -> Result:
    """Carry out a call of a memory store, which never waits."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: Result = stop.value
        return result
    raise AssertionError("a memory store waits")


@dataclass
class Call:
    """A store call under way: carry_out is the commit, answer brings its result, lose says that there will be none."""

    carry_out: Callable[[], Any]
    answer: Callable[[Any], None]
    lose: Callable[[], None]
    lanes: Sequence[Lane] = ()
    batch: SubmitBatch | None = None
    is_done: bool = False
    result: Any = None


@dataclass
class Expected:
    """A reply that a client waits for."""

    kind: PacketType
    function: bytes = b""
    unique: bytes = b""
    workload: bytes = b""


class Actor:
    """A connection: a client that submits or a worker."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.peer = Peer()
        self.requests = PacketReader(REQUEST_MAGIC)
        self.replies = PacketReader(RESPONSE_MAGIC)
        server.dispatcher.connected(self.peer)
        server.actors[self.peer] = self
        self.expected: list[Expected] = []
        self.waiting: Counter[bytes] = Counter()  # foreground jobs, by handle
        self.running: list[bytes] = []
        self.wants_sleep = False
        self.sleeping = False

    def send(self, *packets: bytes) -> None:
        self.server.dispatcher.receive(self.peer, self.requests.feed(b"".join(packets)))

    def close(self) -> None:
        del self.server.actors[self.peer]
        self.server.dispatcher.closed(self.peer)


@dataclass
class Server:
    """A server: its Dispatcher and what ``exchange`` keeps."""

    dispatcher: Dispatcher
    store: MemoryStore
    queue: MemoryQueue
    random: random.Random
    is_up: bool = False
    renewed_at: float = 0.0
    actors: dict[Peer, Actor] = field(default_factory=dict)
    calls: dict[str, Call] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    notifications: list[str] = field(default_factory=list)
    finishing: list[int] = field(default_factory=list)
    keeping: dict[int, Ending] = field(default_factory=dict)
    releasing: list[int] = field(default_factory=list)
    unused: list[int] = field(default_factory=list)
    retry: SubmitBatch | None = None  # was not sent

    def __post_init__(self) -> None:
        self.dispatcher.is_lease_in_doubt = self.is_lease_in_doubt

    def is_lease_in_doubt(self) -> bool:
        return self.queue.now - self.renewed_at > LEASE_SECONDS * 0.75

    @property
    def is_settled(self) -> bool:
        dispatcher = self.dispatcher
        waiting = dispatcher.finishes or dispatcher.results or dispatcher.releases or dispatcher.unused
        return not (waiting or self.finishing or self.keeping or self.releasing or self.unused or "finish" in self.calls)

    def connect(self) -> None:
        """Settle with the database what this server holds, as ``Exchange._connect`` does."""
        store, dispatcher = self.store, self.dispatcher
        run(store.connect())
        # Whatever was to be released is released with the others; again, it would be taken from whoever has it by then.
        for ids in (self.releasing, self.unused, dispatcher.releases, dispatcher.unused):
            ids.clear()
        if store.lease and run(store.renew_lease(sleeping=False)):
            held = [*dispatcher.held_ids(), *dispatcher.finishes, *self.finishing, *dispatcher.results, *self.keeping]
            dispatcher.drop_held(run(store.release_others(held)))
        else:
            if store.lease:
                dispatcher.forget_lease()
                self.finishing.clear()
                self.keeping.clear()
            run(store.register_server("s", "here", 1, "test", LEASE_SECONDS))
            dispatcher.set_queue_name(store.queue_name)
        dispatcher.store_is_up = True
        dispatcher.suspended = False
        dispatcher.unresolved = list(dispatcher.functions.values())
        dispatcher.reopen_backlogs()
        self.renewed_at = self.queue.now
        self.is_up = True

    def begin(self, session: str) -> bool:
        """Begin the next call of a session, if there is one."""
        if not self.is_up or session in self.calls:
            return False
        call: Call | None = getattr(self, f"next_{session}")()
        if call is not None:
            self.calls[session] = call
        return call is not None

    def answer(self, session: str) -> None:
        call = self.calls.pop(session)
        call.answer(call.result)

    def next_submit(self) -> Call | None:
        dispatcher, store = self.dispatcher, self.store
        if dispatcher.unresolved:
            unresolved, dispatcher.unresolved = dispatcher.unresolved, []
            names = [function.name for function in unresolved]

            def lose() -> None:
                dispatcher.unresolved = unresolved + dispatcher.unresolved

            return Call(lambda: run(store.ensure_functions(names)), dispatcher.resolved, lose)
        batch = self.retry
        if batch is None and dispatcher.submits:
            batch = dispatcher.submits.popleft()
        if batch is None or not all(function.id for function in batch.functions):
            self.retry = batch
            return None
        if batch.after_finishes and not self.is_settled:
            self.retry = batch
            return None
        self.retry = None
        taken = batch

        def lose_batch() -> None:
            if not call.is_done and self.random.random() < 0.5:
                self.retry = taken  # it was not sent
            else:
                dispatcher.submit_failed(taken, "in doubt")

        call = Call(lambda: run(store.submit_jobs(taken)), lambda ids: dispatcher.submitted(taken, ids), lose_batch, batch=taken)
        return call

    def next_finish(self) -> Call | None:
        dispatcher, store = self.dispatcher, self.store
        self.finishing += dispatcher.finishes
        self.keeping |= dispatcher.results
        self.releasing += dispatcher.releases
        self.unused += dispatcher.unused
        dispatcher.finishes, dispatcher.results, dispatcher.releases, dispatcher.unused = [], {}, [], []
        nothing: Callable[[], None] = lambda: None  # noqa: E731
        for ids, given_out in ((self.releasing, True), (self.unused, False)):
            if ids:
                taken = list(ids)

                def forget(_none: None, ids: list[int] = ids, taken: list[int] = taken) -> None:
                    del ids[: len(taken)]
                    dispatcher.reopen_backlogs()

                def release(taken: list[int] = taken, given_out: bool = given_out) -> None:
                    run(store.release_jobs(taken, given_out=given_out))

                return Call(release, forget, nothing)
        if self.finishing:
            finished = list(self.finishing)

            def finish(_stale: list[int]) -> None:
                del self.finishing[: len(finished)]
                dispatcher.finished(finished)

            return Call(lambda: run(store.finish_jobs(finished)), finish, nothing)
        if self.keeping:
            results = dict(self.keeping)

            def keep(_stale: list[int]) -> None:
                for job_id in results:
                    self.keeping.pop(job_id, None)
                dispatcher.finished(results)

            return Call(lambda: run(store.finish_with_results(results)), keep, nothing)
        return None

    def next_claim(self) -> Call | None:
        dispatcher, store = self.dispatcher, self.store
        request = self.take_request(RequestKind.JOIN)
        if request is not None:
            taken = request
            function = taken.function
            assert function is not None
            key = taken.arguments[1]

            def joined(found: Any) -> None:
                dispatcher.joined(taken, found)
                dispatcher.answered(taken.peer)

            return Call(lambda: run(store.claim_unique(function.id, key)), joined, lambda: joined(None))
        if self.random.random() < 0.2:
            return Call(lambda: run(store.promote_jobs()), lambda _seconds: None, lambda: None)
        lanes = dispatcher.demands(poll=self.random.random() < 0.5)
        if not lanes:
            return None
        max_bytes = self.random.choice((1, 20, 1000))

        def claimed(jobs: Any) -> None:
            dispatcher.claimed(lanes, jobs, cut=sum(len(job.workload) for job in jobs) >= max_bytes)

        return Call(lambda: run(store.claim_jobs(lanes, max_bytes)), claimed, lambda: dispatcher.claim_failed(lanes), lanes)

    def next_ask(self) -> Call | None:
        dispatcher, store = self.dispatcher, self.store
        request = self.take_request(RequestKind.STATUS)
        if request is None:
            return None
        taken = request

        def answer(status: Any) -> None:
            dispatcher.send_status(taken.peer, taken.arguments[0], status)
            dispatcher.answered(taken.peer)

        def lose() -> None:
            dispatcher.send_store_error(taken.peer, "lost")
            dispatcher.answered(taken.peer)

        return Call(lambda: run(store.job_status(taken.number, None)), answer, lose)

    def take_request(self, kind: RequestKind) -> Request | None:
        """Return the first request of a kind, which waits until all finishes and releases are stored."""
        for request in self.requests:
            if request.kind is kind and self.is_settled:
                self.requests.remove(request)
                return request
        return None
