"""Connections to a list of servers, kept open between calls, for a caller that must stay awake while it waits.

A wait lasts at most TICK_SECONDS; between two, the ``tick`` given is called, and whatever it raises ends the wait. The
extension's tick lets PostgreSQL cancel the statement. Single-threaded.

Failover: the servers are tried in their order until one answers; one that did not is tried last for BACK_OFF_SECONDS.
Once an operation's first bytes are sent, nothing is sent again: a job may have side effects.

Standard library only, relative imports: it is embedded into the extension's script.
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from typing import Any, Final, NamedTuple, TypeVar, cast

from ..errors import JobFailed, ServerError, ServerRefused, ServerTimeout, ServerUnreachable
from ..wire.connection import Message, PacketReader
from ..wire.packet import RESPONSE_MAGIC
from .operations import RESULT_MAX_BYTES, echo, want_exceptions

DEFAULT_PORT: Final = 4730
TICK_SECONDS: Final = 0.1
CONNECT_SECONDS: Final = 3.0
"""How long one server may take to be connected to, or to prove that it is still there."""
BACK_OFF_SECONDS: Final = 10.0
FRESH_SECONDS: Final = 5.0
"""A connection unused for longer must echo first: a firewall may have forgotten it without telling."""
_RECEIVE_BYTES: Final = 256 * 1024

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


class Link:
    """One connection, opened at once. Every method raises ServerError; the link is closed then.

    deadline: monotonic seconds; may be changed before each call. *tick* is called between waits.
    """

    def __init__(self, address: Address, deadline: float, tick: Callable[[], None]) -> None:
        self.address = address
        self.deadline = deadline
        self.used_at = time.monotonic()
        self._tick = tick
        self._reader = PacketReader(RESPONSE_MAGIC, RESULT_MAX_BYTES)
        self._messages: deque[Message] = deque()
        self._unsent = memoryview(b"")
        self._socket = self._connect()

    def close(self) -> None:
        """Close the connection; more than once is fine."""
        self._socket.close()

    def run(self, operation: Generator[bytes, Message, T]) -> T:
        """Carry out an operation and return its answer."""
        steps = self.steps(cast("Generator[Any, Message, T]", operation))
        while True:
            try:
                next(steps)
            except StopIteration as end:
                return cast("T", end.value)

    def steps(self, operation: Generator[Any, Any, T]) -> Generator[Any, None, T]:
        """Carry out an operation, yielding what it yields besides bytes; return its answer.

        Closes the link unless the operation came to its end, so that nobody takes its answers for those to another.
        """
        finished = False
        try:
            try:
                step = next(operation)
                while True:
                    if isinstance(step, bytes):
                        self._send(step)
                        step = operation.send(self._receive())
                    else:
                        yield step
                        step = operation.send(None)
            except StopIteration as end:
                finished = True
                return cast("T", end.value)
            except (JobFailed, ServerRefused):
                finished = True
                raise
        finally:
            self.used_at = time.monotonic()
            if not finished:
                self.close()

    def is_usable(self) -> bool:
        """Tell whether the server is still there; asks it if the link was not used for FRESH_SECONDS."""
        if self._socket.fileno() < 0 or self._messages or self._wait(select.POLLIN, 0.0):
            # Closed, or something came that nobody asked for: mostly the end of the connection.
            self.close()
            return False
        if time.monotonic() - self.used_at > FRESH_SECONDS:
            try:
                self.run(echo())
            except ServerError:
                return False
        return True

    def _connect(self) -> socket.socket:
        error: OSError | None = None
        try:
            found = socket.getaddrinfo(self.address.host, self.address.port, type=socket.SOCK_STREAM)
        except OSError as caught:
            raise self._error(ServerUnreachable, f"cannot be found: {caught.strerror or caught}") from caught
        for family, kind, protocol, _, place in found:
            self._socket = socket.socket(family, kind, protocol)
            try:
                self._socket.setblocking(False)
                try:
                    self._socket.connect(place)
                except BlockingIOError:
                    self._wait_until(select.POLLOUT)
                if number := self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    raise OSError(number, os.strerror(number))
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return self._socket
            except OSError as caught:
                self._socket.close()
                error = caught
            except BaseException:
                self._socket.close()
                raise
        raise self._error(ServerUnreachable, f"cannot be reached: {(error and error.strerror) or error}") from error

    def _send(self, data: bytes) -> None:
        """Send what the kernel takes at once; ``_receive`` sends the rest, so that two full buffers never face each other."""
        self._unsent = memoryview(bytes(self._unsent) + data)
        self._flush()

    def _flush(self) -> None:
        try:
            while self._unsent:
                self._unsent = self._unsent[self._socket.send(self._unsent) :]
        except BlockingIOError:
            pass
        except OSError as error:
            raise self._error(ServerError, f"the connection was lost: {error.strerror or error}") from error

    def _receive(self) -> Message:
        while not self._messages:
            events = self._wait_until(select.POLLIN | (select.POLLOUT if self._unsent else 0))
            if events & select.POLLOUT:
                self._flush()
            if events & ~select.POLLOUT:
                self._messages.extend(self._reader.feed(self._read()))
        return self._messages.popleft()

    def _read(self) -> bytes:
        try:
            data = self._socket.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return b""
        except OSError as error:
            raise self._error(ServerError, f"the connection was lost: {error.strerror or error}") from error
        if not data:
            raise self._error(ServerError, "closed the connection")
        return data

    def _wait_until(self, events: int) -> int:
        while True:
            left = self.deadline - time.monotonic()
            if found := self._wait(events, min(TICK_SECONDS, max(left, 0.0))):
                return found
            if left <= 0:
                raise self._error(ServerTimeout, "did not answer in time")
            self._tick()

    def _wait(self, events: int, seconds: float) -> int:
        # Not select(): a backend with many files open has descriptors that it cannot take.
        poll = select.poll()
        poll.register(self._socket, events)
        found = poll.poll(seconds * 1000)
        return found[0][1] if found else 0

    def _error(self, kind: type[ServerError], text: str) -> ServerError:
        return kind(f"server {self.address} {text}")


class Links:
    """The links of one process, an idle one a server at most."""

    def __init__(self, tick: Callable[[], None]) -> None:
        self._tick = tick
        self._idle: dict[Address, Link] = {}
        self._failed_at: dict[Address, float] = {}

    def open(self, addresses: Sequence[Address], deadline: float) -> Link:
        """Return a link to the first server that answers, kept or new. Give it back with ``keep``.

        Raises ServerUnreachable, naming why for each server, or ServerTimeout when the deadline passes first.
        """
        errors: list[ServerError] = []
        for address in self._in_order(addresses):
            try:
                link = self._open_one(address, deadline)
            except ServerError as error:
                self._failed_at[address] = time.monotonic()
                errors.append(error)
                if time.monotonic() >= deadline:
                    break
            else:
                self._failed_at.pop(address, None)
                link.deadline = deadline
                return link
        raise ServerUnreachable("; ".join(map(str, errors)))

    def keep(self, link: Link) -> None:
        """Take back a link whose operations have come to their end."""
        self._idle[link.address] = link

    def run(self, addresses: Sequence[Address], deadline: float, operation: Generator[bytes, Message, T]) -> T:
        """Carry out an operation on the first server that answers."""
        link = self.open(addresses, deadline)
        try:
            answer = link.run(operation)
        except (JobFailed, ServerRefused):
            self.keep(link)
            raise
        self.keep(link)
        return answer

    def _open_one(self, address: Address, deadline: float) -> Link:
        soon = min(deadline, time.monotonic() + CONNECT_SECONDS)
        link = self._idle.pop(address, None)
        if link is not None:
            link.deadline = soon
            if link.is_usable():
                return link
        link = Link(address, min(deadline, time.monotonic() + CONNECT_SECONDS), self._tick)
        link.run(want_exceptions())
        return link

    def _in_order(self, addresses: Sequence[Address]) -> list[Address]:
        since = time.monotonic() - BACK_OFF_SECONDS
        return sorted(dict.fromkeys(addresses), key=lambda address: self._failed_at.get(address, since) > since)
