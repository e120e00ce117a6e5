"""Carry batches of background submits into the store: one at a time, what gathers meanwhile is the next (group commit).

While all is well a batch goes out in the loop turn that brought it and its acknowledgements in the turn that brought the
commit: no task, no event between. A task is made only for a batch that has to wait for something.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

from .dispatch.dispatcher import Dispatcher
from .errors import StoreError, StoreInDoubt, StoreUnavailable
from .function_ids import FunctionIds
from .job import SubmitBatch
from .logs import event
from .store.postgres import PostgresStore

log = logging.getLogger("postgear.exchange")


class Submits:
    """The way of submits. *up*: the database answers. *settle*: wait until the finishes so far are stored.

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
        self._settle = settle
        self._spawn = spawn
        self._stored = stored
        self._flush = flush
        self._fatal = fatal
        self._loop = asyncio.get_running_loop()
        self._batch: SubmitBatch | None = None  # under way

    @property
    def is_idle(self) -> bool:
        """Whether no submit is waiting or under way."""
        return self._batch is None and not self._dispatcher.submits

    def kick(self) -> None:
        """Begin with the next batch, if there is one and none is under way."""
        if self._batch is not None or not self._dispatcher.submits:
            return
        batch = self._batch = self._dispatcher.submits.popleft()
        if self._up.is_set() and not batch.after_finishes and not self._function_ids.are_wanted:
            self._store.start_submit(batch, self._ended)
        else:
            self._spawn(self._prepare(batch))

    async def _prepare(self, batch: SubmitBatch, reason: str = "the database is away") -> None:
        """Wait for what the batch needs, then begin; refuse it when that takes too long."""
        deadline = batch.opened_at + self._timeout_seconds
        while True:
            await asyncio.sleep(0)  # never round and round without a turn of the loop
            if not self._up.is_set():  # also while what this server holds is settled with the database
                try:
                    await asyncio.wait_for(self._up.wait(), max(deadline - self._loop.time(), 0))
                except TimeoutError:
                    self._fail(batch, reason)
                    return
            try:
                if self._function_ids.are_wanted:
                    await self._function_ids.learn()
                if batch.after_finishes:
                    await self._settle()
            except StoreInDoubt:
                continue  # nothing of the batch was sent
            except StoreUnavailable as error:
                reason = str(error)
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
                if self._loop.time() < batch.opened_at + self._timeout_seconds:
                    self._spawn(self._prepare(batch, str(outcome)))
                else:
                    self._fail(batch, str(outcome))
            elif isinstance(outcome, StoreInDoubt):
                event(log, logging.WARNING, "submits in doubt, not acknowledged", jobs=len(batch), reason=outcome)
                self._fail(batch, f"not known to be stored: {outcome}")
            elif isinstance(outcome, StoreError):
                self._refuse(batch, outcome)
            else:
                self._batch = None
                self._dispatcher.submitted(batch, outcome)
                self._stored(batch)
                self._flush()
        except Exception as error:
            self._fatal(error)

    def _refuse(self, batch: SubmitBatch, error: StoreError) -> None:
        event(log, logging.ERROR, "submits refused by the database", jobs=len(batch), reason=error)
        self._fail(batch, str(error))

    def _fail(self, batch: SubmitBatch, text: str) -> None:
        self._batch = None
        self._dispatcher.submit_failed(batch, text)
        self._flush()
