"""What every lease does for all of them: end the leases of the dead, queue the scheduled jobs that are due, expire results.

Nobody is chosen for it: each tries, and the database sees to it that what is there to do is done once. When a lease last had
done the first two, which jobs wait for, is told with its renewal, for people to see.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Final

from .errors import StoreError
from .logs import event
from .store.base import Store

log = logging.getLogger("postgear.duties")

REAP_SECONDS: Final = 0.5
EXPIRE_SECONDS: Final = 10.0
RECONNECT_SECONDS: Final = 3.0
"""After the database was away for all, the first server to be back, or a new one after a restart, gives the others
this long before it takes them for dead."""


class Duties:
    """The duties of one lease. *up*: is set while the database answers. *released*: is told that jobs of the dead are queued."""

    def __init__(self, store: Store, up: asyncio.Event, released: Callable[[], None]) -> None:
        self._store = store
        self._up = up
        self._released = released
        self._loop = asyncio.get_running_loop()
        self._reap_at = 0.0
        self._reaped_at: float | None = None
        self._promoted_at: float | None = None

    def await_others(self) -> None:
        """Take nobody for dead until the others have had the time to come back."""
        self._reap_at = self._loop.time() + RECONNECT_SECONDS

    async def reap(self) -> None:
        """End the leases of the dead, again and again."""
        while True:
            await asyncio.sleep(REAP_SECONDS * random.uniform(0.8, 1.0))
            if not self._up.is_set() or self._loop.time() < self._reap_at:
                continue
            try:
                reaped = await self._store.reap_leases()
            except StoreError as error:
                if self._up.is_set():
                    event(log, logging.WARNING, "leases not reaped", reason=error)
                continue
            self._reaped_at = self._loop.time()
            for lease, jobs in reaped:
                event(log, logging.WARNING, "dead server reaped", lease=lease, jobs_requeued=jobs)
            if reaped:
                self._released()

    async def promote(self) -> float | None:
        """Queue the scheduled jobs that are due; returns seconds until the next, None: none is scheduled. Raises StoreError."""
        seconds = await self._store.promote_jobs()
        self._promoted_at = self._loop.time()
        return seconds

    async def expire(self) -> None:
        """Delete the results whose time is over, again and again."""
        while True:
            await asyncio.sleep(EXPIRE_SECONDS * random.uniform(0.8, 1.0))
            try:
                while self._up.is_set() and await self._store.expire_results():
                    pass
            except StoreError as error:
                if self._up.is_set():
                    event(log, logging.WARNING, "results not expired", reason=error)

    @property
    def done_seconds_ago(self) -> float | None:
        """How long ago the dead were looked for and what is due was queued, whichever is longer; None: not yet both."""
        if self._reaped_at is None or self._promoted_at is None:
            return None
        return self._loop.time() - min(self._reaped_at, self._promoted_at)
