"""What every lease does for all of them: it ends the leases of the dead, and queues the scheduled jobs that are due.

Nobody is chosen for it: each tries, and the database sees to it that what is there to do is done once. When a lease last came to
the end of all its duties is told with its renewal, for people to see.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from .logs import event
from .store.base import Store

log = logging.getLogger("postgear.duties")


class Duties:
    """The duties of one lease. *clock*: seconds that only grow."""

    def __init__(self, store: Store, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock
        self._reaped_at: float | None = None
        self._promoted_at: float | None = None

    async def reap(self) -> bool:
        """End the leases of the dead; tell whether there were any. Raises StoreError."""
        reaped = await self._store.reap_leases()
        self._reaped_at = self._clock()
        for lease, released in reaped:
            event(log, logging.WARNING, "dead server reaped", lease=lease, jobs_requeued=released)
        return bool(reaped)

    async def promote(self) -> float | None:
        """Queue the scheduled jobs that are due; returns seconds until the next, None: none is scheduled. Raises StoreError."""
        seconds = await self._store.promote_jobs()
        self._promoted_at = self._clock()
        return seconds

    @property
    def done_seconds_ago(self) -> float | None:
        """How long ago that one was done which was done least lately; None: not all have been done yet."""
        if self._reaped_at is None or self._promoted_at is None:
            return None
        return self._clock() - min(self._reaped_at, self._promoted_at)
