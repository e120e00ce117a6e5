"""Ask the database for the ids of functions: no job of a function is stored or claimed without."""

from __future__ import annotations

import asyncio

from .errors import StoreError
from .job_holder import JobHolder
from .store.postgres import PostgresStore


class FunctionIds:
    """Learns the ids that a holder asks for, in one call at a time."""

    def __init__(self, holder: JobHolder, store: PostgresStore) -> None:
        self._holder = holder
        self._store = store
        self.asking = asyncio.Lock()
        """Whoever drops a function holds it: one that is asked for meanwhile would be there again."""

    @property
    def are_wanted(self) -> bool:
        """Whether some are still to be learnt."""
        return bool(self._holder.unresolved) or self.asking.locked()

    async def learn(self) -> None:
        """Learn the ids of functions; returns when none is asked for, by another caller either. Raises StoreError."""
        async with self.asking:
            unresolved, self._holder.unresolved = self._holder.unresolved, []
            if not unresolved:
                return
            try:
                rows = await self._store.ensure_functions([function.name for function in unresolved])
            except StoreError:
                self._holder.unresolved = unresolved + self._holder.unresolved
                raise
            self._holder.resolved(rows)
