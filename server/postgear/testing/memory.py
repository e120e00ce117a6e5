"""Lead what postgear's clients and ``enqueue`` send into a queue in memory: in the place of sockets and database connections.

The clients' own operations run as ever; only the far end of their connections is another.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, ClassVar, Final

from postgear.application import enqueue
from postgear.application.connections import Arrays
from postgear.client import aio, calls, database, links
from postgear.client.calls import Address, Channel
from postgear.errors import ServerTimeout
from postgear.newjob import EncodedJob
from postgear.wire.connection import Message, PacketReader
from postgear.wire.packet import REQUEST_MAGIC, PacketType

from .queue import MemoryQueue, QueuedJob, exception_of

HIGH, NORMAL, LOW = 0, 1, 2
_SUBMITS: Final = {
    PacketType.SUBMIT_JOB: (NORMAL, True),
    PacketType.SUBMIT_JOB_HIGH: (HIGH, True),
    PacketType.SUBMIT_JOB_LOW: (LOW, True),
    PacketType.SUBMIT_REDUCE_JOB: (NORMAL, True),
    PacketType.SUBMIT_JOB_BG: (NORMAL, False),
    PacketType.SUBMIT_JOB_HIGH_BG: (HIGH, False),
    PacketType.SUBMIT_JOB_LOW_BG: (LOW, False),
    PacketType.SUBMIT_JOB_EPOCH: (NORMAL, False),
    PacketType.SUBMIT_REDUCE_JOB_BACKGROUND: (NORMAL, False),
}
"""Priority, and whether a client waits for the result."""
_SERVER: Final = "127.0.0.1:4730"
"""What clients on the database are told of servers; nothing connects to it."""


@contextmanager
def installed(queue: MemoryQueue) -> Iterator[None]:
    """Lead everything into *queue* for the time of the block."""

    class Link(_MemoryLink):
        target = queue

    class AsyncLink(_AsyncMemoryLink):
        target = queue

    async def connect(address: Address, deadline: float) -> aio.AsyncLink:
        return AsyncLink(address, deadline)

    def call(_connection: object, arrays: Arrays) -> list[str]:
        return queue.enqueue(_jobs(arrays))

    async def call_async(_connection: object, arrays: Arrays) -> list[str]:
        return await queue.enqueue_async(_jobs(arrays))

    replacements: list[tuple[Any, str, Any]] = [
        (links, "Link", Link),
        (aio, "connect", connect),
        # No connection made before is used now, none made now later.
        (calls.Pool, "take", lambda _pool, _address: None),
        (calls.Pool, "keep", lambda _pool, channel: channel.close()),
        (enqueue, "call", call),
        (enqueue, "call_async", call_async),
        (database.DatabaseClient, "_connect", lambda _client: _NoConnection()),
        (database.DatabaseClient, "_do", lambda _client, work, is_writing: work(None)),
        (database.DatabaseClient, "_row", lambda _client, query, *words, is_writing=False: _row(queue, query, words)),
        (database.AsyncDatabaseClient, "_do", _do_async),
        (database.AsyncDatabaseClient, "_row", _row_async(queue)),
    ]
    originals = [(owner, name, getattr(owner, name)) for owner, name, _ in replacements]
    try:
        for owner, name, value in replacements:
            setattr(owner, name, value)
        yield
    finally:
        for owner, name, value in originals:
            setattr(owner, name, value)


class _Peer:
    """The far end of one connection: takes the packets of a client and answers them."""

    def __init__(self, queue: MemoryQueue, messages: deque[Message]) -> None:
        self._queue = queue
        self._messages = messages
        self._reader = PacketReader(REQUEST_MAGIC, 2**32)
        self._waiting: deque[tuple[QueuedJob, bool]] = deque()  # jobs that may be run inline, and whether a client waits
        self._answers: dict[int, Callable[[Sequence[bytes]], None]] = {
            PacketType.ECHO_REQ: lambda a: self._say(PacketType.ECHO_RES, a[0]),
            PacketType.OPTION_REQ: lambda a: self._say(PacketType.OPTION_RES, a[0]),
            PacketType.GET_STATUS: lambda a: self._say(PacketType.STATUS_RES, a[0], *_state(self._queue.find(_text(a[0])))),
            PacketType.GET_STATUS_UNIQUE: self._status_of_unique,
        }

    def feed(self, data: bytes) -> None:
        """Take packets and answer those that can be answered at once."""
        for kind, arguments in self._reader.feed(data):
            if kind in _SUBMITS:
                self._submitted(PacketType(kind), arguments)
            elif kind in self._answers:
                self._answers[kind](arguments)
            else:
                self._say(PacketType.ERROR, b"UNKNOWN_COMMAND", b"the queue in memory does not know this")

    def run(self) -> None:
        """Run what was submitted and is to run at once."""
        while self._waiting:
            job, is_awaited = self._waiting.popleft()
            self._queue.run_inline(job, is_awaited=is_awaited)
            if is_awaited:
                self._tell(job)

    async def run_async(self) -> None:
        """Be ``run``."""
        while self._waiting:
            job, is_awaited = self._waiting.popleft()
            await self._queue.run_inline_async(job, is_awaited=is_awaited)
            if is_awaited:
                self._tell(job)

    def _submitted(self, kind: PacketType, arguments: Sequence[bytes]) -> None:
        priority, is_awaited = _SUBMITS[kind]
        function, unique, workload = arguments[0], arguments[1], arguments[-1]
        run_at = int(arguments[2]) if kind is PacketType.SUBMIT_JOB_EPOCH else None
        is_reduced = kind in (PacketType.SUBMIT_REDUCE_JOB, PacketType.SUBMIT_REDUCE_JOB_BACKGROUND)
        job = self._queue.submit(EncodedJob(function, workload, unique, priority, run_at), arguments[2] if is_reduced else b"")
        self._say(PacketType.JOB_CREATED, job.handle.encode())
        self._waiting.append((job, is_awaited))

    def _tell(self, job: QueuedJob) -> None:
        handle = job.handle.encode()
        for data in job.data:
            self._say(PacketType.WORK_DATA, handle, data)
        for warning in job.warnings:
            self._say(PacketType.WORK_WARNING, handle, warning.encode())
        if job.progress != (0, 0):
            self._say(PacketType.WORK_STATUS, handle, *(b"%d" % number for number in job.progress))
        if job.result is not None:
            self._say(PacketType.WORK_COMPLETE, handle, job.result)
        elif text := exception_of(job):
            self._say(PacketType.WORK_EXCEPTION, handle, text)
        else:
            self._say(PacketType.WORK_FAIL, handle)

    def _status_of_unique(self, arguments: Sequence[bytes]) -> None:
        job = self._queue.find(unique=_text(arguments[0]))
        self._say(PacketType.STATUS_RES_UNIQUE, arguments[0], *_state(job), b"0")

    def _say(self, kind: PacketType, *arguments: bytes) -> None:
        self._messages.append((kind, arguments))


class _MemoryChannel(Channel):
    """A client's connection to a queue in memory."""

    target: ClassVar[MemoryQueue]

    def __init__(self, address: Address, deadline: float, _tick: object = None) -> None:
        Channel.__init__(self, address, deadline)
        self._peer = _Peer(self.target, self.messages)

    def close(self) -> None:
        """Be Channel.close."""

    def is_quiet(self) -> bool:
        """Be Channel.is_quiet."""
        return not self.messages

    def flush(self) -> None:
        """Be Channel.flush."""
        data, self._output = b"".join(self._output), []
        self._peer.feed(data)


class _MemoryLink(_MemoryChannel, links.Link):
    """A blocking client's."""

    def receive(self, until: float) -> bool:
        """Be Link.receive; nothing comes later."""
        self.flush()
        self._peer.run()
        if not self.messages:
            raise self.error(ServerTimeout, "the queue in memory has nothing more to say")
        return True


class _AsyncMemoryLink(_MemoryChannel, aio.AsyncLink):
    """An awaiting client's."""

    async def receive(self, until: float) -> bool:
        """Be AsyncLink.receive; nothing comes later."""
        self.flush()
        await self._peer.run_async()
        if not self.messages:
            raise self.error(ServerTimeout, "the queue in memory has nothing more to say")
        return True


class _NoConnection:
    """In the place of a client's own database connection; one that is made for real follows it."""

    closed = True
    broken = True

    def close(self) -> None:
        """There is nothing to close."""


async def _do_async(_client: object, work: Callable[[Any], Awaitable[Any]], *, is_writing: bool) -> Any:
    # What the client asks for when it is opened needs a connection, and nothing more.
    return None if work is database._nothing else await work(None)


def _row_async(queue: MemoryQueue) -> Callable[..., Awaitable[Any]]:
    async def row(_client: object, query: str, *words: Any, is_writing: bool = False) -> Any:
        return _row(queue, query, words)

    return row


def _row(queue: MemoryQueue, query: str, words: Sequence[Any]) -> tuple[Any, ...]:
    """Answer a statement of the clients on the database."""
    if query is database._SERVERS:
        return (_SERVER,)
    if query is database._CANCEL:
        return (queue.cancel(words[0]),)
    if query is database._RESULT:
        return _ending(queue.find_ended(words[0]))
    job = queue.find(words[0]) if query is database._STATUS else queue.find(unique=_text(words[0]))
    known, running, numerator, denominator = map(int, _state(job))
    return bool(known), bool(running), numerator, denominator


def _state(job: QueuedJob | None) -> tuple[bytes, bytes, bytes, bytes]:
    if job is None:
        return b"0", b"0", b"0", b"0"
    numerator, denominator = job.progress
    return b"1", b"%d" % (job.state == "running"), b"%d" % numerator, b"%d" % denominator


def _ending(job: QueuedJob | None) -> tuple[Any, ...]:
    """Say how a job has ended, as if all functions kept that."""
    if job is None or job.ended_at is None:
        return None, None, None
    ended_at = datetime.fromtimestamp(job.ended_at, UTC)
    if job.result is not None:
        return "completed", job.result, ended_at
    return "failed", exception_of(job) or None, ended_at


def _jobs(arrays: Arrays) -> list[EncodedJob]:
    nothing: list[None] = [None] * len(arrays.function_names)
    columns = zip(
        arrays.function_names,
        arrays.workloads,
        arrays.unique_keys or nothing,
        arrays.priorities or nothing,
        arrays.run_ats or nothing,
        strict=True,
    )
    return [
        EncodedJob(function, workload, unique or b"", NORMAL if priority is None else priority, run_at)
        for function, workload, unique, priority, run_at in columns
    ]


def _text(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")
