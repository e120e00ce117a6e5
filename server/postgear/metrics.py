"""What a server tells Prometheus, in its text format (version 0.0.4), and load balancers: whether it lives, whether it is ready.

Counters are this process's own and begin at 0 with it. The queue and the standbys are asked of the database at each scrape.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

from .errors import StoreError
from .job import FunctionCount
from .metric_text import MetricText, labels

if TYPE_CHECKING:
    from .daemon import Server

READY_SECONDS: Final = 3.0
"""A server is ready while its lease was renewed within this time: it writes once a second."""

DATABASE_SECONDS: Final = 2.0
"""How long a scrape waits for the database, and as long again for a count of the queue: less than ``web.REQUEST_SECONDS``."""


class Metrics:
    """The pages of one server."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._counting: asyncio.Task[None] | None = None
        self._counts: list[FunctionCount] = []

    async def live(self) -> tuple[int, str]:
        """Answer while the event loop turns."""
        return 200, "live\n"

    async def ready(self) -> tuple[int, str]:
        """Tell whether new work is welcome: the database answers and takes writes, and the server is not stopping."""
        if self._server.is_stopping:
            return 503, "stopping\n"
        exchange = self._server.exchange
        if not exchange.is_up:
            return 503, "the database is away\n"
        ago = self._server.loop.time() - exchange.renewed_at
        if ago > READY_SECONDS:
            return 503, f"the lease was last renewed {ago:.1f} s ago\n"
        return 200, "ready\n"

    async def metrics(self) -> tuple[int, str]:
        """Return all of them. What the database does not answer in time is left out; a count of the queue that takes longer is
        shown by a later scrape, and until then the one before it."""
        page = MetricText()
        add = page.add
        server = self._server
        dispatcher, exchange = server.dispatcher, server.exchange
        functions = list(dispatcher.functions.values())

        add("postgear_info", "gauge", "Always 1.", [(labels(version=server.version, name=server.config.name), 1)])
        renewed = server.loop.time() - exchange.renewed_at
        is_up = exchange.is_up and renewed <= READY_SECONDS
        add("postgear_database_up", "gauge", "Whether the database answers.", is_up)
        add("postgear_lease_renewed_seconds", "gauge", "Since the lease was last renewed.", renewed)
        hears = exchange.listening.hears
        about = "Whether the last notification that this server sent to itself arrived; left out before the first."
        add("postgear_notifications_arrive", "gauge", about, () if hears is None else hears)
        add("postgear_connections", "gauge", "Clients and workers.", len(server.connections))
        workers = [(labels(function=_text(function.name)), len(function.workers)) for function in functions]
        add("postgear_workers", "gauge", "Workers here that can do a function.", workers)
        running = [(labels(function=_text(function.name)), function.running) for function in functions]
        add("postgear_jobs_running", "gauge", "Jobs that run at workers of this server.", running)
        add("postgear_jobs_in_memory", "gauge", "Jobs claimed ahead, running, or in the foreground.", len(dispatcher.jobs))
        counts = exchange.submit_counts
        about = "Background submits by what became of them."
        add("postgear_submits_total", "counter", about, [(labels(outcome=outcome), counts[outcome]) for outcome in counts])
        if is_up:
            with contextlib.suppress(StoreError, TimeoutError):  # it went away meanwhile, which the next scrape tells
                async with asyncio.timeout(DATABASE_SECONDS):
                    await self._add_database(page)
            await self._count()
            queue = [
                (labels(function=_text(count.name), state=state), jobs)
                for count in self._counts
                for state, jobs in (("high", count.high), ("normal", count.normal), ("low", count.low), ("held", count.held))
            ]
            about = "Background jobs in the database: waiting by priority, or held by a server."
            add("postgear_queue_jobs", "gauge", about, queue)
        return 200, page.text()

    async def _add_database(self, page: MetricText) -> None:
        add = page.add
        store = self._server.exchange.store
        standbys = await store.standbys()
        has_sync = await store.has_sync_standby(asking=True)
        about = "Whether commits wait for a synchronous standby, and one is connected."
        add("postgear_sync_standby_connected", "gauge", about, has_sync)
        labelled = [(labels(standby=each.name, sync_state=each.sync_state or "unknown"), each) for each in standbys]
        lags = [(written, each.lag_bytes) for written, each in labelled if each.lag_bytes is not None]
        add("postgear_standby_lag_bytes", "gauge", "WAL that a standby has not yet written to its disk.", lags)
        delays = [(written, each.lag_seconds) for written, each in labelled if each.lag_seconds is not None]
        add("postgear_standby_lag_seconds", "gauge", "How long its last confirmation took.", delays)
        timeline = 0 if store.cluster is None else int(store.cluster.timeline, 16)
        add("postgear_timeline", "gauge", "PostgreSQL's timeline; it changes when a standby is promoted.", timeline)
        relays = [(labels(outbox=each.outbox), each) for each in await store.relays()]
        if relays:
            about = "Whether a relay works on an outbox and can read it."
            add("postgear_relay_working", "gauge", about, [(written, each.is_working) for written, each in relays])
            waiting = [(written, each.waiting) for written, each in relays if each.waiting is not None]
            add("postgear_relay_rows_waiting", "gauge", "Rows in an outbox as seen last, counted up to 100,000.", waiting)
            oldest = [(written, each.oldest_seconds or 0) for written, each in relays]
            add(
                "postgear_relay_oldest_seconds",
                "gauge",
                "The age of the oldest row in an outbox, or of the last look while nobody reads it; 0 for none.",
                oldest,
            )
            rates = [(written, each.rows_per_second or 0) for written, each in relays]
            add("postgear_relay_rows_per_second", "gauge", "Rows moved in the last second.", rates)
            moved = [(written, each.moved) for written, each in relays]
            add("postgear_relay_rows_moved_total", "counter", "Rows that became jobs.", moved)
            failed = [(written, each.failed) for written, each in relays]
            add("postgear_relay_rows_failed_total", "counter", "Rows set aside, for they could be no job.", failed)

    async def _count(self) -> None:
        """Count the queue, for as long as a scrape may wait; one that takes longer goes on, and no other begins meanwhile."""
        if self._counting is None or self._counting.done():
            self._counting = self._server.loop.create_task(self._recount())
        await asyncio.wait((self._counting,), timeout=DATABASE_SECONDS)

    async def _recount(self) -> None:
        try:
            self._counts = await self._server.admin.counts()
        except StoreError:
            self._counts = []


def _text(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")
