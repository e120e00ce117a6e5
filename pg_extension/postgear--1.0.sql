-- Made by pg_extension/build.py from sql/functions/gman_*.sql, pg_extension/functions/ and server/postgear/.
\echo Use "CREATE EXTENSION postgear" to load this file. \quit

create or replace function gman_runtime() returns boolean
language plpython3u
as $runtime$
# Internal: load the Gearman client into this session, as GD["gman 12426c6fdcbc"].
#
# Its modules are those of the Python package postgear, written here by build.py; they get a package name of their own,
# so that they meet no postgear installed for this Python. PL/Python puts a tab before each line, also in literals.
import sys
import types

MODULES = [
('', True, r''''''),
('errors', False, r'''"""Every error postgear raises, in one tree.

What concerns a server or a job names them: *server*, *function*, *handle*.

::

    PostgearError
      ConfigError          a setting is missing, malformed or contradicts another
      SchemaError          the database has no postgear schema, or one of another version
      StoreError           the database did not do what was asked
        StoreUnavailable   it could not be reached; nothing is known to have changed
          StoreRefused     it does not let us in: no such database or role, a wrong password
        StoreInDoubt       a commit was sent and its outcome is not known; never an ack
      EnqueueError         a job could not be queued in an application's transaction
        InvalidJob         there can be no such job (a ValueError, too)
        UnsupportedConnection  the object is no connection that can be used (a TypeError, too)
        QueueFull          the function has as many jobs as it may
      EmbeddedError        the embedded PostgreSQL could not be set up or started
      StandbyError         a standby could not be set up, promoted or rejoined, or it refused
      OutboxError          MariaDB or MySQL did not do what was asked
        OutboxUnavailable  it could not be reached, or the connection broke
        OutboxRefused      it does not let us in, or lacks what is needed; the text has the statement to run
      ProtocolError        the peer sent bytes that are not Gearman; carries the ERROR code
      ServerError          a Gearman server answered with ERROR or could not be reached
        ServerUnreachable  there is no connection to any server; nothing was sent
        ServerTimeout      no answer came in time; what was sent may have been done
        ServerRefused      the server answered ERROR; carries its code
        UnknownJob         it knows no job of this handle
        NotAllSubmitted    of many jobs some were not submitted; carries the handles of the others
      PayloadError         a payload or result is not what its function says (a ValueError, too)
      JobFailed            the worker reported that the job failed; carries what it said
      JobLost              the job that a worker runs is another's now; its result does not count
"""

from __future__ import annotations


class PostgearError(Exception):
    """The root of the tree."""

    exit_code = 1


class ConfigError(PostgearError):
    """A setting is missing, malformed or contradicts another."""

    exit_code = 2


class SchemaError(PostgearError):
    """The database has no postgear schema, or one of another version."""

    exit_code = 3


class StoreError(PostgearError):
    """The database did not do what was asked."""

    exit_code = 4


class StoreUnavailable(StoreError):
    """The database could not be reached; nothing is known to have changed."""


class StoreRefused(StoreUnavailable):
    """The database does not let us in: there is no such database or role, or the password is wrong."""


class StoreInDoubt(StoreError):
    """A commit was sent and its outcome is not known; it must not be acknowledged."""


class EnqueueError(PostgearError):
    """A job could not be queued in an application's transaction."""


class InvalidJob(EnqueueError, ValueError):
    """There can be no such job: a name too long, a payload that is not JSON, an unknown priority."""


class UnsupportedConnection(EnqueueError, TypeError):
    """The object is no connection, or one of a database other than PostgreSQL."""


class QueueFull(EnqueueError):
    """*function* has as many jobs as its limits allow; nothing was queued, and the transaction can go on."""

    def __init__(self, function: str) -> None:
        super().__init__(f"the queue of function {function!r} is full")
        self.function = function


class EmbeddedError(PostgearError):
    """The embedded PostgreSQL could not be set up or started."""

    exit_code = 5


class StandbyError(PostgearError):
    """A standby could not be set up, promoted or rejoined, or it refused because something might be lost."""

    exit_code = 8


class OutboxError(PostgearError):
    """MariaDB or MySQL, which has an outbox, did not do what was asked."""

    exit_code = 9


class OutboxUnavailable(OutboxError):
    """MariaDB or MySQL could not be reached, or the connection broke; what was under way may have been done."""


class OutboxRefused(OutboxError):
    """MariaDB or MySQL does not let us in or lacks what is needed; the text says what to do about it."""


class ProtocolError(PostgearError):
    """The peer sent bytes that are not Gearman.

    *code* is the word of the ERROR packet (libgearman's name without ``GEARMAN_``).
    """

    def __init__(self, code: str, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code
        self.text = text


class _Place:
    """What an error is about, as far as it is known: *server* (host:port), *function*, *handle*; empty where it is not."""

    server = ""
    function = ""
    handle = ""

    def fill(self, server: str = "", function: str = "", handle: str = "") -> None:
        """Say what the error is about, where that is not known yet."""
        self.server = self.server or server
        self.function = self.function or function
        self.handle = self.handle or handle

    def __str__(self) -> str:
        text = super().__str__()
        if self.server:
            text = f"server {self.server}: {text}"
        about = [f"{kind} {name}" for kind, name in (("function", self.function), ("job", self.handle)) if name]
        return f"{text} ({', '.join(about)})" if about else text


class ServerError(_Place, PostgearError):
    """A Gearman server answered with ERROR, closed the connection or could not be reached.

    *server*, *function* and *handle* name what was asked of whom, as far as it is known.
    """

    exit_code = 6


class ServerUnreachable(ServerError):
    """There is no connection to any server; nothing was sent."""


class ServerTimeout(ServerError):
    """No answer came in time; what was sent may have been done."""


class ServerRefused(ServerError):
    """The server answered ERROR.

    *code* is the word of the packet (libgearman's name without ``GEARMAN_``), *text* what it says about it.
    """

    def __init__(self, code: str, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code
        self.text = text


class UnknownJob(ServerError):
    """A Gearman server knows no job of this handle: it has ended, or there never was one."""

    exit_code = 7


class NotAllSubmitted(ServerError):
    """Of many jobs some were not submitted, or may not have been; the others are.

    *handles*: by position, None for those. *errors*: by position; ServerUnreachable was not sent, ServerRefused is not queued,
    of any other it is not known. *raised*: the exception that ended the jobs, which are those before it; else None.
    """

    def __init__(self, handles: list[str | None], errors: dict[int, ServerError], raised: Exception | None = None) -> None:
        told = []
        if errors:
            first = min(errors)
            told.append(f"{len(errors)} of {len(handles)} jobs were not submitted; the first is number {first}: {errors[first]}")
        if raised is not None:
            told.append(
                f"there are no more than {len(handles)} jobs, for number {len(handles)} raised {type(raised).__name__}: {raised}"
            )
        super().__init__("; ".join(told))
        self.handles = handles
        self.errors = errors
        self.raised = raised


class PayloadError(_Place, PostgearError, ValueError):
    """A payload or result is not what its function says it is. Of a result *server*, *function* and *handle* are known."""


class JobFailed(_Place, PostgearError):
    """The worker reported that the job failed.

    *exception* is what it said about it (WORK_EXCEPTION), empty if it only failed (WORK_FAIL). *server*, *function* and *handle*
    name the job.
    """

    def __init__(self, handle: str, exception: bytes, function: str = "", server: str = "") -> None:
        super().__init__(exception.decode("utf-8", "backslashreplace"))
        self.handle = handle
        self.exception = exception
        self.function = function
        self.server = server

    def __str__(self) -> str:
        place = " at ".join(filter(None, (f"function {self.function}" if self.function else "", self.server)))
        text = str(self.args[0])
        return f"job {self.handle} failed" + (f" ({place})" if place else "") + (f": {text}" if text else "")


class JobLost(PostgearError):
    """The job that a worker runs is another's now: it was given out again, cancelled or has ended. Its result does not count."""
'''),
('wire', True, r'''"""Gearman on the wire, without I/O: bytes to packets and back.

Not here: what a packet means (that is ``dispatch``) and how bytes travel (that is ``daemon`` and ``client``).
Standard library only and Python 3.9, so that these modules can be embedded where nothing else is installed.
"""
'''),
('wire.packet', False, r'''"""Packet types, their arguments, and how packets are written.

A packet is a header of 12 bytes (magic, type, body length; big endian) and a body: arguments joined by one NUL.
Only the last argument may hold NULs. Source: Gearman PROTOCOL, "Binary Packet"; numbers seen on gearmand 1.1.20.
"""

from __future__ import annotations

from enum import IntEnum
from struct import Struct
from typing import Final

REQUEST_MAGIC: Final = b"\0REQ"
RESPONSE_MAGIC: Final = b"\0RES"
HEADER: Final = Struct(">4sII")
HEADER_BYTES: Final = HEADER.size

UNIQUE_MAX_BYTES: Final = 64
"""gearmand refuses a unique of 65 bytes."""
FUNCTION_MAX_BYTES: Final = 512
"""libgearman's GEARMAN_FUNCTION_MAX_SIZE."""
HANDLE_MAX_BYTES: Final = 63
"""libgearman's GEARMAND_JOB_HANDLE_SIZE less its NUL."""


class PacketType(IntEnum):
    """The packet types, named as in PROTOCOL."""

    CAN_DO = 1
    CANT_DO = 2
    RESET_ABILITIES = 3
    PRE_SLEEP = 4
    NOOP = 6
    SUBMIT_JOB = 7
    JOB_CREATED = 8
    GRAB_JOB = 9
    NO_JOB = 10
    JOB_ASSIGN = 11
    WORK_STATUS = 12
    WORK_COMPLETE = 13
    WORK_FAIL = 14
    GET_STATUS = 15
    ECHO_REQ = 16
    ECHO_RES = 17
    SUBMIT_JOB_BG = 18
    ERROR = 19
    STATUS_RES = 20
    SUBMIT_JOB_HIGH = 21
    SET_CLIENT_ID = 22
    CAN_DO_TIMEOUT = 23
    ALL_YOURS = 24
    WORK_EXCEPTION = 25
    OPTION_REQ = 26
    OPTION_RES = 27
    WORK_DATA = 28
    WORK_WARNING = 29
    GRAB_JOB_UNIQ = 30
    JOB_ASSIGN_UNIQ = 31
    SUBMIT_JOB_HIGH_BG = 32
    SUBMIT_JOB_LOW = 33
    SUBMIT_JOB_LOW_BG = 34
    SUBMIT_JOB_SCHED = 35
    SUBMIT_JOB_EPOCH = 36
    SUBMIT_REDUCE_JOB = 37
    SUBMIT_REDUCE_JOB_BACKGROUND = 38
    GRAB_JOB_ALL = 39
    JOB_ASSIGN_ALL = 40
    GET_STATUS_UNIQUE = 41
    STATUS_RES_UNIQUE = 42


ARGUMENT_COUNT: Final = {
    PacketType.CAN_DO: 1,
    PacketType.CANT_DO: 1,
    PacketType.RESET_ABILITIES: 0,
    PacketType.PRE_SLEEP: 0,
    PacketType.NOOP: 0,
    PacketType.SUBMIT_JOB: 3,
    PacketType.JOB_CREATED: 1,
    PacketType.GRAB_JOB: 0,
    PacketType.NO_JOB: 0,
    PacketType.JOB_ASSIGN: 3,
    PacketType.WORK_STATUS: 3,
    PacketType.WORK_COMPLETE: 2,
    PacketType.WORK_FAIL: 1,
    PacketType.GET_STATUS: 1,
    PacketType.ECHO_REQ: 1,
    PacketType.ECHO_RES: 1,
    PacketType.SUBMIT_JOB_BG: 3,
    PacketType.ERROR: 2,
    PacketType.STATUS_RES: 5,
    PacketType.SUBMIT_JOB_HIGH: 3,
    PacketType.SET_CLIENT_ID: 1,
    PacketType.CAN_DO_TIMEOUT: 2,
    PacketType.ALL_YOURS: 0,
    PacketType.WORK_EXCEPTION: 2,
    PacketType.OPTION_REQ: 1,
    PacketType.OPTION_RES: 1,
    PacketType.WORK_DATA: 2,
    PacketType.WORK_WARNING: 2,
    PacketType.GRAB_JOB_UNIQ: 0,
    PacketType.JOB_ASSIGN_UNIQ: 4,
    PacketType.SUBMIT_JOB_HIGH_BG: 3,
    PacketType.SUBMIT_JOB_LOW: 3,
    PacketType.SUBMIT_JOB_LOW_BG: 3,
    PacketType.SUBMIT_JOB_SCHED: 8,
    PacketType.SUBMIT_JOB_EPOCH: 4,
    PacketType.SUBMIT_REDUCE_JOB: 5,
    PacketType.SUBMIT_REDUCE_JOB_BACKGROUND: 5,
    PacketType.GRAB_JOB_ALL: 0,
    PacketType.JOB_ASSIGN_ALL: 5,
    PacketType.GET_STATUS_UNIQUE: 1,
    PacketType.STATUS_RES_UNIQUE: 6,
}
"""How many arguments each type has; gearmand's real forms where they differ from PROTOCOL."""


def encode_request(packet_type: int, *arguments: bytes) -> bytes:
    """Write a packet that goes to a server."""
    return _encode(REQUEST_MAGIC, packet_type, arguments)


def encode_response(packet_type: int, *arguments: bytes) -> bytes:
    """Write a packet that a server sends."""
    return _encode(RESPONSE_MAGIC, packet_type, arguments)


def _encode(magic: bytes, packet_type: int, arguments: tuple[bytes, ...]) -> bytes:
    body = b"\0".join(arguments)
    return HEADER.pack(magic, packet_type, len(body)) + body


def split_reduce(body: bytes) -> list[bytes] | None:
    """Split the body of a reduce job into function, unique, reducer, aggregator flag, data.

    Real clients send these five; PROTOCOL documents four, without the flag. The flag is one character or empty, so a
    longer fourth field is taken as the start of the data of the documented form. None: separators are missing.
    """
    fields = body.split(b"\0", 4)
    if len(fields) == 5 and len(fields[3]) <= 1:
        return fields
    fields = body.split(b"\0", 3)
    if len(fields) < 4:
        return None
    return [*fields[:3], b"", fields[3]]
'''),
('wire.connection', False, r'''"""Bytes in, messages out: the parser for one connection.

``PacketReader.feed`` takes whatever the socket gave and returns the messages completed by it, as ``(kind, arguments)``.
*kind* is a packet type (also one that does not exist: the body length keeps the stream in step), or one of the
negative kinds below. It never raises: what is wrong with the peer's bytes is a message too, so that it is answered in
its place among the replies.

Source: PROTOCOL; the first byte of each message decides between a packet (NUL) and an admin line (anything else).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from .packet import ARGUMENT_COUNT, HEADER, HEADER_BYTES, REQUEST_MAGIC, RESPONSE_MAGIC, PacketType, split_reduce

Message = tuple[int, Sequence[bytes]]

TEXT: Final = -1
"""An admin line; arguments: the line without its end."""
INVALID: Final = -2
"""Answer with ERROR; arguments: code, text. The stream is still in step."""
FATAL: Final = -3
"""Answer with ERROR, then close; arguments: code, text. What follows cannot be understood."""
FATAL_TEXT: Final = -4
"""Answer with an admin ERR line, then close; arguments: code, text."""

TEXT_MAX_BYTES: Final = 8192
"""gearmand's receive buffer: no longer admin line exists."""
DEFAULT_MAX_PACKET_BYTES: Final = 64 * 1024 * 1024

_SPLITS = {int(kind): count - 1 for kind, count in ARGUMENT_COUNT.items()}
_REDUCE = (int(PacketType.SUBMIT_REDUCE_JOB), int(PacketType.SUBMIT_REDUCE_JOB_BACKGROUND))
_DATA_MAY_LACK = (int(PacketType.WORK_COMPLETE), int(PacketType.WORK_DATA), int(PacketType.WORK_WARNING))
"""Perl's worker leaves the separator out when the data is empty (Gearman::Worker 2.004)."""
_NONE: tuple[bytes, ...] = ()


class PacketReader:
    """Parse one direction of one connection.

    magic: the magic this side expects (requests at a server, responses at a client).
    max_packet_bytes: a longer body is refused as soon as its header is seen and skipped as it arrives, never buffered.
    max_text_bytes: of an admin line; an answer may have longer ones than a command.
    """

    def __init__(
        self,
        magic: bytes = REQUEST_MAGIC,
        max_packet_bytes: int = DEFAULT_MAX_PACKET_BYTES,
        max_text_bytes: int = TEXT_MAX_BYTES,
    ) -> None:
        self._max_text_bytes = max_text_bytes
        self._magic = magic
        self._max_packet_bytes = max_packet_bytes
        self._chunks: list[bytes] = []
        self._have = 0  # bytes in _chunks
        self._need = 0  # no message can be complete below this many bytes; spares joining a large body again and again
        self._skip = 0  # bytes of a refused body still to come
        self._dead = False

    def feed(self, data: bytes) -> list[Message]:
        """Return the messages completed by *data*, in order."""
        if self._dead:
            return []
        if self._have:
            self._chunks.append(data)
            self._have += len(data)
            if self._have < self._need:
                return []
            data = b"".join(self._chunks)
            self._chunks.clear()
            self._have = 0
        messages: list[Message] = []
        append = messages.append
        unpack = HEADER.unpack_from
        splits = _SPLITS
        magic_expected = self._magic
        maximum = self._max_packet_bytes
        position = 0
        end = len(data)
        self._need = 0
        while position < end:
            if self._skip:
                skipped = min(self._skip, end - position)
                self._skip -= skipped
                position += skipped
                continue
            if data[position]:
                newline = data.find(b"\n", position, position + self._max_text_bytes + 1)
                if newline < 0:
                    if end - position > self._max_text_bytes:
                        text = b"A line may have %d bytes" % self._max_text_bytes
                        return self._die(messages, FATAL_TEXT, b"LINE_TOO_LONG", text)
                    break
                append((TEXT, (data[position:newline].rstrip(b"\r"),)))
                position = newline + 1
                continue
            if end - position < HEADER_BYTES:
                if data[position : position + 4] != magic_expected[: end - position] and self._is_garbage(data, position):
                    return self._die(messages, FATAL, b"INVALID_MAGIC", b"Request magic expected")
                break
            magic, kind, length = unpack(data, position)
            if magic != magic_expected:
                if magic not in (REQUEST_MAGIC, RESPONSE_MAGIC):
                    return self._die(messages, FATAL, b"INVALID_MAGIC", b"Request magic expected")
                append((INVALID, (b"INVALID_MAGIC", b"Request magic expected")))
                position += HEADER_BYTES
                self._skip = length
                continue
            if length > maximum:
                text = b"A packet may have %d bytes, this one has %d" % (maximum, length)
                append((INVALID, (b"ARGUMENT_TOO_LARGE", text)))
                position += HEADER_BYTES
                self._skip = length
                continue
            start = position + HEADER_BYTES
            stop = start + length
            if stop > end:
                self._need = stop - position
                break
            position = stop
            split = splits.get(kind, -1)
            if split < 0:
                append((kind, _NONE))
                continue
            if split == 0:
                append((kind, (data[start:stop],)))
                continue
            if kind in _REDUCE:
                fields = split_reduce(data[start:stop])
            else:
                fields = data[start:stop].split(b"\0", split)
                if len(fields) == split and kind in _DATA_MAY_LACK:
                    fields.append(b"")
                elif len(fields) <= split:
                    fields = None
            if fields is None:
                text = b"%s needs %d arguments" % (PacketType(kind).name.encode(), split + 1)
                append((INVALID, (b"INVALID_PACKET", text)))
            else:
                append((kind, fields))
        if position < end:
            rest = data[position:] if position else data
            self._chunks.append(rest)
            self._have = len(rest)
        return messages

    def _is_garbage(self, data: bytes, position: int) -> bool:
        start = data[position : position + 4]
        return not (REQUEST_MAGIC.startswith(start) or RESPONSE_MAGIC.startswith(start))

    def _die(self, messages: list[Message], kind: int, code: bytes, text: bytes) -> list[Message]:
        self._dead = True
        messages.append((kind, (code, text)))
        return messages
'''),
('client', True, r'''"""Talking to a Gearman server from this side of the socket."""
'''),
('client.operations', False, r'''"""What a client asks of a server, as generators that do no I/O: which packets answer which, and what they mean.

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
'''),
('client.jobs', False, r'''"""Jobs that are waited for, as a generator that does no I/O: submits, progress, ends, and what is submitted again.

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
'''),
('client.calls', False, r'''"""Carrying out operations at a list of servers: failover, back-off, connections kept; without doing I/O.

A ``Call`` drives one operation (see ``operations``) over the connections of a ``Pool``. It is a generator of what only a driver
can do, which ``links`` does by blocking and ``aio`` by awaiting:

- ``Connect``: answer with a new ``Channel``.
- a ``Channel``: send what is written to it, and return when it has messages.
- ``Pause``: sleep.
- anything else is for the caller; answer with None.

What a driver could not do it throws in as ServerError.

Failover: the servers are tried in their order until one answers; one that did not is tried last for BACK_OFF_SECONDS.
Standard library only, relative imports: it is embedded into the extension's script.
"""

from __future__ import annotations

import math
import os
import socket
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Generator, Iterable, Sequence
from typing import Any, Final, Generic, NamedTuple, TypeVar

from ..errors import (
    JobFailed,
    NotAllSubmitted,
    PayloadError,
    ServerError,
    ServerRefused,
    ServerTimeout,
    ServerUnreachable,
    UnknownJob,
)
from ..wire.connection import Message, PacketReader
from ..wire.packet import RESPONSE_MAGIC
from .jobs import RESULT_MAX_BYTES, JobEvent
from .operations import CLOSE, WHERE, Pause, echo, want_exceptions

DEFAULT_PORT: Final = 4730
CONNECT_SECONDS: Final = 3.0
"""How long one server may take to be connected to, or to prove that it is still there."""
BACK_OFF_SECONDS: Final = 10.0
FRESH_SECONDS: Final = 5.0
"""A connection unused for longer must echo first: a firewall may have forgotten it without telling."""
FLUSH_SECONDS: Final = 0.002
"""What is written goes with what is written next, but not later than this if the caller comes between."""
ANSWER_LINE_MAX_BYTES: Final = 1 << 26
"""A line of ``workers`` has all functions of a worker."""

T = TypeVar("T")


class Address(NamedTuple):
    """Where a server listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_servers(text: str) -> list[Address]:
    """Read ``host:port,host:port``: ports may be left out, IPv6 stands in brackets. Raise ValueError for anything else."""
    addresses = []
    for part in filter(None, (word.strip() for word in text.split(","))):
        host, colon, port = part.rpartition(":")
        if not colon or part.endswith("]"):
            host, port = part, str(DEFAULT_PORT)
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        elif ":" in host:
            raise ValueError(part)
        if not host or any(map(str.isspace, host)) or not (port.isascii() and port.isdigit() and 0 < int(port) <= 65535):
            raise ValueError(part)
        addresses.append(Address(host, int(port)))
    return addresses


class Channel(ABC):
    """What every connection is: an address, messages that have come, and a time until which it may be waited for more.

    deadline: monotonic seconds. used_at: when an operation last ended on it.
    """

    def __init__(self, address: Address, deadline: float) -> None:
        self.address = address
        self.deadline = deadline
        self.used_at = self.flushed_at = time.monotonic()
        self.messages: deque[Message] = deque()
        self._output: list[bytes] = []
        self._reader = PacketReader(RESPONSE_MAGIC, RESULT_MAX_BYTES, ANSWER_LINE_MAX_BYTES)

    def write(self, data: bytes) -> None:
        """Have *data* sent, together with what else is written before the next wait."""
        self._output.append(data)

    @abstractmethod
    def flush(self) -> None:
        """Send what can be sent without waiting. Raises ServerError."""

    @abstractmethod
    def is_quiet(self) -> bool:
        """Tell whether the connection is open, as far as is known here, and nothing has come that nobody asked for."""

    @abstractmethod
    def close(self) -> None:
        """Close the connection; more than once is fine."""

    def error(self, kind: type[ServerError], text: str) -> ServerError:
        """Return an error about this server."""
        error = kind(text)
        error.fill(str(self.address))
        return error

    def lost(self, cause: OSError | None) -> ServerError:
        """Return the error for a connection that has ended, because of *cause* or at the server's wish."""
        if cause is None:
            return self.error(ServerError, "closed the connection")
        error = self.error(ServerError, f"the connection was lost: {cause.strerror or cause}")
        error.__cause__ = cause
        return error


class Connect(NamedTuple):
    """A step: connect by *deadline* (monotonic seconds), or throw ServerUnreachable or ServerTimeout."""

    address: Address
    deadline: float


class Pool:
    """The connections that are kept, and which servers failed lately. For several threads at once.

    wants_exceptions: ask each new connection to tell what workers say about failed jobs.
    """

    def __init__(self, *, wants_exceptions: bool = True) -> None:
        self.wants_exceptions = wants_exceptions
        self._lock = threading.Lock()
        self._process_id = os.getpid()
        self._idle: dict[Address, list[Any]] = {}
        self._failed_at: dict[Address, float] = {}

    def close(self) -> None:
        """Close the connections that are kept."""
        with self._lock:
            idle, self._idle = self._idle, {}
        for channels in idle.values():
            for channel in channels:
                channel.close()

    def keep(self, channel: Channel) -> None:
        """Take back a connection whose operation has come to its end."""
        channel.used_at = time.monotonic()
        with self._lock:
            self._idle.setdefault(channel.address, []).append(channel)

    def take(self, address: Address) -> Any:
        """Return a connection that was kept, the one used last, or None. It may have ended."""
        with self._lock:
            if self._process_id != os.getpid():  # after a fork they are the parent's: each would read answers to the other
                self._process_id, self._idle = os.getpid(), {}
            channels = self._idle.get(address)
            return channels.pop() if channels else None

    def failed(self, address: Address) -> None:
        """Say that a server could not be connected to, or went away."""
        self._failed_at[address] = time.monotonic()

    def answered(self, address: Address) -> None:
        """Say that a server is there."""
        self._failed_at.pop(address, None)

    def in_order(self, addresses: Iterable[Address]) -> list[Address]:
        """Return the servers in the order in which to try them."""
        since = time.monotonic() - BACK_OFF_SECONDS
        return sorted(dict.fromkeys(addresses), key=lambda address: self._failed_at.get(address, since) > since)


class Call(Generic[T]):
    """One operation at one of *addresses*, or where it goes on after a server was lost, at several.

    deadline: monotonic seconds, ``math.inf`` for none; after it the operation is told ServerTimeout. *server* is the one that
    is connected, or was last, for messages. patience: seconds that a server may be silent; told as ServerTimeout, too.
    """

    def __init__(
        self,
        pool: Pool,
        addresses: Sequence[Address],
        deadline: float,
        operation: Generator[Any, Any, T],
        patience: float | None = None,
    ) -> None:
        self.server = ""
        self._patience = patience
        self.deadline = deadline
        self._pool = pool
        self._addresses = addresses
        self._operation = operation
        self._channel: Channel | None = None

    def open(self) -> Generator[Any, Any, None]:
        """Connect to the first server that answers, over a kept connection or a new one.

        Raises ServerUnreachable, naming why for each server, or ServerTimeout when the time is up already.
        """
        if time.monotonic() >= self.deadline:
            raise ServerTimeout("the time was up before a server was connected to")
        errors: list[ServerError] = []
        for address in self._pool.in_order(self._addresses):
            try:
                self._channel = yield from self._open_one(address)
            except ServerError as error:
                self._pool.failed(address)
                error.fill(str(address))
                errors.append(error)
                if time.monotonic() >= self.deadline:
                    break
            else:
                self._pool.answered(address)
                self.server = str(address)
                return
        if len(errors) == 1:
            alone = ServerUnreachable(str(errors[0].args[0]))
            alone.fill(errors[0].server)
            raise alone from errors[0].__cause__
        raise ServerUnreachable("; ".join(map(str, errors))) from errors[-1].__cause__

    def steps(self) -> Generator[Any, Any, T]:
        """Carry out the operation; yields what only a driver can do and what is for the caller. Returns the answer.

        A connection whose operation did not come to its end is closed, so that nobody takes its answers for those to another.
        """
        operation = self._operation
        finished = False
        try:
            step = next(operation)
            while True:
                if type(step) is bytes:
                    try:
                        if self._channel is None:
                            yield from self.open()
                        message = yield from self._exchange(step)
                    except ServerError as error:
                        self._drop(is_failed=not isinstance(error, ServerTimeout))
                        step = operation.throw(error)
                    else:
                        step = operation.send(message)
                    continue
                if step is WHERE:
                    step = operation.send(self.server)
                    continue
                if step is CLOSE:
                    self._drop(is_failed=True)
                elif type(step) is Pause:
                    yield Pause(max(0.0, min(step.seconds, self.deadline - time.monotonic())))
                else:
                    self._before_caller(step)
                    yield step
                step = operation.send(None)
        except StopIteration as end:
            finished = True
            value: T = end.value
            return value
        except (JobFailed, PayloadError, ServerRefused, UnknownJob) as error:
            finished = True
            error.fill(self.server)
            raise
        except NotAllSubmitted:
            finished = True
            raise
        except ServerError as error:
            if not isinstance(error, ServerUnreachable):
                error.fill(self.server)
            raise
        finally:
            operation.close()
            channel, self._channel = self._channel, None
            if channel is not None and finished and not channel.messages:
                self._pool.keep(channel)
            elif channel is not None:
                channel.close()

    def close(self) -> None:
        """Close the connection of a call whose steps were not begun."""
        if self._channel is not None:
            self._channel.close()

    def _exchange(self, data: bytes) -> Generator[Any, Any, Message | None]:
        channel = self._channel
        assert channel is not None
        if data:
            channel.write(data)
        messages = channel.messages
        if not messages:
            channel.deadline = self.deadline
            if self._patience is not None:
                channel.deadline = min(self.deadline, time.monotonic() + self._patience)
            yield channel
        return messages.popleft() if messages else None

    def _before_caller(self, told: Any) -> None:
        """Complete what is for the caller, and let nobody wait for what is written while the caller takes its time."""
        if type(told) is not JobEvent and told.error is not None and not isinstance(told.error, ServerUnreachable):
            told.error.fill(self.server)
        channel = self._channel
        if channel is not None and channel._output:
            now = time.monotonic()
            if now - channel.flushed_at > FLUSH_SECONDS:
                channel.flush()

    def _drop(self, *, is_failed: bool) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()
            if is_failed:
                self._pool.failed(channel.address)

    def _open_one(self, address: Address) -> Generator[Any, Any, Channel]:
        while True:
            soon = min(self.deadline, time.monotonic() + CONNECT_SECONDS)
            channel: Channel | None = self._pool.take(address)
            is_kept = channel is not None
            if channel is None:
                channel = yield Connect(address, soon)
            is_usable = False
            try:
                if not is_kept:
                    if self._pool.wants_exceptions:
                        yield from _talk(channel, want_exceptions(), soon)
                    is_usable = True
                elif channel.is_quiet():
                    if time.monotonic() - channel.used_at > FRESH_SECONDS:
                        yield from _talk(channel, echo(), soon)
                    is_usable = True
            except ServerError:
                if not is_kept:
                    raise
            finally:
                if not is_usable:
                    channel.close()
            if is_usable:
                return channel


def _talk(channel: Channel, operation: Generator[bytes, Message, T], deadline: float) -> Generator[Any, Any, T]:
    """Carry out an operation on a connection of its own."""
    channel.deadline = deadline
    try:
        step = next(operation)
        while True:
            channel.write(step)
            while not channel.messages:
                yield channel
            step = operation.send(channel.messages.popleft())
    except StopIteration as end:
        value: T = end.value
        return value


def keep_alive(connection: Any) -> None:
    """Have the kernel find out, within two minutes, that the host at the other end of a socket is gone."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 6)):
        if hasattr(socket, name):  # not everywhere
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def deadline_after(timeout: float | None) -> float:
    """Return the monotonic time *timeout* seconds from now; None is never."""
    return math.inf if timeout is None else time.monotonic() + timeout
'''),
('client.links', False, r'''"""The blocking driver of calls: sockets of the standard library.

A wait lasts at most TICK_SECONDS where a ``tick`` is given; between two it is called, and whatever it raises ends the wait.
The extension's tick lets PostgreSQL cancel the statement. Several threads may use one ``Links``; each call has a connection
of its own.

Standard library only, relative imports: it is embedded into the extension's script.
"""

from __future__ import annotations

import math
import os
import select
import socket
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, Final, Generic, TypeVar, cast

from ..errors import ServerError, ServerTimeout, ServerUnreachable
from .calls import Address, Call, Channel, Connect, Pool, keep_alive
from .jobs import Told
from .operations import Pause

TICK_SECONDS: Final = 0.1
_LONGEST_WAIT_SECONDS: Final = 86_400.0
"""poll() counts milliseconds in an int."""
_RECEIVE_BYTES: Final = 256 * 1024

T = TypeVar("T")
Tick = Callable[[], None]


class Links:
    """The connections of one process; as many to a server as calls are made at the same time, kept between them."""

    def __init__(self, tick: Tick | None = None, *, wants_exceptions: bool = True) -> None:
        self._tick = tick
        self._pool = Pool(wants_exceptions=wants_exceptions)

    def close(self) -> None:
        """Close the connections that no call uses."""
        self._pool.close()

    def run(self, addresses: Sequence[Address], deadline: float, operation: Generator[Any, Any, T]) -> T:
        """Carry out an operation on the first server that answers; *deadline*: monotonic seconds."""
        return self.start(addresses, deadline, operation).run()

    def start(
        self,
        addresses: Sequence[Address],
        deadline: float,
        operation: Generator[Any, Any, T],
        patience: float | None = None,
    ) -> Running[T]:
        """Prepare to carry out an operation step by step. patience: seconds that a server may be silent."""
        return Running(Call(self._pool, addresses, deadline, operation, patience), self._tick)


class Running(Generic[T]):
    """A call under way. It must be advanced to its end, or closed."""

    answer: T

    def __init__(self, call: Call[T], tick: Tick | None) -> None:
        self.call = call
        self.is_ended = False
        self._tick = tick
        self._steps = call.steps()
        self._step: Any = None

    def open(self) -> None:
        """Connect before the first step. Raises ServerError."""
        opening = self.call.open()
        try:
            step = next(opening)
            while True:
                step = self._take(opening, step, math.inf)
        except StopIteration:
            pass

    def run(self) -> T:
        """Advance to the end and return the answer."""
        while not self.is_ended:
            self.advance()
        return self.answer

    def advance(self, until: float = math.inf) -> Told | None:
        """Return what is told next; None at the end, where *answer* has the answer, or when *until* (monotonic) has passed.

        Raises what the operation raises.
        """
        steps = self._steps
        try:
            step = steps.send(None)
            while True:
                if isinstance(step, (Channel, Connect, Pause)):
                    step = self._take(steps, step, until)
                    if step is None:
                        return None
                else:
                    return cast("Told", step)
        except StopIteration as end:
            self.is_ended = True
            self.answer = end.value
            return None
        except BaseException:
            self.close()
            raise

    def told(self) -> Iterator[Told]:
        """Return an iterator over all that is told; it closes the call if it is not read to its end."""
        try:
            while not self.is_ended:
                told = self.advance()
                if told is not None:
                    yield told
        finally:
            self.close()

    def close(self) -> None:
        """End the call where it is; its connection is closed. Nothing happens if it has ended."""
        self.is_ended = True
        self._steps.close()
        self.call.close()

    def _take(self, steps: Generator[Any, Any, Any], step: Any, until: float) -> Any:
        """Do what a step asks for and return the next; None when *until* came first."""
        try:
            if isinstance(step, Link):
                if not step.receive(until):
                    return None
                answer = None
            elif isinstance(step, Connect):
                answer = Link(step.address, step.deadline, self._tick)
            else:
                answer = None
                _sleep(step.seconds, self._tick)
        except ServerError as error:
            return steps.throw(error)
        return steps.send(answer)


class Link(Channel):
    """One connection, opened at once."""

    def __init__(self, address: Address, deadline: float, tick: Tick | None) -> None:
        super().__init__(address, deadline)
        self._tick = tick
        self._unsent = memoryview(b"")
        self._socket = self._connect()

    def close(self) -> None:
        """Be Channel.close."""
        self._socket.close()

    def is_quiet(self) -> bool:
        """Be Channel.is_quiet."""
        return self._socket.fileno() >= 0 and not self.messages and not self._wait(select.POLLIN, 0.0)

    def flush(self) -> None:
        """Send what the kernel takes at once; ``receive`` sends the rest, so that two full buffers never face each other."""
        if self._output:
            self._unsent = memoryview(b"".join((self._unsent, *self._output)))
            self._output.clear()
            self.flushed_at = time.monotonic()
        try:
            while self._unsent:
                self._unsent = self._unsent[self._socket.send(self._unsent) :]
        except BlockingIOError:
            pass
        except OSError as error:
            raise self.lost(error) from error

    def receive(self, until: float) -> bool:
        """Send what is written and return when there are messages; false when *until* (monotonic seconds) came first.

        Raises ServerTimeout at the deadline, ServerError when the connection has ended.
        """
        self.flush()
        while not self.messages:
            events = self._wait_until(select.POLLIN | (select.POLLOUT if self._unsent else 0), until)
            if not events:
                return False
            if events & select.POLLOUT:
                self.flush()
            if events & ~select.POLLOUT:
                self.messages.extend(self._reader.feed(self._read()))
        return True

    def _connect(self) -> socket.socket:
        error: OSError | None = None
        try:
            found = socket.getaddrinfo(self.address.host, self.address.port, type=socket.SOCK_STREAM)
        except OSError as caught:
            raise self.error(ServerUnreachable, f"cannot be found: {caught.strerror or caught}") from caught
        for family, kind, protocol, _, place in found:
            self._socket = socket.socket(family, kind, protocol)
            try:
                self._socket.setblocking(False)
                try:
                    self._socket.connect(place)
                except BlockingIOError:
                    self._wait_until(select.POLLOUT, math.inf)
                if number := self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    raise OSError(number, os.strerror(number))
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                keep_alive(self._socket)
                return self._socket
            except OSError as caught:
                self._socket.close()
                error = caught
            except BaseException:
                self._socket.close()
                raise
        raise self.error(ServerUnreachable, f"cannot be reached: {(error and error.strerror) or error}") from error

    def _read(self) -> bytes:
        try:
            data = self._socket.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return b""
        except OSError as error:
            raise self.lost(error) from error
        if not data:
            raise self.lost(None)
        return data

    def _wait_until(self, events: int, until: float) -> int:
        while True:
            left = min(self.deadline, until) - time.monotonic()
            if found := self._wait(events, max(left, 0.0) if self._tick is None else min(TICK_SECONDS, max(left, 0.0))):
                return found
            if left <= 0:
                if until < self.deadline:
                    return 0
                raise self.error(ServerTimeout, "did not answer in time")
            if self._tick is not None:
                self._tick()

    def _wait(self, events: int, seconds: float) -> int:
        # Not select(): a backend with many files open has descriptors that it cannot take.
        poll = select.poll()
        poll.register(self._socket, events)
        found = poll.poll(math.ceil(min(seconds, _LONGEST_WAIT_SECONDS) * 1000))
        return found[0][1] if found else 0


def _sleep(seconds: float, tick: Tick | None) -> None:
    ends_at = time.monotonic() + seconds
    while (left := ends_at - time.monotonic()) > 0:
        time.sleep(left if tick is None else min(TICK_SECONDS, left))
        if tick is not None:
            tick()
'''),
('client.backend', False, r'''"""The client inside a PostgreSQL backend: what the extension's PL/Python functions do.

``plpy`` is an argument, so that this file is an ordinary module here; ``pg_extension/build.py`` embeds it, and what it
imports, into the extension's script. One Backend lives as long as the session and keeps its connections.

Every error leaves as an SQL error with a SQLSTATE of docs/sql.md. Standard library only, relative imports, Python 3.9.
"""

from __future__ import annotations

import codecs
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from ..errors import JobFailed, PostgearError, ServerError, ServerRefused, ServerTimeout, ServerUnreachable
from ..wire.packet import FUNCTION_MAX_BYTES, HANDLE_MAX_BYTES, UNIQUE_MAX_BYTES, PacketType
from .calls import Address, parse_servers
from .jobs import JobEnded, JobEvent, do, do_many
from .links import Links, Running
from .operations import NORMAL, Status, Submission, admin_line, echo, get_status, submit

DEFAULT_TIMEOUT_SECONDS: Final = 30.0
DEFAULT_IN_FLIGHT: Final = 100
IN_FLIGHT_MAX: Final = 10_000

_SETTINGS: Final = """
select pg_catalog.current_setting('gman.servers', true) as servers,
    pg_catalog.current_setting('gman.function_servers', true) as function_servers,
    pg_catalog.date_part('epoch',
        case when pg_catalog.length(pg_catalog.current_setting('gman.timeout', true)) operator(pg_catalog.>) 0
            then pg_catalog.current_setting('gman.timeout', true)::pg_catalog.interval end) as timeout
"""

_QUEUE_JOB: Final = "select postgear.queue_job($1, $2, $3, $4, $5) as handle"
_QUEUE_JOB_TYPES: Final = ("bytea", "bytea", "bytea", "int2", "timestamptz")
_EPOCH: Final = "select pg_catalog.ceil(pg_catalog.date_part('epoch', $1))::pg_catalog.int8 as epoch"

_SQLSTATES: Final = (
    (JobFailed, "38000"),  # external_routine_exception
    (ServerTimeout, "HYT00"),  # ODBC's "timeout expired"
    (ServerUnreachable, "08001"),  # sqlclient_unable_to_establish_sqlconnection
    (ServerError, "08006"),  # connection_failure
)
_REFUSALS: Final = {
    "QUEUE_ERROR": "53400",  # configuration_limit_exceeded, as postgear.submit_job raises for a full queue
    "ARGUMENT_TOO_LARGE": "22001",  # string_data_right_truncation
}


class Ended(NamedTuple):
    """A row of gman_do_many."""

    ordinality: int
    result: bytes | None
    error: str | None


class Checked(NamedTuple):
    """A row of gman_servers_check."""

    server: str
    reachable: bool
    version: str | None
    milliseconds: float | None
    error: str | None


class Backend:
    """The operations of the SQL functions; arguments as PL/Python passes them, None for SQL's null."""

    def __init__(self, plpy: Any) -> None:
        self._plpy = plpy
        self._plans: dict[str, Any] = {}
        self._links = Links(self._tick)
        self._sums: dict[int, tuple[str, list[Submission]]] = {}
        self._last_sum = 0
        self._codec: str | None = None
        # PL/Python puts the class's name before the message; as part of no module it reads "postgear: ...".
        nothing = dict.fromkeys(
            ("detail", "hint", "schema_name", "table_name", "column_name", "datatype_name", "constraint_name")
        )
        self._sql_error: Callable[[str], Any] = type("postgear", (plpy.Error,), {"__module__": "__main__", **nothing})

    def wait(
        self, function: bytes | None, workload: bytes | None, unique: bytes | None, priority: int, timeout: float | None
    ) -> bytes:
        """Run a job and return its result."""
        job = self._job(function, workload, unique, priority)
        addresses, deadline = self._where(job.function, timeout)
        with self._errors():
            return self._links.run(addresses, deadline, do(job, self._warn)).result or b""

    def send(
        self, function: bytes | None, workload: bytes | None, unique: bytes | None, priority: int, run_at: str | None
    ) -> str:
        """Submit a background job to the servers set for its function, else to the queue here; return its handle.

        run_at: a timestamptz as the session writes it.
        """
        job = self._job(function, workload, unique, priority)
        if not self._servers_set(job.function):
            handle: str = self._row(_QUEUE_JOB, *_QUEUE_JOB_TYPES)(*job[:4], run_at)["handle"]
            return handle
        epoch = None if run_at is None else self._row(_EPOCH, "timestamptz")(run_at)["epoch"]
        if epoch is not None and priority != NORMAL:
            raise self._error("0A000", "a scheduled job has normal priority at a Gearman server")
        deadline = self._deadline(None)
        with self._errors():
            answer = self._links.run(self._addresses(job.function), deadline, submit(job._replace(run_at=epoch)))
        return answer.decode("ascii", "backslashreplace")

    def wait_many(
        self,
        function: bytes | None,
        workloads: Sequence[bytes | None] | None,
        uniques: Sequence[bytes | None] | None,
        in_flight: int | None,
        timeout: float | None,
    ) -> Iterator[Ended]:
        """Run a job for each workload and return an iterator over their ends, as they come.

        Of what PL/Python's iterators raise only a DETAIL remains, so that all that can be wrong before the first job is raised
        here, and a connection that ends on the way is the error of each job that had not ended.
        """
        workloads = workloads or ()
        if uniques and len(uniques) != len(workloads):
            raise self._error("22023", f"{len(workloads)} workloads, but {len(uniques)} uniques")
        jobs = [
            self._job(function, workload, unique, NORMAL)
            for workload, unique in zip(workloads, uniques or [None] * len(workloads))
        ]
        return (
            Ended(ended.position + 1, ended.result, None if ended.error is None else self._showable(str(ended.error)))
            for ended in self._run_many(jobs, in_flight, timeout)
        )

    def sum_add(self, number: int | None, function: bytes | None, workload: bytes | None, unique: bytes | None) -> int:
        """Remember a job for the sum with this number, a new one for None; return the number.

        The jobs are kept here, not in the aggregate's state: PostgreSQL would copy that for every row.
        """
        transaction = self._row("select pg_catalog.transaction_timestamp()::pg_catalog.text as started")()["started"]
        job = self._job(function, workload, unique, NORMAL)
        if number is None:
            # Sums of transactions that are over came to no end.
            self._sums = {number: entry for number, entry in self._sums.items() if entry[0] == transaction}
            self._last_sum += 1
            number = self._last_sum
            self._sums[number] = (transaction, [])
        self._sums[number][1].append(job)
        return number

    def sum_end(self, number: int | None) -> int | None:
        """Run the jobs of a sum and return the sum of the integers that the results begin with; None without jobs."""
        if number is None:
            return None
        total = 0
        for ended in self._run_many(self._sums.pop(number)[1], None, None):
            with self._errors():
                if ended.error is not None:
                    raise ended.error
            total += self._leading_integer(ended.result or b"")
        return total

    def status(self, handle: str) -> tuple[bool, bool, int, int]:
        """Ask the servers set for the state of a job; the first that knows it answers."""
        status = Status(False, False, 0, 0)
        for address in self._servers_for_handle(handle):
            with self._errors():
                status = self._links.run((address,), self._deadline(None), get_status(handle.encode()))
            if status.known:
                break
        return status[:4]

    def cancel(self, handle: str) -> bool:
        """Ask the servers set to cancel a job; true if one of them knew it."""
        for address in self._servers_for_handle(handle):
            with self._errors():
                answer = self._links.run((address,), self._deadline(None), admin_line(b"cancel job " + handle.encode()))
            if answer.startswith(b"OK"):
                return True
        return False

    def check(self) -> list[Checked]:
        """Connect to each server that would be used."""
        return [self._check_one(address, self._deadline(None)) for address in self._addresses(b"")]

    def _check_one(self, address: Address, deadline: float) -> Checked:
        started = time.monotonic()
        try:
            self._links.run((address,), deadline, echo())
            milliseconds = round((time.monotonic() - started) * 1000, 3)
            version = self._links.run((address,), deadline, admin_line(b"version")).decode("ascii", "replace")
        except ServerError as error:
            return Checked(str(address), False, None, None, str(error))
        return Checked(str(address), True, version[3:] if version.startswith("OK ") else version, milliseconds, None)

    def normalize_servers(self, text: str) -> str:
        """Return a list of servers as gman.servers keeps it."""
        return ",".join(map(str, self._parse(text)))

    def _run_many(self, jobs: Sequence[Submission], in_flight: int | None, timeout: float | None) -> Iterator[JobEnded]:
        """Open a link and return an iterator over the ends of *jobs*, in the order in which they end."""
        in_flight = DEFAULT_IN_FLIGHT if in_flight is None else in_flight
        if not 0 < in_flight <= IN_FLIGHT_MAX:
            raise self._error("22023", f"in_flight must be between 1 and {IN_FLIGHT_MAX}, {in_flight} given")
        if not jobs:
            return iter(())
        addresses, deadline = self._where(jobs[0].function, timeout)
        running = self._links.start(addresses, deadline, do_many(jobs, in_flight, (PacketType.WORK_WARNING,)))
        with self._errors():
            running.open()
        return self._ends(running)

    def _ends(self, running: Running[None]) -> Iterator[JobEnded]:
        for told in running.told():
            if isinstance(told, JobEnded):
                yield told
            elif isinstance(told, JobEvent):
                self._warn(told.arguments[0])

    def _job(self, function: bytes | None, workload: bytes | None, unique: bytes | None, priority: int) -> Submission:
        if function is None:
            raise self._error("22004", "the function must not be null")
        if len(function) > FUNCTION_MAX_BYTES:
            raise self._error("22001", f"a function name may have {FUNCTION_MAX_BYTES} bytes, this one has {len(function)}")
        unique = unique or b""
        if len(unique) > UNIQUE_MAX_BYTES:
            raise self._error("22001", f"a unique may have {UNIQUE_MAX_BYTES} bytes, this one has {len(unique)}")
        return Submission(function, workload or b"", unique, priority)

    def _where(self, function: bytes, timeout: float | None) -> tuple[list[Address], float]:
        return self._addresses(function), self._deadline(timeout)

    def _deadline(self, timeout: float | None) -> float:
        if timeout is None:
            timeout = self._row(_SETTINGS)()["timeout"]
        if timeout is None:
            timeout = DEFAULT_TIMEOUT_SECONDS
        if not timeout > 0:
            raise self._error("22023", f"a timeout must be more than 0 seconds, {timeout:g} given")
        return time.monotonic() + timeout

    def _addresses(self, function: bytes) -> list[Address]:
        """Return the servers for a function: set for it, else set for all, else those of this database's queue."""
        text = self._servers_set(function)
        if text:
            return self._parse(text)
        if not self._row("select pg_catalog.to_regproc('postgear.live_servers') is not null as found")()["found"]:
            raise self._error(
                "08001", "no Gearman server is set, and this database has no queue", "Set gman.servers, see gman_servers_set()."
            )
        text = self._row("select pg_catalog.string_agg(found, ',') as found from postgear.live_servers() as found")()["found"]
        if not text:
            raise self._error(
                "08001",
                "gman.servers is not set, and no server of this database's queue runs",
                "Start one with `postgear serve`, or set gman.servers, see gman_servers_set().",
            )
        return self._parse(text)

    def _servers_set(self, function: bytes) -> str | None:
        settings = self._row(_SETTINGS)()
        servers: str | None = settings["servers"]
        if settings["function_servers"]:
            try:
                servers = json.loads(settings["function_servers"]).get(function.decode("utf-8", "replace"), servers)
            except (ValueError, AttributeError):
                raise self._error("22023", "gman.function_servers is not a JSON object of function names") from None
        return servers

    def _servers_for_handle(self, handle: str) -> list[Address]:
        # A line of an admin command must not become two.
        if not (handle.isascii() and handle.isprintable()) or " " in handle or not 0 < len(handle) <= HANDLE_MAX_BYTES:
            return []
        return self._addresses(b"")

    def _parse(self, text: str) -> list[Address]:
        try:
            return parse_servers(text)
        except ValueError as error:
            raise self._error("22023", f'"{error}" is not HOST or HOST:PORT') from None

    def _leading_integer(self, result: bytes) -> int:
        """Return the integer that a result begins with, as C's atoi reads it; a result without one is an error."""
        words = result.split(None, 1)
        digits = words[0] if words else b""
        sign, digits = (digits[:1], digits[1:]) if digits[:1] in (b"+", b"-") else (b"", digits)
        end = next((index for index, byte in enumerate(digits) if not 48 <= byte <= 57), len(digits))
        if not end:
            raise self._error("22P02", f"the result of a job is no integer: {result[:40].decode('utf-8', 'backslashreplace')}")
        return int(sign + digits[:end])

    def _row(self, query: str, *types: str) -> Callable[..., Any]:
        """Return a function that runs a query, planned once a session, and returns its row."""
        plan = self._plans.get(query)
        if plan is None:
            plan = self._plans[query] = self._plpy.prepare(query, types)
        return lambda *arguments: plan.execute(arguments)[0]

    def _tick(self) -> None:
        """Let PostgreSQL see a cancel request, a statement timeout or the end of the session."""
        self._row("select pg_catalog.pg_sleep(0)")()

    def _warn(self, text: bytes) -> None:
        self._plpy.notice(self._showable(text.decode("utf-8", "backslashreplace")))

    def _showable(self, text: str) -> str:
        """Replace what the database's encoding has not, so that a message is not lost to an error about it."""
        if self._codec is None:
            encoding = self._row("select pg_catalog.getdatabaseencoding()::pg_catalog.text as name")()["name"]
            encoding = "UTF8" if encoding == "SQL_ASCII" else encoding.replace("WIN", "cp")
            try:
                self._codec = codecs.lookup(encoding).name
            except LookupError:
                self._codec = "ascii"
        return text.encode(self._codec, "backslashreplace").decode(self._codec)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except PostgearError as error:
            if isinstance(error, ServerRefused):
                sqlstate = _REFUSALS.get(error.code, "08P01")
            else:
                sqlstate = next(state for kind, state in _SQLSTATES if isinstance(error, kind))
            raise self._error(sqlstate, str(error)) from None

    def _error(self, sqlstate: str, message: str, hint: str | None = None) -> Exception:
        error = self._sql_error(self._showable(message))
        error.sqlstate = sqlstate
        error.hint = hint
        assert isinstance(error, Exception)
        return error
'''),
]

ROOT = "gman 12426c6fdcbc".replace(" ", "_")
for name, is_package, source in MODULES:
    module = types.ModuleType((ROOT + "." + name).rstrip("."))
    module.__package__ = module.__name__ if is_package else module.__name__.rpartition(".")[0]
    if is_package:
        module.__path__ = []
    sys.modules[module.__name__] = module
    exec(compile(source.replace("\n\t", "\n"), "<postgear " + name + ">", "exec"), module.__dict__)
GD["gman 12426c6fdcbc"] = sys.modules[ROOT + ".client.backend"].Backend(plpy)
return True
$runtime$;
comment on function gman_runtime() is 'postgear: internal, loads the Gearman client into the session';

-- What speaks Gearman, for the gman_* functions of sql/functions/. Internal: they take bytes and seconds only.
--
-- A session loads the client at its first call and keeps it, with its connections, in GD.

create or replace function gman_wait(
    function_name bytea, workload bytea, unique_key bytea, priority smallint, timeout double precision
) returns bytea
language plpython3u
volatile
as $$
# Internal: run a job and return its result. Called by: gman_do and its kin.
gman = GD.get("gman 12426c6fdcbc") or plpy.execute('''select @extschema@.gman_runtime()''') and GD["gman 12426c6fdcbc"]
return gman.wait(function_name, workload, unique_key, priority, timeout)
$$;
comment on function gman_wait(bytea, bytea, bytea, smallint, double precision)
    is 'postgear: internal, runs a job for gman_do';

create or replace function gman_send(
    function_name bytea, workload bytea, unique_key bytea, priority smallint, run_at timestamptz
) returns text
language plpython3u
volatile
as $$
# Internal: submit a background job to the servers set; to the local queue where only another function has servers.
# Called by: gman_do_background and its kin.
gman = GD.get("gman 12426c6fdcbc") or plpy.execute('''select @extschema@.gman_runtime()''') and GD["gman 12426c6fdcbc"]
return gman.send(function_name, workload, unique_key, priority, run_at)
$$;
comment on function gman_send(bytea, bytea, bytea, smallint, timestamptz)
    is 'postgear: internal, sends a background job to a Gearman server';

create or replace function gman_wait_many(
    function_name bytea, workloads bytea[], unique_keys bytea[], in_flight integer, timeout double precision
) returns table (ordinality bigint, result bytea, error text)
language plpython3u
volatile
rows 100
as $$
# Internal: run a job for each workload, yield each one's end. Called by: gman_do_many.
gman = GD.get("gman 12426c6fdcbc") or plpy.execute('''select @extschema@.gman_runtime()''') and GD["gman 12426c6fdcbc"]
return gman.wait_many(function_name, workloads, unique_keys, in_flight, timeout)
$$;
comment on function gman_wait_many(bytea, bytea[], bytea[], integer, double precision)
    is 'postgear: internal, runs the jobs of gman_do_many';

create or replace function gman_sum_queue(
    state bigint, function_name bytea, workload bytea, unique_key bytea
) returns bigint
language plpython3u
volatile
as $$
# Internal: remember a job for a sum. Called by: gman_sum_add.
gman = GD.get("gman 12426c6fdcbc") or plpy.execute('''select @extschema@.gman_runtime()''') and GD["gman 12426c6fdcbc"]
return gman.sum_add(state, function_name, workload, unique_key)
$$;
comment on function gman_sum_queue(bigint, bytea, bytea, bytea) is 'postgear: internal, a row of gman_sum';

create or replace function gman_sum_end(state bigint) returns bigint
language plpython3u
volatile
as $$
# Internal: run the jobs of a sum and add up their results. Called by: gman_sum.
gman = GD.get("gman 12426c6fdcbc") or plpy.execute('''select @extschema@.gman_runtime()''') and GD["gman 12426c6fdcbc"]
return gman.sum_end(state)
$$;
comment on function gman_sum_end(bigint) is 'postgear: internal, the end of gman_sum';

create or replace function gman_check()
returns table (server text, reachable boolean, version text, milliseconds double precision, error text)
language plpython3u
volatile
as $$
# Internal: connect to each server. Called by: gman_servers_check.
gman = GD.get("gman 12426c6fdcbc") or plpy.execute('''select @extschema@.gman_runtime()''') and GD["gman 12426c6fdcbc"]
return gman.check()
$$;
comment on function gman_check() is 'postgear: internal, connects to each server for gman_servers_check';

create or replace function gman_ask_status(handle text)
returns table (known boolean, running boolean, numerator bigint, denominator bigint)
language plpython3u
volatile
as $$
# Internal: ask the servers set for a job. Called by: gman_status.
gman = GD.get("gman 12426c6fdcbc") or plpy.execute('''select @extschema@.gman_runtime()''') and GD["gman 12426c6fdcbc"]
return [gman.status(handle)]
$$;
comment on function gman_ask_status(text) is 'postgear: internal, asks a Gearman server for gman_status';

create or replace function gman_ask_cancel(handle text) returns boolean
language plpython3u
volatile
as $$
# Internal: tell the servers set to cancel a job. Called by: gman_cancel.
gman = GD.get("gman 12426c6fdcbc") or plpy.execute('''select @extschema@.gman_runtime()''') and GD["gman 12426c6fdcbc"]
return gman.cancel(handle)
$$;
comment on function gman_ask_cancel(text) is 'postgear: internal, tells a Gearman server for gman_cancel';

create or replace function gman_normalize_servers(servers text) returns text
language plpython3u
volatile
as $$
# Internal: return a list of servers in one form, or raise 22023. Called by: gman_servers_set.
gman = GD.get("gman 12426c6fdcbc") or plpy.execute('''select @extschema@.gman_runtime()''') and GD["gman 12426c6fdcbc"]
return gman.normalize_servers(servers)
$$;
comment on function gman_normalize_servers(text) is 'postgear: internal, reads the list of gman_servers_set';

create or replace function gman_cancel(handle text) returns boolean
language plpgsql
volatile
strict
as $$
-- Remove a background job, queued, scheduled or running; false: there is none. The result of a running one is dropped.
--
-- Without servers set it is removed from this database's queue, in this transaction; with servers set they are told.
begin
    if coalesce(pg_catalog.current_setting('gman.servers', true), '') operator(pg_catalog.=) '' then
        return postgear.cancel_job(postgear.handle_id(handle));
    end if;
    return @extschema@.gman_ask_cancel(handle);
end
$$;
comment on function gman_cancel(text) is 'postgear: cancel a job (handle); true if there was one';

-- gman_do, gman_do_high, gman_do_low: run a job and wait for its result. For text, json, jsonb and bytea.
--
-- One body for all twelve, made here, so that they cannot drift; as short as it is, it is put into the caller's statement.
-- Names are qualified throughout: these run with the search_path of the caller.
do $make$
declare
    suffix text;
    priority integer;
    kind text;
    encoding text := case getdatabaseencoding() when 'SQL_ASCII' then 'SQL_ASCII' else 'UTF8' end;
begin
    for suffix, priority in values ('_high', 0), ('', 1), ('_low', 2) loop
        foreach kind in array array['text', 'json', 'jsonb', 'bytea'] loop
            execute format($create$
                create or replace function gman_do%1$s(
                    function_name text, workload %3$s, unique_key text default null, timeout interval default null
                ) returns %6$s
                language sql
                volatile
                as $body$
                -- Run a job at a Gearman server and return its result, as bytes for a workload of bytes, else as text.
                --
                -- Servers: gman.servers, else those of this database's queue.  timeout: for all of it; null: gman.timeout.
                -- The job sees nothing of this transaction.  Errors: 38000 the job failed, HYT00 timeout, 08001 and 08006
                -- connection, 22021 the result is no text.  Tables: server (reads).
                select %5$s@extschema@.gman_wait(
                    pg_catalog.convert_to(function_name, '%7$s'),
                    %4$s,
                    pg_catalog.convert_to(unique_key, '%7$s'),
                    %2$s::pg_catalog.int2,
                    pg_catalog.date_part('epoch', timeout)
                )%8$s
                $body$
                $create$,
                suffix, priority, kind,
                case kind when 'bytea' then 'workload' else format('pg_catalog.convert_to(workload::pg_catalog.text, %L)', encoding) end,
                case kind when 'bytea' then '' else 'pg_catalog.convert_from(' end,
                case kind when 'bytea' then 'bytea' else 'text' end,
                encoding,
                case kind when 'bytea' then '' else format(', %L)', encoding) end);
            execute format(
                'comment on function gman_do%s(text, %s, text, interval) is %L',
                suffix, kind,
                'postgear: run a job and return its result (function, workload [, unique] [, timeout])');
        end loop;
    end loop;
end
$make$;

-- gman_do_background, gman_do_high_background, gman_do_low_background, for text, json, jsonb and bytea.
--
-- One body for all twelve, made here, so that they cannot drift. An unknown literal resolves to text. PL/pgSQL, so that
-- the branch not taken needs nothing: neither a queue in this database nor PL/Python. Names are qualified throughout:
-- these run with the search_path of the caller, for setting another would cost a row trigger a tenth of its speed.
do $make$
declare
    suffix text;
    priority integer;
    kind text;
    encoding text := case getdatabaseencoding() when 'SQL_ASCII' then 'SQL_ASCII' else 'UTF8' end;
begin
    for suffix, priority in values ('_high', 0), ('', 1), ('_low', 2) loop
        foreach kind in array array['text', 'json', 'jsonb', 'bytea'] loop
            execute format($create$
                create or replace function gman_do%1$s_background(
                    function_name text, workload %3$s, unique_key text default null, run_at timestamptz default null
                ) returns text
                language plpgsql
                volatile
                as $body$
                -- Queue a job in this transaction, or send it to the servers set; return its handle.
                --
                -- unique_key: null or empty never coalesces, '-' means the workload.  run_at: not before.
                -- A null workload is an empty one.  Errors: as postgear.submit_job, or as gman_do when sent.
                begin
                    if coalesce(pg_catalog.current_setting('gman.servers', true), '') operator(pg_catalog.=) ''
                        and coalesce(pg_catalog.current_setting('gman.function_servers', true), '') operator(pg_catalog.=) ''
                    then
                        return postgear.queue_job(
                            pg_catalog.convert_to(function_name, '%5$s'), coalesce(%4$s, ''),
                            pg_catalog.convert_to(unique_key, '%5$s'), %2$s::pg_catalog.int2, run_at
                        );
                    end if;
                    return @extschema@.gman_send(
                        pg_catalog.convert_to(function_name, '%5$s'), %4$s,
                        pg_catalog.convert_to(unique_key, '%5$s'), %2$s::pg_catalog.int2, run_at
                    );
                end
                $body$
                $create$,
                suffix, priority, kind,
                case kind when 'bytea' then 'workload' else format('pg_catalog.convert_to(workload::pg_catalog.text, %L)', encoding) end,
                encoding);
            execute format(
                'comment on function gman_do%s_background(text, %s, text, timestamptz) is %L',
                suffix, kind,
                'postgear: queue a job, return its handle (function, workload [, unique] [, run_at])');
        end loop;
    end loop;
end
$make$;

-- gman_do_epoch: a background job not to be run before a time, as SUBMIT_JOB_EPOCH has it. For text, json, jsonb and bytea.
do $make$
declare
    kind text;
begin
    foreach kind in array array['text', 'json', 'jsonb', 'bytea'] loop
        execute format($create$
            create or replace function gman_do_epoch(
                function_name text, workload %1$s, epoch bigint, unique_key text default null
            ) returns text
            language sql
            volatile
            as $body$
            -- Queue a job that starts not before epoch (Unix time, seconds); null or past: at once. Return its handle.
            --
            -- Otherwise as gman_do_background, which takes a timestamptz.
            select @extschema@.gman_do_background(
                function_name, workload, unique_key, pg_catalog.to_timestamp(epoch::pg_catalog.float8)
            )
            $body$
            $create$, kind);
        execute format('comment on function gman_do_epoch(text, %s, bigint, text) is %L', kind,
            'postgear: queue a job for a Unix time, return its handle (function, workload, epoch [, unique])');
    end loop;
end
$make$;

-- gman_do_many: scatter and gather. For arrays of text, json, jsonb and bytea; result and error of each job as it ends.
--
-- The fifth, of text, is there for literals: '{a,b}' of no known type would fit each of the arrays, and none is preferred.
do $make$
declare
    kind text;
    as_bytes text;
    encoding text := case getdatabaseencoding() when 'SQL_ASCII' then 'SQL_ASCII' else 'UTF8' end;
begin
    foreach kind in array array['text[]', 'json[]', 'jsonb[]', 'bytea[]', 'text'] loop
        as_bytes := case kind
            when 'bytea[]' then 'workloads'
            else format(
                'array(select pg_catalog.convert_to(w::pg_catalog.text, %L) from pg_catalog.unnest(workloads%s) with ordinality as t (w, n) order by n)',
                encoding, case kind when 'text' then '::pg_catalog.text[]' else '' end)
        end;
        execute format($create$
            create or replace function gman_do_many(
                function_name text, workloads %1$s, unique_keys text[] default null,
                in_flight integer default null, timeout interval default null
            ) returns table (ordinality bigint, result %3$s, error text)
            language sql
            volatile
            rows 100
            as $body$
            -- Run a job for each workload, at most in_flight (default 100) at a time; return each one's end when it comes.
            --
            -- ordinality: the place in workloads.  result is null and error says why when that job failed; the others go on.
            -- timeout: for all of them.  In FROM, PostgreSQL collects the rows first; select gman_do_many(...) gives them at once.
            -- Errors but those of jobs: as gman_do.
            select (ended).ordinality, %4$s, (ended).error
            from (
                select @extschema@.gman_wait_many(
                    pg_catalog.convert_to(function_name, '%5$s'),
                    %2$s,
                    array(
                        select pg_catalog.convert_to(u, '%5$s')
                        from pg_catalog.unnest(unique_keys) with ordinality as t (u, n) order by n
                    ),
                    in_flight,
                    pg_catalog.date_part('epoch', timeout)
                ) as ended
            ) as ends
            $body$
            $create$,
            kind, as_bytes,
            case kind when 'bytea[]' then 'bytea' else 'text' end,
            case kind when 'bytea[]' then '(ended).result' else format('pg_catalog.convert_from((ended).result, %L)', encoding) end,
            encoding);
        execute format('comment on function gman_do_many(text, %s, text[], integer, interval) is %L', kind,
            'postgear: run many jobs at a time, return their results as they end '
            '(function, workloads [, uniques] [, in_flight] [, timeout])');
    end loop;
end
$make$;

create or replace function gman_result(handle text)
returns table (outcome text, result bytea, finished_at timestamptz)
language plpgsql
stable
strict
as $$
-- Return how a background job has ended, in one row; none where it has not, or nothing is kept of it (any more), or it never was.
--
-- Kept is what postgear.keep_results asks for, by function, in the queue of this database: it is asked also when servers are
-- set, for Gearman has no such question.
-- outcome: completed or failed. result: the data of WORK_COMPLETE (not of WORK_DATA), the text of WORK_EXCEPTION, else null;
-- null, too, where that was over 256 MB.
begin
    return query
    select kept.outcome, kept.result, kept.finished_at from postgear.handle_result(gman_result.handle) as kept;
end
$$;
comment on function gman_result(text) is 'postgear: how a background job (handle) has ended: outcome, result, time';

create or replace function gman_servers_check()
returns table (server text, reachable boolean, version text, milliseconds double precision, error text)
language sql
volatile
as $$
-- Connect to each server that gman_do would use and return whether it answers, its version and how long an echo took.
--
-- Servers: gman.servers, else those of this database's queue.  Tables: server (reads).
select server, reachable, version, milliseconds, error from @extschema@.gman_check()
$$;
comment on function gman_servers_check() is 'postgear: connect to each Gearman server that would be used';

create or replace function gman_servers_set(servers text, function_name text default null) returns boolean
language plpgsql
volatile
as $$
-- Set the Gearman servers of this session, or with function_name those of that function alone. Returns true.
--
-- servers: 'host:port,host:port', tried in this order; the port may be left out (4730), IPv6 stands in brackets.
-- Null or '': the default again, which is the queue in this database. Undone if the transaction rolls back.
-- For all sessions: alter database ... set gman.servers = '...'.  Errors: 22023 for what is no list of addresses.
declare
    known text := pg_catalog.current_setting('gman.function_servers', true);
    by_function pg_catalog.jsonb;
begin
    if coalesce(servers, '') operator(pg_catalog.<>) '' then
        servers := @extschema@.gman_normalize_servers(servers);
    end if;
    if function_name is null then
        perform pg_catalog.set_config('gman.servers', coalesce(servers, ''), false);
        return true;
    end if;
    by_function := case when known operator(pg_catalog.<>) '' then known::pg_catalog.jsonb else '{}' end;
    if coalesce(servers, '') operator(pg_catalog.=) '' then
        by_function := by_function operator(pg_catalog.-) function_name;
    else
        by_function := by_function operator(pg_catalog.||) pg_catalog.jsonb_build_object(function_name, servers);
    end if;
    perform pg_catalog.set_config(
        'gman.function_servers', case when by_function operator(pg_catalog.=) '{}' then '' else by_function::pg_catalog.text end, false
    );
    return true;
end
$$;
comment on function gman_servers_set(text, text) is 'postgear: set the Gearman servers of this session (servers [, function])';

create or replace function gman_status(
    handle text, out known boolean, out running boolean, out numerator bigint, out denominator bigint
) returns record
language plpgsql
volatile
strict
as $$
-- Return the state of a job by its handle, as Gearman's GET_STATUS has it; unknown or finished: all false and zero.
--
-- Without servers set: a background job of this database's queue.  With: whatever those servers know.
-- numerator, denominator: the progress its worker told last.
begin
    if coalesce(pg_catalog.current_setting('gman.servers', true), '') operator(pg_catalog.=) '' then
        select status.known, status.running, status.numerator, status.denominator
        into known, running, numerator, denominator
        from postgear.handle_status(gman_status.handle) as status;
    else
        select status.known, status.running, status.numerator, status.denominator
        into known, running, numerator, denominator
        from @extschema@.gman_ask_status(gman_status.handle) as status;
    end if;
end
$$;
comment on function gman_status(text) is 'postgear: the state of a job (handle): known, running, progress';

-- gman_sum(function, workload [, unique]): an aggregate that runs a job for each row and adds up the results.
--
-- For text, json, jsonb and bytea. The jobs run when the last row is there, up to 100 at a time. A result must begin with
-- an integer (more may follow, as C's atoi has it); a job that fails is an error; no rows give null. Null workloads are
-- empty ones. Not as a window function: each of its rows would run the jobs again.
do $make$
declare
    kind text;
    arguments text;
    unique_key text;
    encoding text := case getdatabaseencoding() when 'SQL_ASCII' then 'SQL_ASCII' else 'UTF8' end;
begin
    foreach kind in array array['text', 'json', 'jsonb', 'bytea'] loop
        for arguments, unique_key in
            values ('', 'null'), (', unique_key text', format('pg_catalog.convert_to(unique_key, %L)', encoding))
        loop
            execute format($create$
                create or replace function gman_sum_add(state bigint, function_name text, workload %1$s%2$s) returns bigint
                language sql
                volatile
                as $body$
                -- Internal: add one row to the sum with the number state.
                select @extschema@.gman_sum_queue(
                    state, pg_catalog.convert_to(function_name, '%5$s'), %3$s, %4$s
                )
                $body$;
                comment on function gman_sum_add(bigint, text, %1$s%2$s) is 'postgear: internal, a row of gman_sum';
                create or replace aggregate gman_sum(function_name text, workload %1$s%2$s) (
                    sfunc = gman_sum_add,
                    stype = bigint,
                    finalfunc = @extschema@.gman_sum_end,
                    finalfunc_modify = read_write
                );
                comment on aggregate gman_sum(text, %1$s%2$s)
                    is 'postgear: run a job for each row and add up their results (function, workload [, unique])';
                $create$,
                kind, arguments,
                case kind when 'bytea' then 'workload' else format('pg_catalog.convert_to(workload::pg_catalog.text, %L)', encoding) end,
                unique_key, encoding);
        end loop;
    end loop;
end
$make$;

-- Who may call the gman_* functions: postgear_producer, and for gman_cancel postgear_admin; not PUBLIC.
--
-- Without these roles only the owner and superusers may, until `postgear init` could make the roles. Applied after the
-- functions, by `postgear init` and in the extension's script.
do $$
declare
    routine record;
begin
    for routine in
        select oid::regprocedure as signature,
            case when proname = 'gman_cancel' then 'postgear_admin' else 'postgear_producer' end as role_name
        from pg_proc
        where proname like 'gman\_%' and pronamespace = '@extschema@'::regnamespace
            and obj_description(oid, 'pg_proc') like 'postgear:%'
    loop
        execute format('revoke execute on routine %s from public', routine.signature);
        if to_regrole('postgear_producer') is not null and to_regrole('postgear_admin') is not null then
            execute format('revoke execute on routine %s from postgear_producer', routine.signature);
            execute format('grant execute on routine %s to %I', routine.signature, routine.role_name);
        end if;
    end loop;
end
$$;
