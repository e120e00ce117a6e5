"""Carry jobs between who holds them in memory and the store: the loops that finish, claim and keep the lease.

The holder is a server's Dispatcher (``server_exchange`` adds what only servers do) or the Desk of a direct worker.

Each loop has at most one statement under way; what gathers meanwhile is its next batch (group commit without a delay).
While the database is away all of them wait for ``_reconnect``, which first settles with the database what is held here.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

from .connecting import ANSWER_SECONDS, first_line
from .duties import Duties
from .errors import SchemaError, StoreError, StoreInDoubt, StoreRefused, StoreUnavailable
from .finishes import Finishes, tell_stale
from .function_ids import FunctionIds
from .job_holder import TICK_SECONDS, JobHolder
from .listening import WORD, Listening
from .logs import Reminder, event
from .pace import BUSY_POLL_SECONDS, IDLE_POLL_SECONDS, POLL_SHARE, Pace
from .store.postgres import PostgresStore
from .store.session import StoreLocked

log = logging.getLogger("postgear.exchange")

CLAIM_MAX_BYTES: Final = 16 * 1024 * 1024
"""Most workload bytes in one claim, so that a window of large jobs does not fill the memory."""
RENEW_SECONDS: Final = 1.0
PROGRESS_SECONDS: Final = 1.0
BACKOFF_SECONDS: Final = (0.05, 2.0)
AWAY: Final = "database still away, retrying"
STALLED: Final = "database does not commit, retrying"
ADVICE: Final = "check that PostgreSQL runs and that the DSN is right; `postgear doctor` tells whether commits wait"
LEASE_MARGIN: Final = 0.75
"""A server that could not renew for this part of its lease stops giving out background jobs: before others may take them."""


class Exchange:
    """The loops. ``changed`` is called after each change of the holder, so that its shell looks at what came of it and calls
    ``kick``. *register* starts a lease in the store.
    """

    def __init__(
        self,
        holder: JobHolder,
        make_store: Callable[[Callable[[str], None], Callable[[str], None]], PostgresStore],
        changed: Callable[[], None],
        *,
        register: Callable[[PostgresStore], Awaitable[None]],
        lease_seconds: float,
    ) -> None:
        self._holder = holder
        holder.is_lease_in_doubt = self._is_lease_in_doubt
        self._loop = asyncio.get_running_loop()
        self.store = make_store(self._notified, self._lost)
        self.function_ids = FunctionIds(holder, self.store)
        self._changed = changed
        self._register = register
        self._lease_seconds = lease_seconds
        self._up = asyncio.Event()
        self._down = asyncio.Event()
        self._down.set()
        self._finishes = Finishes(
            holder, self.store, self._up, tell=self._tell, released=self._look_again, postponed=self._look_soon
        )
        self._claim_wanted = asyncio.Event()
        self._claiming = asyncio.Lock()  # held while a claim is under way
        self._pace = Pace()
        self._sleeping = False
        self._promote_at = 0.0
        self.renewed_at = 0.0  # by the loop's clock
        self._duties = Duties(self.store, self._up, self._look_again)
        self.listening = Listening(self.store, self._up, lambda: self._sleeping)
        self._reminder = Reminder(log, self._loop.time)
        self._running: set[asyncio.Task[None]] = set()
        self.fatal: asyncio.Future[None] = self._loop.create_future()

    # -- for the shell -------------------------------------------------------------------------------------------

    @property
    def is_up(self) -> bool:
        """Whether the database answers."""
        return self._up.is_set()

    async def start(self) -> None:
        """Connect, or begin to try; start the loops. Raises at once where waiting would not help: SchemaError, StoreRefused."""
        try:
            await self._connect()
        except (SchemaError, StoreError) as error:
            self.store.close()
            if isinstance(error, StoreRefused) or not isinstance(error, StoreUnavailable | StoreInDoubt):
                raise
            if isinstance(error, _Stalled):
                self._reminder.remind(logging.WARNING, STALLED, str(error))
            else:
                event(log, logging.WARNING, "database away, retrying", reason=first_line(str(error)), advice=ADVICE)
                self._reminder.told(AWAY)
        for loop in (
            self._reconnect(),
            self._finishes.run(),
            self._claim_loop(),
            self._lease_loop(),
            self._duties.reap(),
            self._duties.expire(),
            self.listening.run(),
            self._tick_loop(),
        ):
            self._spawn(loop)

    def kick(self) -> None:
        """Look at what the holder has for the store; called after each of its events."""
        self._finishes.kick()
        if self._holder.claim_wanted:
            self._claim_wanted.set()

    async def wait_up(self) -> None:
        """Wait until the database answers."""
        await self._up.wait()

    async def settle(self) -> None:
        """Wait until every finish and release so far is committed. Raises StoreUnavailable when that takes too long."""
        await self._finishes.settle()

    async def settle_all(self) -> None:
        """Do the same for a holder that wants no more jobs: what a claim under way brings goes back, too."""
        async with self._claiming:
            pass
        await self.settle()

    @property
    def is_settled(self) -> bool:
        """Whether no finish, release or claim is waiting or under way."""
        return self._finishes.are_settled and not self._claiming.locked()

    async def stop(self) -> None:
        """End the lease if the database answers; stop the loops."""
        while self._running:  # a wait_for whose end comes at the same moment swallows the cancellation (Python 3.11)
            for task in self._running:
                task.cancel()
            await asyncio.wait(self._running, timeout=0.1)
        if self._up.is_set() and self.store.lease:
            try:
                await asyncio.wait_for(self.store.end_lease(), 2)
            except (StoreError, TimeoutError) as error:
                event(log, logging.WARNING, "lease not ended, others will reap it", reason=error)
        self.store.close()

    def _spawn(self, coroutine: Coroutine[object, object, None]) -> None:
        task = self._loop.create_task(coroutine)
        self._running.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        if not self.fatal.done():
            self.fatal.set_exception(error)

    # -- connection and lease ------------------------------------------------------------------------------------

    def _notified(self, payload: str) -> None:
        word, _, rest = payload.partition(" ")
        if word == WORD:
            self.listening.heard(payload)
            return
        if word == "wake":
            self._holder.reopen_backlogs()
        elif word == "cancel" and rest.isdigit():
            self._holder.cancel(b"", int(rest))
        elif word == "functions":
            self._holder.unresolved.extend(self._holder.functions.values())
        self._changed()

    def _lost(self, reason: str) -> None:
        if self._up.is_set():
            event(log, logging.WARNING, "database connection lost", reason=first_line(reason), advice=ADVICE)
            self._reminder.told(AWAY)
            self._up.clear()
            self._down.set()
            self.listening.lost()
            self._holder.store_is_up = False
            self._holder.serve_waiting()
            # All of them go, so that no call is under way when what is held here is settled with the database.
            self.store.close()

    async def _connect(self) -> None:
        await self.store.connect()
        asked_at = self._loop.time()
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await self._settle_held()
        except TimeoutError:
            self.store.put_host_last()
            raise _Stalled(f"no commit within {ANSWER_SECONDS:g} s: PostgreSQL may wait for a synchronous standby") from None
        if not self.store.is_open:
            raise StoreUnavailable("a database connection broke again at once")  # its loss was not announced: we are not up
        holder = self._holder
        self._sleeping = False
        self.renewed_at = asked_at
        self._pace.stay_awake(self._loop.time())
        self._promote_at = 0.0
        holder.suspended = False
        holder.store_is_up = True
        holder.unresolved = list(holder.functions.values())
        holder.reopen_backlogs()
        self._down.clear()
        self._up.set()
        self._changed()

    async def _settle_held(self) -> None:
        """Renew the lease or take another, and settle with the database what is held here."""
        holder = self._holder
        if self.store.lease and await self._renew(sleeping=False):
            await self._settle_submits(lease_lives=True)  # first: what they brought is held from then on
            # Released with all that is not held. Once more would be once too often: they may be claimed again by then.
            self._finishes.forget_releases()
            lost = await self.store.release_others([*holder.held_ids(), *self._finishes.held_ids()])
            holder.drop_held(lost)
            self._finishes.drop_postponed(lost)  # though the answer was lost; claimed again they must not go back again
            self._duties.await_others()
        else:
            if self.store.lease:
                event(log, logging.WARNING, "lease lost", lease=self.store.lease)
                tell_stale(self._finishes.ended_ids())
                holder.forget_lease()
                self._finishes.forget()
            await self._register(self.store)
            holder.set_queue_name(self.store.queue_name)
            event(log, logging.INFO, "lease taken", lease=self.store.lease, queue=self.store.queue_name)
            await self._settle_submits(lease_lives=False)
            if await self.store.misses_others():
                self._duties.await_others()

    async def _settle_submits(self, *, lease_lives: bool) -> None:
        """Learn what became of submits whose answer was lost."""

    async def _reconnect(self) -> None:
        while True:
            await self._down.wait()
            pause, longest = BACKOFF_SECONDS
            while not self._up.is_set():
                try:
                    await self._connect()
                    event(log, logging.INFO, "database connected")
                except SchemaError as error:
                    self._reminder.remind(logging.ERROR, "schema missing, retrying", first_line(str(error)))
                    self.store.close()
                except StoreError as error:
                    name = STALLED if isinstance(error, _Stalled) else AWAY
                    self._reminder.remind(logging.WARNING, name, first_line(str(error)))
                    self.store.close()
                if not self._up.is_set():
                    await asyncio.sleep(pause * random.uniform(0.5, 1.0))
                    pause = min(pause * 2, longest)

    def _tell(self, level: int, name: str, error: StoreError, **fields: Any) -> None:
        """Log that a statement failed, unless that is because the database is away, which has been told."""
        if self._up.is_set():
            event(log, level, name, **fields, reason=error)

    async def _renew(self, *, sleeping: bool) -> bool:
        return await self.store.renew_lease(sleeping=sleeping, duties_seconds=self._duties.done_seconds_ago)

    async def _lease_loop(self) -> None:
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            if not self._up.is_set():
                continue
            asked_at = self._loop.time()  # the row is stamped after this, so it is believed for no longer than the database does
            try:
                alive = await self._renew(sleeping=self._sleeping)
            except StoreError as error:
                self._tell(logging.WARNING, "lease not renewed", error)
                continue
            if alive:
                self.renewed_at = asked_at
                self._on_renewed()
                if self._holder.unresolved:
                    self._claim_wanted.set()
                if self._holder.suspended:
                    self._holder.suspended = False
                    self._look_again()
            else:
                self._lost("others took this one for dead")

    def _on_renewed(self) -> None:
        """What else there is to do once a second while the lease lives."""

    def _look_again(self) -> None:
        """There may be jobs where none were."""
        self._holder.reopen_backlogs()
        self._changed()

    def _is_lease_in_doubt(self) -> bool:
        # By the clock itself: uvloop reads it once a turn, and the process may have been stopped in the midst of one.
        return bool(self.store.lease) and time.monotonic() - self.renewed_at > self._lease_seconds * LEASE_MARGIN

    async def _tick_loop(self) -> None:
        progress_at = 0.0
        while True:
            await asyncio.sleep(TICK_SECONDS)
            now = self._holder.now = self._loop.time()
            if self._is_lease_in_doubt() and not self._holder.suspended:
                event(log, logging.WARNING, "lease in doubt, background jobs held back")
                self._holder.suspended = True
                # The database does not answer: whoever waits for it is told, and it is looked for anew, at other hosts first.
                self.store.put_host_last()
                self._lost("the lease could not be renewed")
            self._holder.tick()
            if self._holder.is_behind != self._finishes.are_behind:
                self._holder.is_behind = not self._holder.is_behind
                self._look_again()
            if self._holder.progress and now >= progress_at and self._up.is_set():
                progress_at = now + PROGRESS_SECONDS
                progress, self._holder.progress = self._holder.progress, {}
                self._spawn(self._record(progress))
            self._changed()

    async def _record(self, progress: dict[int, tuple[int, int]]) -> None:
        try:
            await self.store.record_progress(progress)
        except StoreError as error:
            self._tell(logging.INFO, "progress not recorded", error)

    def _look_soon(self) -> None:
        """Look for scheduled jobs: some were added."""
        self._promote_at = 0.0
        self._claim_wanted.set()

    # -- claims --------------------------------------------------------------------------------------------------

    async def _claim_loop(self) -> None:
        poll_at = 0.0
        has_found = False
        while True:
            await self._up.wait()
            now = self._loop.time()
            wait = (IDLE_POLL_SECONDS if self._sleeping else max(poll_at - now, 0.001)) if self._holder.has_workers else 60.0
            if not self._claim_wanted.is_set():
                wait = min(wait, max(self._promote_at - now, 0.001))
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._claim_wanted.wait(), wait)
            self._claim_wanted.clear()
            now = self._loop.time()
            try:
                has_found = await self._look(poll=now >= poll_at)
                if now > self._pace.awake_until and not self._sleeping and self._holder.has_workers:
                    await self._fall_asleep()
                elif now <= self._pace.awake_until and self._sleeping:
                    self._sleeping = False
                    await self._renew(sleeping=False)
            except StoreError as error:
                self._tell(logging.INFO, "claim failed", error)
                await asyncio.sleep(BACKOFF_SECONDS[0])
            if now >= poll_at:
                ended = self._loop.time()
                poll_at = ended + max(BUSY_POLL_SECONDS, (ended - now) * (1 if has_found else POLL_SHARE))

    async def _fall_asleep(self) -> None:
        """Say that this one sleeps, then look once more: what was queued before it said so sends no NOTIFY."""
        self._sleeping = True
        await self._renew(sleeping=True)
        await self._look(poll=True)

    async def _look(self, *, poll: bool) -> bool:
        """Claim what is worth while; tell whether there was any. *poll*: ask even where nothing is known to be queued."""
        holder = self._holder
        if not self._up.is_set():
            return False
        if holder.unresolved:
            with contextlib.suppress(StoreLocked):  # some are being added by a transaction that is not over; others have jobs
                await self.function_ids.learn()
        now = self._loop.time()
        if now >= self._promote_at:
            seconds = await self._duties.promote()
            self._promote_at = now + (min(seconds, IDLE_POLL_SECONDS) if seconds is not None else IDLE_POLL_SECONDS)
            if seconds == 0:
                self._claim_wanted.set()
        if self._finishes.has_releases:
            await self.settle()  # or younger jobs would be claimed before those that are on their way back
        async with self._claiming:
            lanes = holder.demands(poll=poll)
            if not lanes:
                return False
            try:
                jobs = await self.store.claim_jobs(lanes, CLAIM_MAX_BYTES, holder.claim_limit)
            except StoreError:
                holder.claim_failed(lanes)
                raise
            cut = sum(len(job.workload) for job in jobs) >= CLAIM_MAX_BYTES
            holder.claimed(lanes, jobs, cut=cut)
        self._pace.found(len(jobs), self._loop.time())
        self._changed()
        return bool(jobs)


class _Stalled(StoreUnavailable):
    """A database that takes connections and answers, but commits nothing."""
