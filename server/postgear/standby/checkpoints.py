"""See to it that the primary's checkpointer has read its settings: commits wait for a standby once it has told them so.

It reads them between two checkpoints, not while it writes one, which on a slow disk takes minutes. All the while the sessions
and the views of the primary say that commits wait, and they do not. Source: PG, SyncRepUpdateSyncStandbysDefined.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

import psycopg

from postgear.connecting import first_line
from postgear.logs import event
from postgear.standby.paths import POLL_SECONDS, Question

log = logging.getLogger("postgear.standby")

RETRY_SECONDS: Final = 10.0
_ADVICE: Final = "without it nobody knows whether commits wait; the account of --primary must be superuser or in pg_checkpoint"


class Checkpoints:
    """A session on the primary for one checkpoint after another, each when settings are awaited; watching goes on meanwhile.

    awaited: gives the ``settings_loaded`` that are to be read, or an empty string. in_force: is told when they have been.
    """

    def __init__(self, dsn: str, name: str, awaited: Callable[[], str], in_force: Callable[[str], None]) -> None:
        self._question = Question(dsn, "checkpoint", {}, f"{name} checkpoint", answer_seconds=None)
        self._awaited = awaited
        self._in_force = in_force
        self._is_stopped = False

    async def run(self) -> None:
        """Go on until ``stop``."""
        while not self._is_stopped:
            pause = POLL_SECONDS
            if settings_loaded := self._awaited():
                event(log, logging.INFO, "waiting for a checkpoint of the primary, after which its commits wait")
                try:
                    await self._force()
                except (psycopg.Error, OSError) as error:
                    reason = first_line(str(error)) or type(error).__name__
                    if not self._is_stopped:
                        event(log, logging.ERROR, "no checkpoint of the primary", reason=reason, advice=_ADVICE)
                    pause = RETRY_SECONDS
                else:
                    self._in_force(settings_loaded)
            await asyncio.sleep(pause)

    async def _force(self) -> None:
        # The session is new, so the postmaster, which made it, has finished its reload and the checkpointer has its signal. One
        # checkpoint may begin between that signal and its being looked at; before the second it has been looked at.
        for _ in range(2):
            await self._question.ask()
        await self._question.close()

    def stop(self) -> None:
        """Let ``run`` end; it must not be cancelled while it asks, for that would wait for the other side."""
        self._is_stopped = True
        self._question.cut()

    async def close(self) -> None:
        """End the session."""
        await self._question.close()
