"""Do notifications arrive? A lease sends one to itself, and sees whether its LISTEN hears it.

LISTEN is on the session that renews the lease, so it is as alive as that. But what lies between, a pooler or a proxy, may pass on
answers and swallow notifications. Nothing is lost then (G9: the poll finds what NOTIFY would have told), only late, and nobody
would know.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Final

from .errors import StoreError
from .logs import event
from .store.postgres import PostgresStore
from .store.session import StoreLocked

log = logging.getLogger("postgear.listening")

WORD: Final = "probe"
"""The first word of the payload; the others are the lease and a number."""
HEARD_SECONDS: Final = 3.0
"""How long a notification may take after the commit that sends it."""
PROBE_SECONDS: Final = 60.0
"""How often one is sent while the lease relies on them: a commit that notifies takes a lock that all such commits wait for."""
ADVICE: Final = "connect to PostgreSQL itself, not through a pooler in transaction mode: it passes on no notifications"


class Listening:
    """Whether a lease hears notifications.

    *up*: is set while the database answers. *sleeps*: tells whether the lease relies on notifications.
    """

    def __init__(self, store: PostgresStore, up: asyncio.Event, sleeps: Callable[[], bool]) -> None:
        self._store = store
        self._up = up
        self._sleeps = sleeps
        self._number = 0
        self._awaited = ""
        self._is_heard = False
        self._is_lost = asyncio.Event()
        self._told = asyncio.Event()  # of one or the other
        self.hears: bool | None = None
        """How the last try ended; None: there was none."""

    def heard(self, payload: str) -> None:
        """Learn of a notification whose first word is WORD; those of other leases are nothing to this one."""
        if payload == self._awaited:
            self._is_heard = True
            self._told.set()

    def lost(self) -> None:
        """Learn that the connection is lost: on the next one it is tried anew."""
        self._is_lost.set()
        self._told.set()

    async def run(self) -> None:
        """Try after each connect, then once in PROBE_SECONDS while the lease sleeps; tell the log of what changes."""
        while True:
            await self._up.wait()
            if not self._up.is_set():
                continue  # and lost again, before this had its turn
            self._is_lost.clear()
            try:
                hears = await self._try() or await self._listen_and_try()
            except StoreLocked:
                event(log, logging.INFO, "notifications not tried", reason="another commit that notifies takes too long")
            except StoreError as error:
                if self._up.is_set():
                    event(log, logging.WARNING, "notifications not tried", reason=error)
            else:
                if hears or not self._is_lost.is_set():
                    self._tell(hears)
                    self.hears = hears
            await self._pause()

    async def _try(self) -> bool:
        self._number += 1
        self._awaited = f"{WORD} {self._store.lease} {self._number}"
        self._is_heard = False
        self._told.clear()
        await self._store.notify(self._awaited)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._told.wait(), HEARD_SECONDS)
        return self._is_heard

    async def _listen_and_try(self) -> bool:
        await self._store.listen()
        return await self._try()

    def _tell(self, hears: bool) -> None:
        if not hears and self.hears is not False:
            effect = "jobs queued by SQL start up to a second late"
            event(log, logging.WARNING, "notifications do not arrive", effect=effect, advice=ADVICE)
        elif hears and self.hears is False:
            event(log, logging.INFO, "notifications arrive again")

    async def _pause(self) -> None:
        while True:
            try:
                await asyncio.wait_for(self._is_lost.wait(), PROBE_SECONDS)
            except TimeoutError:
                if not self._sleeps():
                    continue
            return
