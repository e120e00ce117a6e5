"""The awaiting driver of calls: ``links`` again, over asyncio or uvloop.

A connection is a protocol, not a pair of streams: messages are parsed as they come, and who waits is woken once. A call that is
cancelled closes its connection, for what it asked will still be answered there.
"""

from __future__ import annotations

import asyncio
import math
import os
import select
import socket
import time
from collections.abc import Generator, Sequence
from typing import Any, Final, Generic, TypeVar, cast

from postgear.errors import ServerError, ServerTimeout, ServerUnreachable

from .calls import Address, Call, Channel, Connect, Pool, keep_alive
from .jobs import Told
from .operations import Pause

_PAUSE_BYTES: Final = 4 << 20
"""With so much received that nobody has asked for, the socket is not read on."""
_LONGEST_WAIT_SECONDS: Final = 86_400.0
_PAUSED: Final = object()

T = TypeVar("T")


class AsyncLinks:
    """The connections of one event loop; as many to a server as calls are made at the same time, kept between them."""

    def __init__(self, *, wants_exceptions: bool = True, max_connections: int = 100) -> None:
        self._pool = Pool(wants_exceptions=wants_exceptions)
        self._free = asyncio.Semaphore(max_connections)

    def close(self) -> None:
        """Close the connections that no call uses."""
        self._pool.close()

    async def run(self, addresses: Sequence[Address], deadline: float, operation: Generator[Any, Any, T]) -> T:
        """Carry out an operation on the first server that answers; *deadline*: monotonic seconds."""
        return await self.start(addresses, deadline, operation).run()

    def start(
        self,
        addresses: Sequence[Address],
        deadline: float,
        operation: Generator[Any, Any, T],
        patience: float | None = None,
    ) -> AsyncRunning[T]:
        """Prepare to carry out an operation step by step. patience: seconds that a server may be silent."""
        return AsyncRunning(Call(self._pool, addresses, deadline, operation, patience), self._free)


class AsyncRunning(Generic[T]):
    """A call under way. It must be advanced to its end, or closed."""

    answer: T

    def __init__(self, call: Call[T], free: asyncio.Semaphore) -> None:
        self.call = call
        self.is_ended = False
        self._free = free
        self._holds = False
        self._steps = call.steps()

    async def run(self) -> T:
        """Be Running.run."""
        while not self.is_ended:
            await self.advance()
        return self.answer

    async def advance(self, until: float = math.inf) -> Told | None:
        """Be Running.advance."""
        steps = self._steps
        try:
            if not self._holds and not await self._hold(until):
                return None
            step = steps.send(None)
            while True:
                if not isinstance(step, (AsyncLink, Connect, Pause)):
                    return cast("Told", step)
                try:
                    answer = await self._take(step, until)
                except ServerError as error:
                    step = steps.throw(error)
                    continue
                if answer is _PAUSED:
                    return None
                step = steps.send(answer)
        except StopIteration as end:
            self.answer = end.value
            self.close()
            return None
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the call where it is; its connection is closed. Nothing happens if it has ended."""
        self.is_ended = True
        self._steps.close()
        if self._holds:
            self._holds = False
            self._free.release()

    async def _hold(self, until: float) -> bool:
        """Wait until there may be one more connection; false when *until* came first."""
        deadline = self.call.deadline
        left = min(deadline, until) - time.monotonic()
        try:
            async with asyncio.timeout(None if left == math.inf else left):
                await self._free.acquire()
        except TimeoutError:
            if until < deadline:
                return False
            raise ServerTimeout("the time was up before a connection was free") from None
        self._holds = True
        return True

    async def _take(self, step: AsyncLink | Connect | Pause, until: float) -> Any:
        """Do what a step asks for and return what it is answered with; _PAUSED when *until* came first."""
        if isinstance(step, AsyncLink):
            return None if await step.receive(until) else _PAUSED
        if isinstance(step, Connect):
            return await connect(step.address, step.deadline)
        return await asyncio.sleep(step.seconds)


async def connect(address: Address, deadline: float) -> AsyncLink:
    """Connect by *deadline* (monotonic seconds). Raises ServerUnreachable, ServerTimeout."""
    loop = asyncio.get_running_loop()
    link = AsyncLink(address, deadline, loop)
    try:
        async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
            transport, _ = await loop.create_connection(lambda: link, address.host, address.port)
    except TimeoutError as error:
        raise link.error(ServerTimeout, "did not answer in time") from error
    except socket.gaierror as error:
        raise link.error(ServerUnreachable, f"cannot be found: {error.strerror or error}") from error
    except OSError as error:
        said = os.strerror(error.errno) if error.errno else str(error)
        raise link.error(ServerUnreachable, f"cannot be reached: {said}") from error
    keep_alive(transport.get_extra_info("socket"))
    return link


class AsyncLink(Channel, asyncio.Protocol):
    """One connection."""

    def __init__(self, address: Address, deadline: float, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(address, deadline)
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._end: ServerError | None = None
        self._unread_bytes = 0
        self._is_paused = False

    def close(self) -> None:
        """Be Channel.close."""
        if self._end is None:
            self._end = self.error(ServerError, "the connection was closed")
        if self._transport is not None and not self._loop.is_closed():
            self._transport.abort()

    def is_quiet(self) -> bool:
        """Be Channel.is_quiet."""
        # Not of another loop, as of an earlier asyncio.run().
        if self._end is not None or self.messages or self._transport is None or asyncio.get_running_loop() is not self._loop:
            return False
        # Its end may have come since the loop last looked.
        poll = select.poll()
        poll.register(self._transport.get_extra_info("socket").fileno(), select.POLLIN)
        return not poll.poll(0)

    def flush(self) -> None:
        """Be Channel.flush."""
        if self._output:
            data = b"".join(self._output)
            self._output.clear()
            self.flushed_at = time.monotonic()
            if self._transport is not None and self._end is None:
                self._transport.write(data)

    async def receive(self, until: float) -> bool:
        """Send what is written and return when there are messages; false when *until* (monotonic seconds) came first.

        Raises ServerTimeout at the deadline, ServerError when the connection has ended.
        """
        self.flush()
        while not self.messages:
            if self._end is not None:
                raise self._end
            self._unread_bytes = 0
            if self._is_paused and self._transport is not None:
                self._is_paused = False
                self._transport.resume_reading()
            if not await self._wait(min(self.deadline, until)):
                if until < self.deadline:
                    return False
                raise self.error(ServerTimeout, "did not answer in time")
        return True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Part of Protocol."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Part of Protocol."""
        self.messages.extend(self._reader.feed(data))
        if self.messages:
            self._unread_bytes += len(data)
            if self._unread_bytes > _PAUSE_BYTES and not self._is_paused and self._transport is not None:
                self._is_paused = True
                self._transport.pause_reading()
            self._wake()

    def connection_lost(self, error: Exception | None) -> None:
        """Part of Protocol."""
        if self._end is None:
            self._end = self.lost(error if isinstance(error, OSError) else None)
        self._wake()

    async def _wait(self, until: float) -> bool:
        """Return when something has come, or the connection has ended; false when *until* came first."""
        left = until - time.monotonic()
        if left <= 0:
            return False
        self._waiter = waiter = self._loop.create_future()
        # A little later than asked: uvloop's timers may be a millisecond early.
        timer = None if left > _LONGEST_WAIT_SECONDS else self._loop.call_later(left + 0.001, self._wake)
        try:
            await waiter
        finally:
            self._waiter = None
            if timer is not None:
                timer.cancel()
        return bool(self.messages) or self._end is not None or time.monotonic() < until

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
