"""What the Dispatcher knows, and how it takes messages in and answers.

The Dispatcher is one object in layers, a file each: ``State`` (here), ``Holding`` (the jobs in memory), ``Workers``, ``Claims``,
``Clients`` and, on top, ``Dispatcher``. Each layer calls only those below it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from postgear.dispatch.messages import Request, RequestKind, Settings
from postgear.dispatch.peer import Function, Peer
from postgear.job import (
    Ending,
    Job,
    SubmitBatch,
)
from postgear.wire import connection as wire
from postgear.wire.packet import PacketType, encode_response

Handler = Callable[[Peer, Sequence[bytes]], None]
INVALID_COMMAND: Final = encode_response(PacketType.ERROR, b"INVALID_COMMAND", b"Command not expected")
BACKGROUND_SUBMITS: Final = frozenset(
    (
        PacketType.SUBMIT_JOB_BG,
        PacketType.SUBMIT_JOB_HIGH_BG,
        PacketType.SUBMIT_JOB_LOW_BG,
        PacketType.SUBMIT_JOB_EPOCH,
        PacketType.SUBMIT_REDUCE_JOB_BACKGROUND,
    )
)


class State:
    """Attributes, connections and replies. See ``Dispatcher``."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.now = 0.0
        self.peers: dict[Peer, None] = {}
        self.functions: dict[bytes, Function] = {}
        self.functions_by_id: dict[int, Function] = {}
        self.active: dict[Function, None] = {}  # those with workers, held jobs or a rate: what time and claims look at
        self.jobs: dict[bytes, Job] = {}
        self.uniques: dict[tuple[Function, bytes], Job] = {}
        self.dirty: list[Peer] = []
        self.late: list[Peer] = []
        self.submits: deque[SubmitBatch] = deque()
        self.finishes: list[int] = []
        self.results: dict[int, Ending] = {}
        self.finishing: dict[tuple[Function, bytes], int] = {}  # keys of jobs in finishes or results or being deleted
        self.releases: list[int] = []
        self.unused: list[int] = []
        self.postponed: dict[int, float] = {}
        self.requests: list[Request] = []
        self.unresolved: list[Function] = []
        self.attempts: dict[int, int] = {}
        self.progress: dict[int, tuple[int, int]] = {}
        self.claim_wanted = False
        self.claim_limit: int | None = None
        self.waiting: dict[Peer, PacketType] = {}  # workers whose grab waits for a claim
        self.store_is_up = False
        self.draining = False  # no job is given out any more
        self.claims_stopped = False  # no background job is taken from the database any more
        self.is_behind = False  # more results wait for the database than should: none is taken meanwhile, either
        self.suspended = False  # the lease is in doubt: no background job is given out
        self.is_lease_in_doubt: Callable[[], bool] = lambda: False
        self.timed: dict[Job, float] = {}  # running jobs whose worker set a timeout, and when it ends
        self._sequence = 0
        self._ticks = 0
        # The f keeps them apart from background handles where server and queue have the same name.
        self._foreground_prefix = f"{settings.handle_prefix or 'H:' + settings.server_name}:f".encode()
        self.background_prefix = b"H:?:"
        self._queue_prefix = b"H:?:"
        self._handlers: dict[int, Handler] = {}  # by message kind; filled by ``Dispatcher``

    def set_queue_name(self, queue_name: str) -> None:
        """Name the queue: background handles carry it."""
        self._queue_prefix = f"H:{queue_name}:".encode()
        prefix = self.settings.handle_prefix
        self.background_prefix = f"{prefix}:".encode() if prefix else self._queue_prefix

    def connected(self, peer: Peer) -> None:
        """Take a connection in."""
        peer.exceptions = self.settings.exceptions
        self.peers[peer] = None

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

    def send_late(self, peer: Peer, data: bytes) -> None:
        """Queue bytes that may wait a moment (the shell's LATE_SECONDS) for others to the same connection."""
        peer.out.append(data)
        if not peer.dirty and not peer.is_late:
            peer.is_late = True
            self.late.append(peer)

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

    def function(self, name: bytes) -> Function:
        """Return a function, known from now on; its id is asked of the database."""
        function = self.functions.get(name)
        if function is None:
            function = self.functions[name] = Function(name)
            self.unresolved.append(function)
        return function

    def background_id(self, handle: bytes) -> int:
        """Return the id in a background handle of this queue, else 0."""
        prefix, _, digits = handle.rpartition(b":")
        known = prefix + b":" in (self.background_prefix, self._queue_prefix)
        return int(digits) if known and digits.isdigit() and len(digits) < 19 else 0
