"""A Dispatcher with literal packets: what goes in, what comes out, and answers of the store by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from postgear.dispatch.dispatcher import Dispatcher
from postgear.dispatch.messages import Settings
from postgear.dispatch.peer import Function, Peer
from postgear.job import ClaimedJob, FunctionRow, Lane
from postgear.wire.connection import PacketReader
from postgear.wire.packet import REQUEST_MAGIC, RESPONSE_MAGIC, PacketType, encode_request

Reply = tuple[str, bytes]
"""A packet's name and its body."""


class Desk:
    """A server named s of the queue q, with the functions f (1) and g (2), which have no jobs."""

    def __init__(self, *, up: bool = False, **settings: Any) -> None:
        self.dispatcher = Dispatcher(Settings(server_name="s", **settings))
        self.dispatcher.set_queue_name("q")
        self.dispatcher.store_is_up = up
        for name in (b"f", b"g"):
            self.dispatcher.function(name)
        self.resolve(has_uniques=False)
        for function in (self.f, self.g):
            function.backlog = [False, False, False]
        self.dispatcher.claim_wanted = False

    @property
    def f(self) -> Function:
        return self.dispatcher.functions[b"f"]

    @property
    def g(self) -> Function:
        return self.dispatcher.functions[b"g"]

    def resolve(
        self, *, has_uniques: bool = False, limits: tuple[int | None, int | None, int | None] = (None, None, None)
    ) -> None:
        rows = [FunctionRow(name, {b"f": 1, b"g": 2}.get(name, 3), limits, has_uniques) for name in self.dispatcher.functions]
        self.dispatcher.unresolved.clear()
        self.dispatcher.resolved(rows)

    def connect(self) -> Peer:
        peer = Peer()
        self.dispatcher.connected(peer)
        return peer

    def send(self, peer: Peer, kind: str, *arguments: bytes) -> list[Reply]:
        """Send a packet and return what comes back to this peer at once."""
        return self.send_bytes(peer, encode_request(PacketType[kind], *arguments))

    def send_bytes(self, peer: Peer, data: bytes) -> list[Reply]:
        self.dispatcher.receive(peer, PacketReader(REQUEST_MAGIC).feed(data))
        return self.replies(peer)

    def replies(self, peer: Peer) -> list[Reply]:
        """Return what the peer has got since it was last asked."""
        data = b"".join(peer.out)
        peer.out.clear()
        return [(PacketType(kind).name, b"\0".join(body)) for kind, body in PacketReader(RESPONSE_MAGIC).feed(data)]

    def worker(self, *functions: bytes, sleeping: bool = False) -> Peer:
        peer = self.connect()
        for name in functions or (b"f",):
            self.send(peer, "CAN_DO", name)
        if sleeping:
            self.send(peer, "PRE_SLEEP")
        return peer

    def grab(self, worker: Peer) -> bytes:
        """Grab a job and return its workload; b"NO_JOB" for none."""
        ((kind, body),) = self.send(worker, "GRAB_JOB")
        return body.split(b"\0", 2)[2] if kind == "JOB_ASSIGN" else kind.encode()

    def store(self, *ids: int) -> None:
        """Commit the oldest batch of submits with these ids."""
        self.dispatcher.submitted(self.dispatcher.submits.popleft(), ids)

    def claim(self, *jobs: ClaimedJob, lanes: Sequence[Lane] | None = None) -> None:
        """Answer a claim with these jobs."""
        asked = self.dispatcher.demands(poll=True) if lanes is None else lanes
        self.dispatcher.claimed(asked, jobs)

    def tick(self, seconds: float = 0.1, times: int = 1) -> None:
        for _ in range(times):
            self.dispatcher.now += seconds
            self.dispatcher.tick()


def row(job_id: int, workload: bytes = b"w", priority: int = 1, attempt: int = 1, key: bytes | None = None) -> ClaimedJob:
    """A claimed job of f."""
    return ClaimedJob(job_id, 1, priority, attempt, key, None, workload)
