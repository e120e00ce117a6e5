"""Carrying out operations at a list of servers: failover, back-off, connections kept; without doing I/O.

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
