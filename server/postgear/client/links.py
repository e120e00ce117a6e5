"""The blocking driver of calls: sockets of the standard library.

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
