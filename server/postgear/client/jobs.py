"""Jobs that are waited for, as a generator that does no I/O: submits, progress, ends, and what is submitted again.

A job that was sent is not sent again unless its ``retries`` allow it. With retries left, a job that failed is submitted again to
the same server, one whose server went away, or could not be reached, to the next that answers. A refused job is not.
Two jobs of one call with the same function and unique are one job: the second is not sent, and ends with the first.

Steps and messages as in ``operations``. Standard library only, relative imports: it is embedded into the extension's script.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Generator, Iterable, Iterator
from typing import Any, Final, NamedTuple, Union

from ..errors import JobFailed, ServerError, ServerTimeout, ServerUnreachable
from ..wire.connection import Message
from ..wire.packet import PacketType, encode_request
from .operations import CLOSE, Pause, Submission, error_for, refusal, shown, unexpected

RESULT_MAX_BYTES: Final = 1 << 30
"""More than PostgreSQL takes in one value."""
FIRST_PAUSE_SECONDS: Final = 0.1
LONGEST_PAUSE_SECONDS: Final = 5.0
"""Between attempts when no server can be reached; each pause is twice as long as the one before."""

_FOREGROUND: Final = (PacketType.SUBMIT_JOB_HIGH, PacketType.SUBMIT_JOB, PacketType.SUBMIT_JOB_LOW)
_FINAL: Final = (PacketType.WORK_COMPLETE, PacketType.WORK_FAIL, PacketType.WORK_EXCEPTION)
_PROGRESS: Final = (PacketType.WORK_DATA, PacketType.WORK_STATUS, PacketType.WORK_WARNING)


class JobEnded(NamedTuple):
    """The end of the job at *position* of those given to ``do_many``: a result, or else an exception."""

    position: int
    result: bytes | None
    error: JobFailed | ServerError | None
    handle: str = ""


class JobEvent(NamedTuple):
    """What was told of a job that has not ended. kind: JOB_CREATED, WORK_DATA, WORK_STATUS or WORK_WARNING.

    arguments: those of the packet, without the handle, for JOB_CREATED the handle alone.
    """

    position: int
    kind: int
    arguments: tuple[bytes, ...]


class JobRetried(NamedTuple):
    """A job is going to be submitted again because of *error*."""

    position: int
    error: JobFailed | ServerError


Told = Union[JobEnded, JobEvent, JobRetried]


def do(job: Submission, warn: Callable[[bytes], None]) -> Generator[Any, Any, JobEnded]:
    """Run a job and return its end, with its result: the data of WORK_DATA and WORK_COMPLETE, one after the other.

    warn: called with the text of each WORK_WARNING. Raises JobFailed, ServerError.
    """
    many = do_many((job,), 1, (PacketType.WORK_WARNING,))
    step = next(many)
    ended: JobEnded | None = None
    while True:
        answer = None
        if isinstance(step, JobEnded):
            ended = step
        elif isinstance(step, JobEvent):
            warn(step.arguments[0])
        elif not isinstance(step, JobRetried):
            try:
                answer = yield step
            except ServerError as error:
                step = many.throw(error)
                continue
        try:
            step = many.send(answer)
        except StopIteration:
            break
    assert ended is not None
    if ended.error is not None:
        raise ended.error
    return ended


def do_many(jobs: Iterable[Submission], in_flight: int, wanted: Collection[int] = ()) -> Generator[Any, Any, None]:
    """Run jobs, at most *in_flight* at a time, and yield a ``JobEnded`` for each, in the order in which they end.

    wanted: the types of which a ``JobEvent`` is yielded; WORK_DATA is then left out of results. A ``JobRetried`` is always
    yielded. *jobs* is read as far as jobs can be sent, and again after its end, for more may have come.
    """
    flight = _Flight(iter(jobs), in_flight, wanted)
    pauses = 0
    while True:
        output = flight.take()
        if not flight.sent:
            return
        told: Iterable[Told]
        try:
            message = yield output
            told = flight.receive(message) if message is not None else ()
            pauses = 0
        except ServerTimeout as error:
            yield from flight.abandon(error)
            return
        except ServerUnreachable as error:
            told = list(flight.lose(error))
            yield from told
            if not flight.again:
                yield from flight.abandon(error)
                return
            yield Pause(min(FIRST_PAUSE_SECONDS * 2**pauses, LONGEST_PAUSE_SECONDS))
            pauses += 1
            continue
        except ServerError as error:
            yield CLOSE
            told = list(flight.lose(error))
        yield from told


class _Sent:
    """A job that has not ended. joined: the positions of other jobs with its function and unique, which end with it."""

    __slots__ = ("data", "handle", "job", "joined", "position", "retries")

    def __init__(self, position: int, job: Submission, retries: int) -> None:
        self.position = position
        self.job = job
        self.retries = retries
        self.handle = b""
        self.data: bytearray | None = None
        self.joined: list[int] | None = None


class _Flight:
    """The jobs of one ``do_many``."""

    def __init__(self, coming: Iterator[Submission], in_flight: int, wanted: Collection[int]) -> None:
        self.sent = 0
        self.again: deque[_Sent] = deque()
        self._coming = coming
        self._position = 0
        self._in_flight = in_flight
        self._wanted = frozenset(wanted)
        self._unacknowledged: deque[_Sent] = deque()  # JOB_CREATED and ERROR come in the order of the submits
        self._running: dict[bytes, _Sent] = {}
        self._keys: dict[tuple[bytes, bytes, bytes], _Sent] = {}
        self._excepted: set[bytes] = set()  # Perl's server sends WORK_FAIL after WORK_EXCEPTION

    def take(self) -> bytes:
        """Return the packets of the jobs that may be sent."""
        if self.sent >= self._in_flight:
            return b""
        output = []
        while self.sent < self._in_flight:
            if self.again:
                entry = self.again.popleft()
                entry.handle, entry.data = b"", None
            else:
                job = next(self._coming, None)
                if job is None:
                    break
                entry = _Sent(self._position, job, job.retries)
                self._position += 1
                if _is_keyed(job) and self._joins(entry):
                    continue
            output.append(_foreground(entry.job))
            self._unacknowledged.append(entry)
            self.sent += 1
        return b"".join(output)

    def receive(self, message: Message) -> Iterable[Told]:
        """Return what a message tells."""
        kind, arguments = message
        if kind == PacketType.JOB_CREATED and self._unacknowledged:
            entry = self._unacknowledged.popleft()
            entry.handle = handle = arguments[0]
            if handle in self._running:
                raise ServerError(f"the server gave the handle {shown(handle)} twice")
            self._running[handle] = entry
            return self._event(entry, kind, (handle,)) if kind in self._wanted else ()
        if kind == PacketType.ERROR and self._unacknowledged:
            refused = self._unacknowledged.popleft()
            error = refusal(arguments)
            error.fill(function=shown(refused.job.function))
            return self._ended(refused, None, error)
        if kind not in _FINAL and kind not in _PROGRESS:
            raise unexpected(kind, arguments)
        handle = arguments[0]
        found = self._running.get(handle)
        if found is None:
            return self._receive_other(kind, handle, arguments)
        if kind == PacketType.WORK_COMPLETE:
            del self._running[handle]
            result = arguments[1]
            if found.data is not None:
                found.data += result
                result = bytes(found.data)
            return self._ended(found, result, None)
        if kind == PacketType.WORK_DATA and kind not in self._wanted:
            if found.data is None:
                found.data = bytearray()
            found.data += arguments[1]
            if len(found.data) > RESULT_MAX_BYTES:
                raise ServerError(f"the result of a job has more than {RESULT_MAX_BYTES} bytes")
            return ()
        if kind in _PROGRESS:
            return self._event(found, kind, tuple(arguments[1:])) if kind in self._wanted else ()
        del self._running[handle]
        exception = b""
        if kind == PacketType.WORK_EXCEPTION:
            self._excepted.add(handle)
            exception = arguments[1]
        return self._failed(found, JobFailed(shown(handle), exception))

    def lose(self, error: ServerError) -> Iterator[Told]:
        """Return what it means that the connection is lost, or could not be made."""
        lost = [*self._running.values(), *self._unacknowledged]
        self._running.clear()
        self._unacknowledged.clear()
        for entry in lost:
            yield from self._failed(entry, error_for(error, "", shown(entry.handle)))

    def abandon(self, error: ServerError) -> Iterator[Told]:
        """Return the ends of all jobs that have not ended, also of those that were not sent."""
        left = [*self._running.values(), *self._unacknowledged, *self.again]
        self._running.clear()
        self._unacknowledged.clear()
        self.again.clear()
        for entry in left:
            yield from self._ended(entry, None, error_for(error, shown(entry.job.function), shown(entry.handle)))
        for job in self._coming:
            yield JobEnded(self._position, None, error_for(error, shown(job.function)))
            self._position += 1

    def _joins(self, entry: _Sent) -> bool:
        """Join a job that is on its way, if there is one of the same function and unique.

        The server would do the same, but would send each packet once for each of them.
        """
        job = entry.job
        leader = self._keys.setdefault(_key(job), entry)
        if leader is entry:
            return False
        if leader.joined is None:
            leader.joined = []
        leader.joined.append(entry.position)
        return True

    def _receive_other(self, kind: int, handle: bytes, arguments: Any) -> Iterable[Told]:
        """Receive what is about no job that runs."""
        if handle.endswith(b"\0"):
            # gearmand 1.1.20 makes such a WORK_FAIL of a WORK_EXCEPTION.
            return self.receive((kind, (handle.rstrip(b"\0"), *arguments[1:])))
        if kind == PacketType.WORK_FAIL and handle in self._excepted:
            self._excepted.discard(handle)
            return ()
        raise ServerError(f"the server told of a job that was not asked for: {shown(handle)[:80]}")

    def _event(self, entry: _Sent, kind: int, arguments: tuple[bytes, ...]) -> list[Told]:
        return [JobEvent(position, kind, arguments) for position in (entry.position, *(entry.joined or ()))]

    def _failed(self, entry: _Sent, error: JobFailed | ServerError) -> list[Told]:
        error.fill(function=shown(entry.job.function))
        if entry.retries <= 0:
            return self._ended(entry, None, error)
        entry.retries -= 1
        self.sent -= 1
        self.again.append(entry)
        return [JobRetried(position, error) for position in (entry.position, *(entry.joined or ()))]

    def _ended(self, entry: _Sent, result: bytes | None, error: JobFailed | ServerError | None) -> list[Told]:
        self.sent -= 1
        if _is_keyed(entry.job):
            self._keys.pop(_key(entry.job), None)
        handle = shown(entry.handle)
        ended: list[Told] = [JobEnded(entry.position, result, error, handle)]
        if entry.joined:
            ended += [JobEnded(position, result, error, handle) for position in entry.joined]
        return ended


def _is_keyed(job: Submission) -> bool:
    return bool(job.unique) and (job.unique != b"-" or bool(job.workload))


def _key(job: Submission) -> tuple[bytes, bytes, bytes]:
    return job.function, job.unique, job.workload if job.unique == b"-" else b""


def _foreground(job: Submission) -> bytes:
    if job.reducer is not None:
        # The fourth is libgearman's aggregator flag, which servers read and drop.
        return encode_request(PacketType.SUBMIT_REDUCE_JOB, job.function, job.unique, job.reducer, b"0", job.workload)
    return encode_request(_FOREGROUND[job.priority], job.function, job.unique, job.workload)
