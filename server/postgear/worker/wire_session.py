"""What is said to one server over one connection: messages in, bytes out. No socket and no clock.

Grabs are pipelined: as many as there is reason to hope for. One after a wake-up, one more with each job that came, one again
after NO_JOB; so the last of a burst costs few vain grabs, and a quiet server reserves no slots. PRE_SLEEP follows when no
grab is open.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from postgear.errors import ProtocolError
from postgear.functions import Handler
from postgear.wire.connection import Message
from postgear.wire.packet import HEADER, REQUEST_MAGIC, PacketType, encode_request

from .calling import log
from .job import Job
from .slots import RETRY_MAX_SECONDS
from .sources import Origin, Slots

CONFIRM_BYTES: Final = 1024 * 1024
"""From this size on a server may refuse a result for its size: it is asked whether it did."""
RESULT_MAX_BYTES: Final = 2**32 - 1 - 1024
FRUITLESS_MAX: Final = 8
"""After so many wake-ups without a job, each waits a little: gearmand 1.1.20 sends them without end in some states."""
TIMEOUT_MARGIN_SECONDS: Final = 10.0
"""How much later than the worker itself the server gives a job to another."""
_GRAB: Final = encode_request(PacketType.GRAB_JOB_ALL)
_PRE_SLEEP: Final = encode_request(PacketType.PRE_SLEEP)


class WireSession:
    """One connection's state.

    out: bytes to be sent; *on_output* is called when it is empty no more. held: jobs of this connection that have not ended.
    is_congested: set by the shell; no job is grabbed meanwhile.
    """

    def __init__(self, origin: Origin, slots: Slots, client_id: bytes, on_output: Callable[[], None]) -> None:
        self.out: list[bytes] = []
        self.held: dict[bytes, Job] = {}
        self.is_ready = False
        self.is_congested = False
        self.is_taking = True
        self.is_pausing = False  # a wake-up waits for ``resume``
        self._origin = origin
        self._slots = slots
        self._client_id = client_id
        self._on_output = on_output
        self._abilities: dict[bytes, Handler[Any, Any, Any, Any]] = {}
        self._dropped: set[bytes] = set()  # abilities given up on this connection
        self._grabs = 0  # open
        self._window = 1  # how many may be open
        self._may_have_job = True
        self._is_asleep = False
        self._fruitless = 0  # wake-ups in a row that brought no job
        self._echoes: deque[Callable[[], None]] = deque()
        self._unconfirmed: deque[tuple[bytes, int]] = deque()  # handle and size of results that the server may refuse
        self._receivers: dict[int, Callable[[Sequence[bytes]], None]] = {
            PacketType.JOB_ASSIGN_UNIQ: lambda a: self._assigned(a[0], a[1], a[2], b"", a[3]),
            PacketType.JOB_ASSIGN_ALL: lambda a: self._assigned(a[0], a[1], a[2], a[3], a[4]),
            PacketType.NO_JOB: self._no_job,
            PacketType.NOOP: self._noop,
            PacketType.ECHO_RES: self._echoed,
            PacketType.ERROR: self._error,
        }

    # -- from the shell ------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Introduce the worker; grabs follow when the server has answered."""
        self._send(encode_request(PacketType.SET_CLIENT_ID, self._client_id))
        self.change_abilities()
        self.echo(self._begin)

    def receive(self, messages: Iterable[Message]) -> None:
        """Do what the server says. Raises ProtocolError for what no server may say here; the connection is of no use then."""
        receivers = self._receivers
        for kind, arguments in messages:
            receiver = receivers.get(kind)
            if receiver is None:
                said = b" ".join(arguments).decode("utf-8", "replace") if kind < 0 else f"type {kind} is not for workers"
                raise ProtocolError("INVALID_PACKET", said)
            receiver(arguments)
        self.pull()

    def pull(self) -> None:
        """Grab jobs for slots that are free; sleep where there are none."""
        if not self.is_ready:
            return
        if self._may_have_job:
            wanted = self._window - self._grabs
            if wanted > 0 and self.is_taking and self._abilities and not (self.is_congested or self.is_pausing):
                count = self._slots.reserve(wanted)
                if count:
                    self._grabs += count
                    self._is_asleep = False
                    self._send(_GRAB * count)
        elif not self._grabs and not self._is_asleep and self.is_taking:
            self._is_asleep = True
            self._send(_PRE_SLEEP)

    def change_abilities(self) -> bool:
        """Tell the server what the worker can do. False: not without taking back jobs that run here, for that needs another
        connection; nothing was said then.
        """
        wanted = {
            name.encode("utf-8", "surrogateescape"): handler
            for name, handler in self._slots.handlers.items()
            if not handler.transactional
        }
        abilities = self._abilities
        removed = [name for name in abilities if name not in wanted]
        changed = [name for name in abilities if name in wanted and _bound(wanted[name]) != _bound(abilities[name])]
        running = {job.function.encode("utf-8", "surrogateescape") for job in self.held.values()}
        if not running.isdisjoint([*removed, *changed]) or (changed and self._grabs):
            return False
        for name in [*removed, *changed]:
            self._send(encode_request(PacketType.CANT_DO, name))
        added = [name for name in wanted if name not in abilities]
        for name in [*added, *changed]:
            bound = _bound(wanted[name])
            if bound is None:
                self._send(encode_request(PacketType.CAN_DO, name))
            else:
                self._send(encode_request(PacketType.CAN_DO_TIMEOUT, name, b"%d" % (bound * 1000)))
        self._dropped = (self._dropped | set(removed)) - set(added)
        self._abilities = wanted
        if added:
            # A server does not wake a worker for what it learns to do in its sleep.
            self._may_have_job = True
            self.pull()
        return True

    def echo(self, answered: Callable[[], None]) -> None:
        """Ask whether the server is there and has done all it was told; *answered* is called when it says so."""
        self._echoes.append(answered)
        self._send(encode_request(PacketType.ECHO_REQ, b"postgear"))

    def probe(self) -> None:
        """Say something that is answered. A sleeping worker looks for jobs: a server may have forgotten to wake it."""
        if self._is_asleep:
            self._may_have_job = True
            self.pull()
        if not self._grabs:
            self.echo(lambda: None)

    def resume(self) -> None:
        """Go on after a pause (``is_pausing``) or congestion."""
        self.is_pausing = False
        self.pull()

    def lost(self) -> None:
        """Learn that the connection has ended: its slots are free, its jobs are others' now."""
        self.is_ready = self.is_taking = False
        grabs, self._grabs = self._grabs, 0
        jobs = list(self.held.values())
        self.held.clear()
        for job in jobs:
            self._slots.lose(job)
        if grabs:
            self._slots.release(grabs)

    @property
    def is_done(self) -> bool:
        """Whether no job of this connection runs or is on its way."""
        return not self._grabs and not self.held

    @property
    def is_answered(self) -> bool:
        """Whether no grab is open."""
        return not self._grabs

    # -- from slots ----------------------------------------------------------------------------------------------

    def report(self, job: Job, kind: PacketType, arguments: tuple[bytes, ...]) -> None:
        """See ``sources.Origin``."""
        handle = _handle(job)
        if self.held.get(handle) is job:
            self._send(encode_request(kind, handle, *arguments))

    def complete(self, job: Job, result: bytes) -> None:
        """See ``sources.Origin``."""
        self._end(job, PacketType.WORK_COMPLETE, result)

    def fail(self, job: Job, exception: bytes) -> None:
        """See ``sources.Origin``."""
        # Not both: WORK_EXCEPTION ends the job, and gearmand would say of a WORK_FAIL that there is no such job.
        if exception:
            self._end(job, PacketType.WORK_EXCEPTION, exception)
        else:
            handle = _handle(job)
            if self.held.get(handle) is job:
                del self.held[handle]
                self._send(encode_request(PacketType.WORK_FAIL, handle))

    def _end(self, job: Job, kind: PacketType, data: bytes) -> None:
        handle = _handle(job)
        if self.held.get(handle) is not job:
            return
        del self.held[handle]
        size = len(data)
        if size > RESULT_MAX_BYTES:
            self._refused(handle, size, "a Gearman packet cannot hold it")
            return
        self._send(b"%b%b\0" % (HEADER.pack(REQUEST_MAGIC, kind, len(handle) + 1 + size), handle))
        self.out.append(data)
        if size >= CONFIRM_BYTES:
            self._unconfirmed.append((handle, size))
            self.echo(self._confirmed)

    def _send(self, data: bytes) -> None:
        if not self.out:
            self._on_output()
        self.out.append(data)

    # -- what servers say ----------------------------------------------------------------------------------------

    def _begin(self) -> None:
        self.is_ready = True
        self._slots.ready()

    def _assigned(self, handle: bytes, name: bytes, unique: bytes, reducer: bytes, workload: bytes) -> None:
        if not self._grabs:
            raise ProtocolError("INVALID_PACKET", "a job that was not asked for")
        handler = self._abilities.get(name)
        if handler is None and name not in self._dropped:
            raise ProtocolError("INVALID_PACKET", f"a job of a function not offered: {name.decode('utf-8', 'replace')}")
        self._grabs -= 1
        if handler is None:
            self._slots.release(1)  # it crossed CANT_DO, with which the server takes it back
            return
        self._window += 1
        self._may_have_job = True
        self._fruitless = 0
        text = handle.decode("utf-8", "surrogateescape")
        job = Job(
            handler,
            text,
            workload,
            self._slots.report,
            self._origin,
            unique=unique.decode("utf-8", "surrogateescape"),
            reducer=reducer.decode("utf-8", "surrogateescape"),
        )
        before = self.held.get(handle)
        if before is not None:
            self._slots.lose(before)  # the server took it back, by its timeout, and gives it out again
        self.held[handle] = job
        self._slots.assign(job)

    def _no_job(self, _arguments: Sequence[bytes]) -> None:
        if not self._grabs:
            raise ProtocolError("INVALID_PACKET", "NO_JOB without a grab")
        self._grabs -= 1
        self._window = 1
        self._may_have_job = False
        self._slots.release(1)

    def _noop(self, _arguments: Sequence[bytes]) -> None:
        if self._is_asleep:
            self._is_asleep = False
            self._fruitless += 1
            self.is_pausing = self._fruitless > FRUITLESS_MAX
        self._may_have_job = True

    def _echoed(self, _arguments: Sequence[bytes]) -> None:
        if not self._echoes:
            raise ProtocolError("INVALID_PACKET", "ECHO_RES without a request")
        self._echoes.popleft()()

    def _error(self, arguments: Sequence[bytes]) -> None:
        code, text = (each.decode("utf-8", "replace") for each in arguments)
        if code == "JOB_NOT_FOUND":
            # The end of a job that the server had taken back: it was late, and no harm is done.
            log.warning("server knows the job no more server=%s text=%s", self._origin.name, text)
        elif code == "ARGUMENT_TOO_LARGE" and self._unconfirmed:
            handle, size = self._unconfirmed.popleft()
            self._unconfirmed.appendleft((b"", 0))  # its echo is still to come
            self._refused(handle, size, text)
        else:
            raise ProtocolError(code, text)

    def _confirmed(self) -> None:
        self._unconfirmed.popleft()

    def _refused(self, handle: bytes, size: int, reason: str) -> None:
        text = handle.decode("utf-8", "replace")
        log.error("result refused handle=%s server=%s size_bytes=%d text=%s", text, self._origin.name, size, reason)
        said = f"PayloadError: job {text}: the result of {size} bytes was refused by {self._origin.name}: {reason}"
        self._send(encode_request(PacketType.WORK_EXCEPTION, handle, said.encode("utf-8", "backslashreplace")))


def _bound(handler: Handler[Any, Any, Any, Any]) -> float | None:
    """Return after how many seconds a server is to give a job to another worker.

    It is more than all runs and the pauses between them may take: the worker ends the job itself, and where the server did so at
    the same moment it would run again.
    """
    if handler.timeout is None:
        return None
    return handler.timeout * (handler.retries + 1) + RETRY_MAX_SECONDS * handler.retries + TIMEOUT_MARGIN_SECONDS


def _handle(job: Job) -> bytes:
    return job.handle.encode("utf-8", "surrogateescape")
