"""Jobs from one Gearman server: its connection, kept up. What is said over it is in ``wire_session``.

A lost connection is made again after a pause that grows, with luck in it, so that a thousand workers do not come back at the same
moment. The server gives out again what ran here: async handlers of these jobs are cancelled, threads go on and their results
are dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

from postgear.client.calls import Address
from postgear.errors import ConfigError, ProtocolError
from postgear.wire.connection import PacketReader
from postgear.wire.packet import RESPONSE_MAGIC, PacketType

from .calling import log
from .job import Job
from .sources import Slots
from .wire_session import WireSession

KEEPALIVE_SECONDS: Final = 10.0
SILENT_PERIODS: Final = 3
"""A server that says nothing for so many keepalive periods after it was asked something is taken for dead."""
BACK_OFF_FIRST_SECONDS: Final = 0.1
BACK_OFF_MAX_SECONDS: Final = 10.0
PAUSE_SECONDS: Final = 0.1
"""How long a server that wakes this worker for nothing again and again is left alone."""
JOB_MAX_BYTES: Final = 2**32
"""Whatever the header can say: the server decides how long a workload may be."""
WRITE_BUFFER_BYTES: Final = 1024 * 1024
"""So much may wait to be sent before no more jobs are taken and reporting threads wait."""


class WireSource:
    """One server as a source of jobs.

    keepalive_seconds: how long it may be silent before it is asked whether it is there.
    """

    def __init__(self, address: Address, slots: Slots, client_id: str, keepalive_seconds: float = KEEPALIVE_SECONDS) -> None:
        self.name = str(address)
        self._address = address
        self._slots = slots
        self._client_id = client_id.encode()
        self._keepalive_seconds = keepalive_seconds
        self._connection: _Connection | None = None
        self._retired: set[_Connection] = set()  # they only end their jobs; another has taken their place
        self._is_taking = True
        self._closing = asyncio.Event()
        self._is_away = False  # it was said that the server cannot be reached

    async def run(self) -> None:
        """See ``sources.Source``."""
        delay = BACK_OFF_FIRST_SECONDS
        while not self._closing.is_set():
            if not self._is_taking:
                await self._closing.wait()  # a lost server has nothing more to be told
                return
            connection = await self._connect()
            if connection is not None and self._closing.is_set():
                connection.close()
            elif connection is not None:
                self._connection = connection
                connection.start()
                await asyncio.wait([connection.ended, connection.replaced], return_when=asyncio.FIRST_COMPLETED)
                self._connection = None
                if connection.session.is_ready or connection.was_ready:
                    delay = BACK_OFF_FIRST_SECONDS
                if connection.replaced.done():
                    self._retire(connection)
                    continue
            # Not quite as long as the others, so that not all come at once.
            await self._pause(delay * random.uniform(0.5, 1.0))
            delay = min(delay * 2, BACK_OFF_MAX_SECONDS)

    def pull(self) -> None:
        """See ``sources.Source``."""
        if self._connection is not None:
            self._connection.session.pull()

    def abilities_changed(self) -> None:
        """See ``sources.Source``."""
        connection = self._connection
        if connection is not None and not connection.session.change_abilities() and self._is_taking:
            connection.replace()

    def stop_taking(self) -> None:
        """See ``sources.Source``."""
        self._is_taking = False
        if self._connection is not None:
            self._connection.session.is_taking = False

    async def settle(self) -> None:
        """See ``sources.Source``."""
        await asyncio.gather(*(connection.settle() for connection in self._connections()))

    async def close(self) -> None:
        """See ``sources.Source``."""
        self._closing.set()
        for connection in self._connections():
            connection.close()
            await connection.ended

    def _connections(self) -> list[_Connection]:
        return [*self._retired, *([self._connection] if self._connection is not None else [])]

    async def _connect(self) -> _Connection | None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._keepalive_seconds):
                _, connection = await loop.create_connection(
                    lambda: _Connection(self.name, self._slots, self._client_id, self._keepalive_seconds, self._is_taking),
                    self._address.host,
                    self._address.port,
                )
        except OSError as error:  # TimeoutError, too
            if not self._is_away:
                self._is_away = True
                log.warning("server cannot be reached server=%s reason=%s", self.name, str(error) or "no answer")
            return None
        self._is_away = False
        log.info("connected server=%s", self.name)
        return connection

    def _retire(self, connection: _Connection) -> None:
        self._retired.add(connection)
        connection.ended.add_done_callback(lambda _: self._retired.discard(connection))

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closing.wait()


class _Connection(asyncio.Protocol):
    """One connection; ``sources.Origin`` of the jobs that come over it."""

    def __init__(self, name: str, slots: Slots, client_id: bytes, keepalive_seconds: float, is_taking: bool) -> None:
        loop = asyncio.get_running_loop()
        self.name = name
        self.session = WireSession(self, slots, client_id, self._schedule_flush)
        self.session.is_taking = is_taking
        self.was_ready = False
        self.ended: asyncio.Future[None] = loop.create_future()
        self.replaced: asyncio.Future[None] = loop.create_future()
        self.is_congested = False
        self._is_closing = False
        self._loop = loop
        self._transport: asyncio.Transport
        self._reader = PacketReader(RESPONSE_MAGIC, JOB_MAX_BYTES)
        self._writable = asyncio.Event()
        self._writable.set()
        self._keepalive_seconds = keepalive_seconds
        self._silent_periods = 0
        self._unsent_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._pause_timer: asyncio.TimerHandle | None = None

    # -- for the source ------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Introduce the worker."""
        self.session.start()
        self._timer = self._loop.call_later(self._keepalive_seconds, self._check)

    def replace(self) -> None:
        """Take no more jobs, end those that run, then close; meanwhile another connection is made."""
        self.session.is_taking = False
        self.replaced.set_result(None)
        self._close_when_done()

    async def settle(self) -> None:
        """Wait until the server has done what it was told."""
        if not self.ended.done():
            echoed = asyncio.Event()
            self.session.echo(echoed.set)
            waiting = asyncio.create_task(echoed.wait())
            ends: list[asyncio.Future[Any]] = [waiting, self.ended]
            try:
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            finally:
                waiting.cancel()

    def close(self) -> None:
        """End, after what is to be sent, unless the server does not take it."""
        self._flush()
        if self._transport.get_write_buffer_size():
            self._loop.call_later(1.0, self._transport.abort)
        self._transport.close()

    # -- asyncio.Protocol ----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Part of asyncio.Protocol."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are not subclasses
        self._transport.set_write_buffer_limits(WRITE_BUFFER_BYTES)

    def data_received(self, data: bytes) -> None:
        """Part of asyncio.Protocol."""
        self._silent_periods = 0
        messages = self._reader.feed(data)
        if not messages:
            return
        session = self.session
        try:
            session.receive(messages)
        except ProtocolError as error:
            self._abort(str(error))
            return
        self._close_when_done()
        if session.is_pausing and self._pause_timer is None:
            self._pause_timer = self._loop.call_later(PAUSE_SECONDS, self._resume)

    def connection_lost(self, error: Exception | None) -> None:
        """Part of asyncio.Protocol."""
        for timer in (self._timer, self._pause_timer):
            if timer is not None:
                timer.cancel()
        self.is_congested = False
        self._writable.set()
        self.was_ready = self.session.is_ready
        log.info("disconnected server=%s reason=%s", self.name, error or "closed")
        self.session.lost()
        self.ended.set_result(None)

    def pause_writing(self) -> None:
        """Part of asyncio.Protocol."""
        self.is_congested = self.session.is_congested = True
        self._writable.clear()

    def resume_writing(self) -> None:
        """Part of asyncio.Protocol."""
        self.is_congested = self.session.is_congested = False
        self._writable.set()
        self.session.pull()

    # -- sources.Origin ------------------------------------------------------------------------------------------

    async def drained(self) -> None:
        """See ``sources.Origin``."""
        await self._writable.wait()

    def report(self, job: Job, kind: PacketType, arguments: tuple[bytes, ...]) -> None:
        """See ``sources.Origin``."""
        self.session.report(job, kind, arguments)
        if kind is not PacketType.WORK_STATUS:
            self._flush()  # so that is_congested is true at once, when it is

    def complete(self, job: Job, result: bytes) -> None:
        """See ``sources.Origin``."""
        self.session.complete(job, result)
        self._close_when_done()

    def fail(self, job: Job, exception: bytes) -> None:
        """See ``sources.Origin``."""
        self.session.fail(job, exception)
        self._close_when_done()

    def retry(self, job: Job, delay_seconds: float) -> bool:
        """See ``sources.Origin``. Gearman has no such thing."""
        return False

    def run_transaction(self, job: Job, call: Callable[[], bytes]) -> None:
        """See ``sources.Origin``."""
        raise _no_transaction(job)

    async def run_transaction_async(self, job: Job, call: Callable[[], Awaitable[bytes]]) -> None:
        """See ``sources.Origin``."""
        raise _no_transaction(job)

    # -- parts ---------------------------------------------------------------------------------------------------

    def _schedule_flush(self) -> None:
        self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        """Send what has come together in this turn of the loop: a result and the next grab go in one packet."""
        session = self.session
        out = session.out
        if out:
            session.out = []
            if not self._transport.is_closing():
                self._transport.write(out[0] if len(out) == 1 else b"".join(out))

    def _resume(self) -> None:
        self._pause_timer = None
        self.session.resume()

    def _check(self) -> None:
        """See whether the server is there."""
        self._timer = self._loop.call_later(self._keepalive_seconds, self._check)
        unsent = self._transport.get_write_buffer_size()
        if unsent < self._unsent_bytes:
            self._silent_periods = 0  # it takes what it is sent
        self._unsent_bytes = unsent
        self._silent_periods += 1
        if self._silent_periods > SILENT_PERIODS:
            self._abort(f"no answer for {SILENT_PERIODS * self._keepalive_seconds:g} s")
        elif self._silent_periods > 1:
            self.session.probe()

    def _close_when_done(self) -> None:
        if self.replaced.done() and self.session.is_done and not self._is_closing:
            self._is_closing = True
            self.session.echo(self.close)  # not before the server has all results

    def _abort(self, reason: str) -> None:
        log.warning("server lost server=%s reason=%s", self.name, reason)
        self._transport.abort()


def _no_transaction(job: Job) -> ConfigError:
    return ConfigError(f"function {job.function}: transactional needs a worker on the database, {job.server} is a server")
