"""Carry batches of background submits into the store: one at a time, what gathers meanwhile is the next (group commit).

While all is well a batch goes out in the loop turn that brought it and its acknowledgements in the turn that brought the
commit: no task, no event between. After a small batch of several the next one waits for a few turns of the loop, which take no
longer than looking at the sockets. A task is made only for a batch that has to wait for something. A batch whose answer was lost
stays in doubt until the database is back and ``settle`` asks it: then the batch is acknowledged, or sent again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final

from .dispatch.dispatcher import Dispatcher
from .errors import StoreError, StoreInDoubt, StoreUnavailable
from .function_ids import FunctionIds
from .job import SubmitBatch
from .logs import event
from .store.postgres import PostgresStore
from .store.session import StoreLocked

log = logging.getLogger("postgear.exchange")

NO_STANDBY: Final = "no synchronous standby is connected"
GATHER_TURNS: Final = 5
"""For how many turns of the loop clients that were just acknowledged may come into the next batch."""
GATHER_MAX_JOBS: Final = 64
"""A larger batch comes from clients that do not wait for their acknowledgements."""
STANDBY_SECONDS: Final = 0.2
"""How often it is looked whether there is one again."""


class Submits:
    """The way of submits. *up*: the database answers. *settle*: wait until the finishes so far are stored.

    require_sync: nothing is acknowledged while no synchronous standby is connected; a look after each commit sees to that, for
    PostgreSQL lets commits go that wait for a standby when its configuration changes to one without.
    *stored* is called with each committed batch before its acknowledgements go out by *flush*, *fatal* with a bug of ours.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        store: PostgresStore,
        up: asyncio.Event,
        function_ids: FunctionIds,
        *,
        timeout_seconds: float,
        require_sync: bool,
        settle: Callable[[], Awaitable[None]],
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        stored: Callable[[SubmitBatch], None],
        flush: Callable[[], None],
        fatal: Callable[[BaseException], None],
    ) -> None:
        self._dispatcher = dispatcher
        self._store = store
        self._up = up
        self._function_ids = function_ids
        self._timeout_seconds = timeout_seconds
        self._require_sync = require_sync
        self._settle = settle
        self._spawn = spawn
        self._stored = stored
        self._flush = flush
        self._fatal = fatal
        self._loop = asyncio.get_running_loop()
        self._batch: SubmitBatch | None = None  # under way
        self._in_doubt = False  # and its answer was lost
        self._turns_left = 0  # of gathering
        self.counts = {"acknowledged": 0, "refused": 0, "in_doubt": 0}
        """Jobs by what became of their submits; those in doubt are acknowledged or refused later."""

    @property
    def is_idle(self) -> bool:
        """Whether no submit is waiting or under way."""
        return self._batch is None and not self._dispatcher.submits

    def kick(self) -> None:
        """Begin with the next batch, if there is one, none is under way, and no more are expected in it."""
        if self._batch is not None or self._turns_left or not self._dispatcher.submits:
            return
        batch = self._batch = self._dispatcher.submits.popleft()
        if self._up.is_set() and not batch.after_finishes and not self._function_ids.are_wanted:
            self._store.start_submit(batch, self._ended)
        else:
            self._spawn(self._prepare(batch))

    async def settle(self, *, lease_lives: bool) -> None:
        """Learn what became of a batch whose answer was lost; after a reconnect, before what is held here is settled.

        lease_lives: what was born claimed is still this server's. Raises StoreError.
        """
        batch = self._batch
        if batch is None or not self._in_doubt:
            return
        ids = await self._store.settle_batch(batch)
        lease_lives = lease_lives and batch.sent_as[0] == self._store.lease  # not one before that
        may_acknowledge = ids is None or not self._require_sync or await self._store.has_sync_standby()
        if self._batch is not batch:
            return  # it has waited too long meanwhile
        if ids is not None and not (may_acknowledge and lease_lives):
            self._dispatcher.forget_claims(batch)
        if not may_acknowledge:
            return  # still in doubt
        self._in_doubt = False
        event(log, logging.INFO, "submits were in doubt", jobs=len(batch), stored=ids is not None)
        if ids is not None:
            self._acknowledge(batch, ids)

    async def _prepare(self, batch: SubmitBatch, reason: str = "the database is away") -> None:
        """Wait for what the batch needs, then begin; refuse it when that takes too long."""
        deadline = batch.opened_at + self._timeout_seconds
        while True:
            await asyncio.sleep(0)  # never round and round without a turn of the loop
            if not self._up.is_set():  # also while what this server holds is settled with the database
                try:
                    await asyncio.wait_for(self._up.wait(), max(deadline - self._loop.time(), 0))
                except TimeoutError:
                    if self._batch is batch:
                        self._fail(batch, reason)
                    return
                if self._batch is not batch:
                    return  # it was in doubt, and stored
            try:
                if self._require_sync and not await self._store.has_sync_standby():
                    await asyncio.sleep(STANDBY_SECONDS)
                    raise StoreUnavailable(NO_STANDBY)
                if self._in_doubt:
                    await self.settle(lease_lives=True)
                if self._batch is not batch:
                    return
                if self._in_doubt:
                    continue  # stored, but the standby went meanwhile: sent again it would be there twice
                if self._function_ids.are_wanted:
                    try:
                        await self._function_ids.learn()
                    except StoreLocked:  # by a transaction that has added one of the functions asked for
                        if not all(function.id for function in batch.functions):
                            raise
                if batch.after_finishes:
                    await self._settle()
            except StoreInDoubt:
                continue  # nothing of the batch was sent, or it is in doubt all the same
            except StoreUnavailable as error:
                reason = str(error)
                if self._batch is not batch:
                    return
                if self._loop.time() >= deadline:
                    self._fail(batch, reason)
                    return
                continue
            except StoreError as error:
                self._refuse(batch, error)
                return
            self._store.start_submit(batch, self._ended)
            return

    def _ended(self, outcome: Sequence[int] | StoreError) -> None:
        batch = self._batch
        assert batch is not None
        try:
            if isinstance(outcome, StoreUnavailable):
                if self._loop.time() >= batch.opened_at + self._timeout_seconds:
                    self._fail(batch, str(outcome))
                elif isinstance(outcome, StoreLocked):
                    event(log, logging.WARNING, "submits wait for a lock, stored without those that do", jobs=len(batch))
                    self._store.start_submit(batch, self._ended, around_locks=True)
                else:
                    self._spawn(self._prepare(batch, str(outcome)))
            elif isinstance(outcome, StoreInDoubt):
                self._in_doubt = True
                self.counts["in_doubt"] += len(batch)
                self._spawn(self._prepare(batch, f"not known to be stored: {outcome}"))
            elif isinstance(outcome, StoreError):
                self._refuse(batch, outcome)
            elif self._require_sync:
                self._in_doubt = True
                self._spawn(self._confirm(batch, outcome))
            else:
                self._acknowledge(batch, outcome)
        except Exception as error:
            self._fatal(error)

    async def _confirm(self, batch: SubmitBatch, ids: Sequence[int]) -> None:
        """Acknowledge a batch if there is a synchronous standby; else let go what it brought, and wait for one."""
        try:
            if await self._store.has_sync_standby():
                if self._batch is batch:
                    self._in_doubt = False
                    self._acknowledge(batch, ids)
                return
            event(log, logging.WARNING, "submits stored but not acknowledged yet", jobs=len(batch), reason=NO_STANDBY)
            born = [job_id for job_id, claim in zip(ids, batch.claims, strict=True) if claim and job_id > 0]
            if self._batch is batch:
                self._dispatcher.forget_claims(batch)
                await self._store.release_jobs(born, given_out=False)
        except StoreError:
            pass  # the connection is lost, and what is held here will be settled
        if self._batch is batch:
            await self._prepare(batch, NO_STANDBY)

    def _acknowledge(self, batch: SubmitBatch, ids: Sequence[int]) -> None:
        self._batch = None
        self.counts["acknowledged"] += len(batch)
        self._dispatcher.submitted(batch, ids)
        self._stored(batch)
        if len(batch) <= GATHER_MAX_JOBS and (len(batch) > 1 or self._dispatcher.submits):
            # Clients that wait for each acknowledgement come with their next submit at once. Without those the next batch would
            # be of the others only, and so on: two halves that wait for each other's commits.
            self._turns_left = GATHER_TURNS
            self._loop.call_soon(self._turn)
        self._flush()

    def _turn(self) -> None:
        self._turns_left -= 1
        if self._turns_left:
            self._loop.call_soon(self._turn)
        else:
            self.kick()

    def _refuse(self, batch: SubmitBatch, error: StoreError) -> None:
        event(log, logging.ERROR, "submits refused by the database", jobs=len(batch), reason=error)
        self._fail(batch, str(error))

    def _fail(self, batch: SubmitBatch, text: str) -> None:
        if self._in_doubt:
            event(log, logging.WARNING, "submits in doubt, not acknowledged", jobs=len(batch), reason=text)
        self._batch = None
        self._in_doubt = False
        self.counts["refused"] += len(batch)
        self._dispatcher.submit_failed(batch, text)
        self._flush()
