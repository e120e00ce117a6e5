"""Jobs straight from the database: a lease like a server's, the loops of ``exchange``, and a Desk that gives jobs to slots.

Foreground jobs are not to be had here, for they live in the memory of the server that took them.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Awaitable, Callable
from typing import Final

import psycopg
from psycopg.conninfo import conninfo_to_dict

from postgear import __version__
from postgear.config import hide_password
from postgear.connecting import first_line
from postgear.errors import ConfigError, SchemaError, StoreError
from postgear.exchange import Exchange
from postgear.logs import event
from postgear.store.postgres import PostgresStore
from postgear.wire.packet import PacketType

from .desk import Desk
from .job import Job
from .sources import Slots
from .transactions import Place, Transactions

log = logging.getLogger("postgear.worker")

LEASE_SECONDS: Final = 20.0
"""After this time without a heartbeat others take over the jobs of a worker whose session still lives; as for a server."""
CLOSE_SECONDS: Final = 2.0


class DatabaseSource:
    """Where jobs come from, and the origin of each of them; see ``sources``.

    dsn: anything libpq takes; a direct connection, or one through a pooler in session mode.
    client_id: names the worker in ``postgear.workers`` and in its sessions' application_name.
    """

    name = "database"
    is_congested = False

    def __init__(self, slots: Slots, dsn: str, client_id: str, lease_seconds: float = LEASE_SECONDS) -> None:
        self._slots = slots
        self._dsn = dsn
        self._host = socket.gethostname()
        self._client_id = client_id
        self._lease_seconds = lease_seconds
        self._exchange: Exchange | None = None
        self._transactions: Transactions | None = None
        self._closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._is_ready = False
        self._showing: asyncio.Task[None] | None = None
        self._desk = Desk(slots, self, self._changed)

    # -- Source --------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """See ``Source``. A database that is away is waited for.

        Raises ConfigError for a DSN that cannot be read, StoreRefused where the database does not let this role in or take jobs,
        SchemaError where there is no schema or an old one.
        """
        try:
            conninfo_to_dict(self._dsn)
        except psycopg.ProgrammingError as error:
            raise ConfigError(f"dsn: {first_line(str(error))}") from None
        desk = self._desk
        exchange = self._exchange = Exchange(
            desk,
            lambda on_notify, on_lost: PostgresStore(self._dsn, self._client_id, on_notify, on_lost, submits=False),
            self._changed,
            register=self._register,
            lease_seconds=self._lease_seconds,
        )
        self._transactions = Transactions(
            self._dsn,
            self._client_id,
            place=self._place,
            lease=lambda: exchange.store.lease,
            holds=desk.holds,
            keeps_result=desk.keeps_result,
            ended=desk.forget,
            postponed=self._put_back,
        )
        try:
            await exchange.start()
        except SchemaError as error:
            raise SchemaError(f"{error}; run: postgear init --dsn '{hide_password(self._dsn)}'") from None
        await asyncio.wait((self._closed, exchange.fatal), return_when=asyncio.FIRST_COMPLETED)
        if exchange.fatal.done():
            exchange.fatal.result()

    def pull(self) -> None:
        """See ``Source``."""
        self._desk.pull()

    def abilities_changed(self) -> None:
        """See ``Source``."""
        self._desk.abilities_changed()
        self._showing = asyncio.get_running_loop().create_task(self._show())

    def stop_taking(self) -> None:
        """See ``Source``."""
        self._desk.stop_taking()

    async def settle(self) -> None:
        """See ``Source``. While the database is away this waits for it."""
        exchange = self._exchange
        while exchange is not None and not exchange.is_settled:
            try:
                await exchange.settle_all()
            except StoreError as error:
                event(log, logging.WARNING, "ends of jobs not stored yet", reason=error)

    async def close(self) -> None:
        """See ``Source``."""
        if self._closed.done():
            return
        self._closed.set_result(None)
        self._desk.stop_taking()
        if self._exchange is None or self._transactions is None:
            return
        if self._showing is not None:
            self._showing.cancel()
        if self._exchange.is_up:
            try:
                await asyncio.wait_for(self._exchange.settle_all(), CLOSE_SECONDS)
            except (StoreError, TimeoutError) as error:
                event(log, logging.WARNING, "ends of jobs not stored, they run again", reason=error)
        await self._exchange.stop()  # its lease ends, and what it holds goes back
        await self._transactions.close()

    # -- Origin --------------------------------------------------------------------------------------------------

    async def drained(self) -> None:
        """See ``Origin``."""

    def report(self, job: Job, kind: PacketType, arguments: tuple[bytes, ...]) -> None:
        """See ``Origin``. Progress is stored once a second; for data and warnings there is nobody who could get them."""
        if kind is PacketType.WORK_STATUS:
            self._desk.report_progress(job, int(arguments[0]), int(arguments[1]))

    def complete(self, job: Job, result: bytes) -> None:
        """See ``Origin``. Nobody waits for the result; it is stored if the function keeps results."""
        self._desk.end(job, is_completed=True, data=result)

    def fail(self, job: Job, exception: bytes) -> None:
        """See ``Origin``. The job leaves the queue; what is said about it is stored as its result would be, and logged."""
        self._desk.end(job, is_completed=False, data=exception or None)

    def retry(self, job: Job, delay_seconds: float) -> bool:
        """See ``Origin``."""
        self._put_back(job, delay_seconds)
        return True

    def run_transaction(self, job: Job, call: Callable[[], bytes]) -> None:
        """See ``Origin``. Raises JobLost, too, where the connection broke before the commit: the job goes back."""
        assert self._transactions is not None
        self._transactions.run(job, call)

    async def run_transaction_async(self, job: Job, call: Callable[[], Awaitable[bytes]]) -> None:
        """See ``Origin``. Raises as ``run_transaction``."""
        assert self._transactions is not None
        await self._transactions.run_async(job, call)

    # -- parts ---------------------------------------------------------------------------------------------------

    def _put_back(self, job: Job, seconds: float) -> None:
        self._desk.put_back(job, asyncio.get_running_loop().time() + seconds if seconds > 0 else 0.0)

    def _place(self) -> Place | None:
        exchange = self._exchange
        if exchange is None or exchange.store.cluster is None:
            return None
        return Place(exchange.store.cluster, exchange.store.address, exchange.is_up)

    def _changed(self) -> None:
        exchange = self._exchange
        if exchange is None:
            return
        exchange.kick()
        if exchange.is_up and not self._is_ready:
            self._is_ready = True
            self._slots.ready()

    async def _register(self, store: PostgresStore) -> None:
        await store.register_worker(
            self._client_id, self._host, os.getpid(), __version__, self._lease_seconds, list(self._desk.functions)
        )

    async def _show(self) -> None:
        """Show in the database what this worker can do now; with a new lease it is shown, too."""
        if self._exchange is not None and self._exchange.is_up:
            try:
                await self._exchange.store.set_functions(list(self._desk.functions))
            except StoreError as error:
                event(log, logging.INFO, "functions not shown", reason=error)
