"""What a client asks of a server, as generators that do no I/O: which packets answer which, and what they mean.

An operation yields bytes to send (perhaps none) and is then sent the next message of the same connection, as
``PacketReader.feed`` returns it; None instead says that nothing has come and that there may be more to send. A ServerError
thrown in instead of a message says that the connection is lost, that there is none, or (ServerTimeout) that time is up.
Its return value is the answer. ``jobs.do_many`` and ``submit_many`` yield more than bytes, and then want None
if nothing else is said:

- ``CLOSE``: the connection is of no more use; the next bytes go over another one.
- ``WHERE``: the answer is the server that is connected, or was last, as text.
- ``Pause``: wait before what comes next.
- anything else is for the caller.

Who carries them out: ``calls.Call``, a test with plain values. Not here: sockets, time, several servers, and jobs that are
waited for (``jobs``). After any exception but JobFailed, ServerRefused and StopIteration the connection may be in the middle
of an exchange and is of no more use. Standard library only, relative imports: it is embedded into the extension's script.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Final, NamedTuple, cast

from ..errors import NotAllSubmitted, ServerError, ServerRefused, ServerTimeout, ServerUnreachable, UnknownJob
from ..wire.connection import TEXT, Message
from ..wire.packet import PacketType, encode_request

HIGH: Final = 0
NORMAL: Final = 1
LOW: Final = 2

CLOSE: Final = object()
WHERE: Final = object()
CHUNK_JOBS: Final = 5_000
CHUNK_BYTES: Final = 1 << 20
"""What ``submit_many`` sends at a time, whichever is less; the next chunk goes when half of it is acknowledged."""

_BACKGROUND: Final = (PacketType.SUBMIT_JOB_HIGH_BG, PacketType.SUBMIT_JOB_BG, PacketType.SUBMIT_JOB_LOW_BG)
_NUMBER_MAX_DIGITS: Final = 20
_LIST_COMMANDS: Final = (b"status", b"prioritystatus", b"workers", b"show")
"""The admin commands that answer with lines up to a lone ``.``."""


class Submission(NamedTuple):
    """A job to submit. unique: empty for none, ``-`` for the workload itself. priority: HIGH, NORMAL or LOW.

    run_at: Unix time, None for at once; a background job of normal priority. reducer: the function that reduces, of normal
    priority. retries: how often a job that is waited for is submitted again, when it failed or its server went away.
    """

    function: bytes
    workload: bytes
    unique: bytes = b""
    priority: int = NORMAL
    run_at: int | None = None
    reducer: bytes | None = None
    retries: int = 0


class Status(NamedTuple):
    """What a server says about a job; all zero for one it does not know. clients: how many wait, None where it was not asked."""

    known: bool
    running: bool
    numerator: int
    denominator: int
    clients: int | None = None


class Pause(NamedTuple):
    """A step that is nothing but time."""

    seconds: float


def echo(data: bytes = b"postgear") -> Generator[bytes, Message, bytes]:
    """Ask for a sign of life."""
    arguments = yield from _ask(encode_request(PacketType.ECHO_REQ, data), PacketType.ECHO_RES)
    if list(arguments) != [data]:
        raise ServerError("the server's echo is another text")
    return data


def want_exceptions() -> Generator[bytes, Message, None]:
    """Ask to be told what workers say about failed jobs; without it there is only WORK_FAIL."""
    yield from _ask(encode_request(PacketType.OPTION_REQ, b"exceptions"), PacketType.OPTION_RES)


def submit(job: Submission) -> Generator[bytes, Message, bytes]:
    """Submit a background job and return its handle."""
    try:
        return (yield from _ask(_background(job), PacketType.JOB_CREATED))[0]
    except ServerError as error:
        error.fill(function=shown(job.function))
        raise


def submit_many(jobs: Iterable[Submission]) -> Generator[Any, Any, list[str]]:
    """Submit background jobs without waiting for each, and return their handles in the same order.

    What was sent to a server that went away is not sent again; the others go to another server. Raises NotAllSubmitted
    if any is not known to be queued. What *jobs* raises is raised as it is if nothing was sent before; else the jobs before it
    are submitted, and NotAllSubmitted has it.
    """
    raised: list[Exception] = []
    coming = _read(jobs, raised)
    handles: list[str | None] = []
    errors: dict[int, ServerError] = {}
    unacknowledged: deque[tuple[int, bytes]] = deque()
    low = 0
    while True:
        output = []
        if len(unacknowledged) <= low:
            is_first = not handles
            size = 0
            for job in islice(coming, CHUNK_JOBS):
                output.append(_background(job))
                unacknowledged.append((len(handles), job.function))
                handles.append(None)
                size += len(output[-1])
                if size >= CHUNK_BYTES:
                    break
            if raised and is_first:
                raise raised[0]
            low = len(output) // 2
        if not unacknowledged:
            break
        error: ServerError
        try:
            message = yield b"".join(output)
            if message is None:
                continue
            kind, arguments = message
            if kind == PacketType.JOB_CREATED:
                handles[unacknowledged.popleft()[0]] = arguments[0].decode("utf-8", "backslashreplace")
                continue
            if kind != PacketType.ERROR:
                raise unexpected(kind, arguments)
        except ServerError as caught:
            if not isinstance(caught, ServerUnreachable):
                caught.fill((yield WHERE))
            for position, function in unacknowledged:
                errors[position] = error_for(caught, shown(function))
            unacknowledged.clear()
            if isinstance(caught, (ServerTimeout, ServerUnreachable)):
                for job in coming:
                    errors[len(handles)] = error_for(caught, shown(job.function))
                    handles.append(None)
                break
            yield CLOSE
        else:
            position, function = unacknowledged.popleft()
            error = errors[position] = refusal(arguments)
            error.fill((yield WHERE), shown(function))
    if raised:
        raise NotAllSubmitted(handles, errors, raised[0]) from raised[0]
    if errors:
        raise NotAllSubmitted(handles, errors)
    return cast("list[str]", handles)  # none is missing without an error


def get_status(handle: bytes) -> Generator[bytes, Message, Status]:
    """Ask for the state of a job."""
    arguments = yield from _ask(encode_request(PacketType.GET_STATUS, handle), PacketType.STATUS_RES)
    known, running, numerator, denominator = map(_number, arguments[1:5])
    return Status(bool(known), bool(running), numerator, denominator)


def get_status_of_unique(unique: bytes) -> Generator[bytes, Message, Status]:
    """Ask for the state of the job with this unique, of whatever function."""
    arguments = yield from _ask(encode_request(PacketType.GET_STATUS_UNIQUE, unique), PacketType.STATUS_RES_UNIQUE)
    known, running, numerator, denominator, clients = map(_number, arguments[1:6])
    return Status(bool(known), bool(running), numerator, denominator, clients)


def admin_line(line: bytes) -> Generator[bytes, Message, bytes]:
    """Send an admin command that is answered with one line and return that line, also if it begins with ERR."""
    kind, arguments = yield line + b"\r\n"
    if kind != TEXT:
        raise unexpected(kind, arguments)
    return arguments[0]


def admin_command(line: bytes) -> Generator[bytes, Message, list[str]]:
    """Send any admin command and return the lines of its answer. Raises UnknownJob or ServerRefused for ERR.

    Bytes that are not UTF-8 are shown as ``\\xff``.
    """
    first = (yield from admin_line(line)).decode("utf-8", "backslashreplace")
    many = line.split(b" ")[0].lower() in _LIST_COMMANDS
    if first.startswith("ERR") and not (many and "\t" in first):
        if first.startswith("ERR UNKNOWN_JOB"):
            handle = line.split(b" ")[-1].decode("utf-8", "backslashreplace")
            raise UnknownJob(f"there is no job {handle}: it has ended, or never was")
        said = first[3:].strip().replace("+", " ")
        code, _, text = said.partition(" ")
        # "ERR UNKNOWN_COMMAND Unknown+server+command", but also "ERR function not found".
        raise ServerRefused(code, text) if code.isupper() else ServerRefused("ERR", said)
    if not many:
        return [first]
    lines = []
    text = first
    while text != ".":
        lines.append(text)
        kind, arguments = yield b""
        if kind != TEXT:
            raise unexpected(kind, arguments)
        text = arguments[0].decode("utf-8", "backslashreplace")
    return lines


def refusal(arguments: Sequence[bytes]) -> ServerRefused:
    """Return the error that an ERROR packet is."""
    code, text = (word.decode("utf-8", "backslashreplace") for word in arguments)
    return ServerRefused(code, text)


def unexpected(kind: int, arguments: Sequence[bytes]) -> ServerError:
    """Return the error for a message that answers nothing."""
    if kind < 0:
        said = b" ".join(arguments).decode("utf-8", "backslashreplace")
        return ServerError(f"the server sent what is no Gearman packet: {said[:200]}")
    return ServerError(f"the server sent a packet of type {kind} that answers nothing")


def error_for(error: ServerError, function: str, handle: str = "") -> ServerError:
    """Return a copy of an error of a connection, for one of the jobs that it concerns."""
    copy = type(error)(*error.args)
    copy.__cause__ = error.__cause__
    copy.fill(error.server, function, handle)
    return copy


def shown(name: bytes) -> str:
    """Return a name as messages show it."""
    return name.decode("utf-8", "backslashreplace")


def _read(jobs: Iterable[Submission], raised: list[Exception]) -> Iterator[Submission]:
    """Yield *jobs* up to what they raise, which is put into *raised*."""
    try:
        yield from jobs
    except Exception as error:
        raised.append(error)


def _background(job: Submission) -> bytes:
    if job.reducer is not None:
        # The fourth is libgearman's aggregator flag, which servers read and drop.
        return encode_request(PacketType.SUBMIT_REDUCE_JOB_BACKGROUND, job.function, job.unique, job.reducer, b"0", job.workload)
    if job.run_at is not None:
        return encode_request(PacketType.SUBMIT_JOB_EPOCH, job.function, job.unique, b"%d" % job.run_at, job.workload)
    return encode_request(_BACKGROUND[job.priority], job.function, job.unique, job.workload)


def _ask(packet: bytes, answer: int) -> Generator[bytes, Message, Sequence[bytes]]:
    """Send a packet and return the arguments of its answer, which must be of type *answer*. Raises ServerRefused for ERROR."""
    kind, arguments = yield packet
    if kind == PacketType.ERROR:
        raise refusal(arguments)
    if kind != answer:
        raise unexpected(kind, arguments)
    return arguments


def _number(word: bytes) -> int:
    if word and not (word.isdigit() and len(word) <= _NUMBER_MAX_DIGITS):
        raise ServerError(f"the server sent what is no number: {shown(word)[:40]}")
    return int(word or b"0")
