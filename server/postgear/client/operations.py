"""What a client asks of a server, as generators that do no I/O: which packets answer which, and what they mean.

An operation yields bytes to send (perhaps none) and is then sent the next message of the same connection, as
``PacketReader.feed`` returns it; its return value is the answer. ``do_many`` also yields ``JobEnded``, after which it
wants None. Drivers: ``links.Link.run``, a test with plain values.

Not here: sockets, time, several servers. After any exception but JobFailed, ServerRefused and StopIteration the connection
may be in the middle of an exchange and is of no more use. Standard library only, relative imports: it is embedded into
the extension's script.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Final, NamedTuple

from ..errors import JobFailed, ServerError, ServerRefused
from ..wire.connection import TEXT, Message
from ..wire.packet import PacketType, encode_request

HIGH: Final = 0
NORMAL: Final = 1
LOW: Final = 2

_FOREGROUND: Final = (PacketType.SUBMIT_JOB_HIGH, PacketType.SUBMIT_JOB, PacketType.SUBMIT_JOB_LOW)
_BACKGROUND: Final = (PacketType.SUBMIT_JOB_HIGH_BG, PacketType.SUBMIT_JOB_BG, PacketType.SUBMIT_JOB_LOW_BG)
RESULT_MAX_BYTES: Final = 1 << 30
"""More than PostgreSQL takes in one value."""


class Submission(NamedTuple):
    """A job to submit. unique: empty for none, ``-`` for the workload itself. priority: HIGH, NORMAL or LOW."""

    function: bytes
    workload: bytes
    unique: bytes = b""
    priority: int = NORMAL


class Status(NamedTuple):
    """What STATUS_RES says about a job; all zero for one the server does not know."""

    known: bool
    running: bool
    numerator: int
    denominator: int


class JobEnded(NamedTuple):
    """The end of the job at *position* of those given to ``do_many``: a result, or else an exception."""

    position: int
    result: bytes | None
    error: JobFailed | ServerError | None


def echo() -> Generator[bytes, Message, None]:
    """Ask for a sign of life."""
    _, arguments = yield from _ask(PacketType.ECHO_REQ, (b"postgear",), PacketType.ECHO_RES)
    if list(arguments) != [b"postgear"]:
        raise ServerError("the server's echo is another text")


def want_exceptions() -> Generator[bytes, Message, None]:
    """Ask to be told what workers say about failed jobs; without it there is only WORK_FAIL."""
    yield from _ask(PacketType.OPTION_REQ, (b"exceptions",), PacketType.OPTION_RES)


def submit(job: Submission, epoch: int | None = None) -> Generator[bytes, Message, bytes]:
    """Submit a background job and return its handle; with *epoch* (Unix time) not before then, and of normal priority."""
    if epoch is None:
        packet_type = _BACKGROUND[job.priority]
        words: Sequence[bytes] = (job.function, job.unique, job.workload)
    else:
        packet_type = PacketType.SUBMIT_JOB_EPOCH
        words = (job.function, job.unique, b"%d" % epoch, job.workload)
    _, arguments = yield from _ask(packet_type, words, PacketType.JOB_CREATED)
    return arguments[0]


def get_status(handle: bytes) -> Generator[bytes, Message, Status]:
    """Ask for the state of a job."""
    _, arguments = yield from _ask(PacketType.GET_STATUS, (handle,), PacketType.STATUS_RES)
    known, running, numerator, denominator = (int(word or b"0") for word in arguments[1:5])
    return Status(bool(known), bool(running), numerator, denominator)


def admin_line(line: bytes) -> Generator[bytes, Message, bytes]:
    """Send an admin command that is answered with one line and return that line, also if it begins with ERR."""
    kind, arguments = yield line + b"\r\n"
    if kind != TEXT:
        raise _unexpected(kind, arguments)
    return arguments[0]


def do(job: Submission, warn: Callable[[bytes], None]) -> Generator[bytes, Message, bytes]:
    """Run a job and return its result: the data of WORK_DATA and WORK_COMPLETE, one after the other.

    warn: called with the text of each WORK_WARNING. Raises JobFailed, ServerRefused.
    """
    many = do_many((job,), 1, warn)
    step = next(many)
    while True:
        if isinstance(step, JobEnded):
            if step.error is not None:
                raise step.error
            return step.result or b""
        step = many.send((yield step))


def do_many(
    jobs: Iterable[Submission], in_flight: int, warn: Callable[[bytes], None]
) -> Generator[bytes | JobEnded, Message | None, None]:
    """Run jobs, at most *in_flight* at a time, and yield a ``JobEnded`` for each, in the order in which they end."""
    waiting = enumerate(jobs)
    unacknowledged: deque[int] = deque()  # JOB_CREATED and ERROR come in the order of the submits
    running: dict[bytes, list[int]] = {}  # jobs of one unique have one handle
    data: dict[bytes, bytearray] = {}
    free = in_flight
    while True:
        output = []
        while free:
            index, job = next(waiting, (-1, None))
            if job is None:
                break
            output.append(encode_request(_FOREGROUND[job.priority], job.function, job.unique, job.workload))
            unacknowledged.append(index)
            free -= 1
        if free == in_flight:
            return
        message = yield b"".join(output)
        assert message is not None
        kind, arguments = message
        ended: list[int] = []
        result: bytes | None = None
        error: JobFailed | ServerRefused | None = None
        if kind == PacketType.JOB_CREATED and unacknowledged:
            running.setdefault(arguments[0], []).append(unacknowledged.popleft())
            continue
        if kind == PacketType.ERROR and unacknowledged:
            ended = [unacknowledged.popleft()]
            error = _refusal(arguments)
        elif kind in (PacketType.WORK_DATA, PacketType.WORK_COMPLETE):
            received = data.setdefault(arguments[0], bytearray())
            received += arguments[1]
            if len(received) > RESULT_MAX_BYTES:
                raise ServerError(f"the result of a job has more than {RESULT_MAX_BYTES} bytes")
            if kind == PacketType.WORK_DATA:
                continue
            # A job joined twice is told of twice; the second time nobody is left here.
            ended = running.pop(arguments[0], [])
            result = bytes(data.pop(arguments[0]))
        elif kind in (PacketType.WORK_FAIL, PacketType.WORK_EXCEPTION):
            ended = running.pop(arguments[0].rstrip(b"\0"), [])
            data.pop(arguments[0].rstrip(b"\0"), None)
            error = JobFailed(arguments[0].rstrip(b"\0"), arguments[1] if kind == PacketType.WORK_EXCEPTION else b"")
        elif kind == PacketType.WORK_WARNING:
            warn(arguments[1])
        elif kind != PacketType.WORK_STATUS:
            raise _unexpected(kind, arguments)
        for index in ended:
            free += 1
            yield JobEnded(index, result, error)


def _ask(packet_type: int, words: Sequence[bytes], answer: int) -> Generator[bytes, Message, Message]:
    """Send a packet and return its answer, which must be of type *answer*. Raises ServerRefused for ERROR."""
    kind, arguments = yield encode_request(packet_type, *words)
    if kind == PacketType.ERROR:
        raise _refusal(arguments)
    if kind != answer:
        raise _unexpected(kind, arguments)
    return kind, arguments


def _refusal(arguments: Sequence[bytes]) -> ServerRefused:
    code, text = (word.decode("utf-8", "backslashreplace") for word in arguments)
    return ServerRefused(code, text)


def _unexpected(kind: int, arguments: Sequence[bytes]) -> ServerError:
    if kind < 0:
        said = b" ".join(arguments).decode("utf-8", "backslashreplace")
        return ServerError(f"the server sent what is no Gearman packet: {said[:200]}")
    return ServerError(f"the server sent a packet of type {kind} that answers nothing")
