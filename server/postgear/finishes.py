"""The way of ended jobs, and of those that go back: from who holds them into the database, a batch at a time.

At most one statement is under way; what gathers meanwhile is its next batch. What was not surely stored is sent again: repeating
a call that was committed changes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from itertools import islice
from typing import Final

from .errors import StoreError, StoreUnavailable
from .job import Ending
from .job_holder import JobHolder
from .logs import event
from .store.postgres import PostgresStore

log = logging.getLogger("postgear.exchange")

PAUSE_SECONDS: Final = 0.02
"""Between two deletes of finished jobs: workers do not wait for them, and fewer, larger ones cost less."""
RETRY_SECONDS: Final = 0.2
SETTLE_SECONDS: Final = 10.0
"""How long a question waits for finishes to be stored before it is answered with an error."""
RESULTS_MAX_JOBS: Final = 1000
RESULTS_MAX_BYTES: Final = 16 * 1024 * 1024
"""After so much a batch of results is closed: PostgreSQL takes an array of 1 GB at most."""
RESULTS_WAIT_JOBS: Final = 10_000
RESULTS_WAIT_BYTES: Final = 32 * 1024 * 1024
"""With more results waiting no more jobs are taken: workers make them faster than the database stores them."""


class Finishes:
    """One for a lease. *up*: the database answers. *tell* logs that a statement failed.

    *released* and *postponed* are called when jobs went back, for now or for later.
    """

    def __init__(
        self,
        holder: JobHolder,
        store: PostgresStore,
        up: asyncio.Event,
        *,
        tell: Callable[..., None],
        released: Callable[[], None],
        postponed: Callable[[], None],
    ) -> None:
        self._holder = holder
        self._store = store
        self._up = up
        self._tell = tell
        self._released = released
        self._postponed = postponed
        self._loop = asyncio.get_running_loop()
        self._wanted = asyncio.Event()
        self._urgent = asyncio.Event()
        self._settlers: list[asyncio.Future[None]] = []  # wait for the next round
        self._is_under_way = False
        # Taken from the holder, not yet committed:
        self._finishing: list[int] = []
        self._keeping: dict[int, Ending] = {}
        self._releasing: list[int] = []
        self._unused: list[int] = []
        self._postponing: dict[int, float] = {}

    def kick(self) -> None:
        """Look at what the holder has."""
        if self._are_waiting():
            self._wanted.set()

    async def settle(self) -> None:
        """Wait until every finish and release so far is committed. Raises StoreUnavailable when that takes too long."""
        if self.are_settled:
            return
        settled = self._loop.create_future()
        self._settlers.append(settled)
        self._wanted.set()
        self._urgent.set()
        try:
            await asyncio.wait_for(settled, SETTLE_SECONDS)
        except TimeoutError:
            raise StoreUnavailable("the database does not answer") from None

    @property
    def are_settled(self) -> bool:
        """Whether none is waiting or under way."""
        return not (self._is_under_way or self._are_waiting())

    @property
    def has_releases(self) -> bool:
        """Whether jobs are on their way back."""
        return bool(self._holder.releases or self._holder.unused or self._releasing or self._unused)

    @property
    def are_behind(self) -> bool:
        """Whether so many results wait that no more jobs should be taken."""
        waiting = (self._keeping, self._holder.results)
        if sum(map(len, waiting)) > RESULTS_WAIT_JOBS:
            return True
        return sum(len(ending.data or b"") for results in waiting for ending in results.values()) > RESULTS_WAIT_BYTES

    def _are_waiting(self) -> bool:
        holder = self._holder
        return bool(holder.finishes or holder.results or holder.releases or holder.unused or holder.postponed or holder.attempts)

    # -- after a reconnect ---------------------------------------------------------------------------------------

    def forget_releases(self) -> None:
        """Take it that all that is not held is released by other means."""
        for releases in (self._releasing, self._unused, self._holder.releases, self._holder.unused):
            releases.clear()

    def held_ids(self) -> list[int]:
        """Return the jobs whose rows are this lease's until what is waiting here is stored."""
        holder = self._holder
        return [*self.ended_ids(), *holder.postponed, *self._postponing]

    def ended_ids(self) -> list[int]:
        """Return those of them that have ended."""
        holder = self._holder
        return [*holder.finishes, *holder.results, *self._finishing, *self._keeping]

    def drop_postponed(self, ids: list[int]) -> None:
        """Put these back no more: their rows are."""
        for job_id in ids:
            self._holder.postponed.pop(job_id, None)
            self._postponing.pop(job_id, None)

    def forget(self) -> None:
        """Forget what was taken from the holder: the lease was lost."""
        for ended in (self._finishing, self._keeping, self._releasing, self._unused, self._postponing):
            ended.clear()

    # -- the loop ------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Store what comes, for ever."""
        holder = self._holder
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            self._is_under_way = True
            settlers, self._settlers = self._settlers, []
            self._finishing += holder.finishes
            self._keeping |= holder.results
            self._releasing += holder.releases
            self._unused += holder.unused
            self._postponing |= holder.postponed
            holder.finishes, holder.results, holder.releases, holder.unused, holder.postponed = [], {}, [], [], {}
            try:
                await self._store_all()
            except StoreError as error:
                jobs = len(self._finishing) + len(self._keeping)
                self._tell(logging.WARNING, "finished jobs not deleted, retrying", error, jobs=jobs)
                self._wanted.set()
                self._settlers = settlers + self._settlers
                await asyncio.sleep(RETRY_SECONDS)
                await self._up.wait()
                continue
            self._is_under_way = False
            for settled in settlers:
                if not settled.done():
                    settled.set_result(None)
            if not self._settlers:
                self._urgent.clear()
            if (holder.finishes or holder.results) and not self._settlers:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._urgent.wait(), PAUSE_SECONDS)

    async def _store_all(self) -> None:
        # Each list is emptied only after its commit.
        holder, store = self._holder, self._store
        if holder.attempts:  # before they are released
            attempts, holder.attempts = holder.attempts, {}
            try:
                await store.record_attempts(attempts)
            except StoreError:
                holder.attempts = attempts | holder.attempts
                raise
        if self._releasing:
            await store.release_jobs(self._releasing, given_out=True)
            self._releasing = []
            self._released()
        if self._postponing:
            now = self._loop.time()
            await store.postpone_jobs({job_id: at - now for job_id, at in self._postponing.items()})
            self._postponing = {}
            self._postponed()
        if self._unused:
            await store.release_jobs(self._unused, given_out=False)
            self._unused = []
        if self._finishing:
            ids = self._finishing
            tell_stale(await store.finish_jobs(ids))
            self._finishing = []
            holder.finished(ids)
        while self._keeping:
            batch = self._next_results()
            tell_stale(await store.finish_with_results(batch))
            for job_id in batch:
                self._keeping.pop(job_id, None)  # a reconnect may have forgotten it meanwhile
            holder.finished(batch)

    def _next_results(self) -> dict[int, Ending]:
        batch = {}
        size_bytes = 0
        for job_id, result in islice(self._keeping.items(), RESULTS_MAX_JOBS):
            batch[job_id] = result
            size_bytes += len(result.data or b"")
            if size_bytes >= RESULTS_MAX_BYTES:
                break
        return batch


def tell_stale(ids: list[int]) -> None:
    """Log that jobs were completed too late: they belong to others by now, and nothing was changed."""
    if ids:
        event(log, logging.WARNING, "stale completions ignored", jobs=len(ids), ids=ids[:10])
