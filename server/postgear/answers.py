"""Answer what connections ask and the database knows: status, admin commands, foreground submits that may join a durable job."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from .dispatch.dispatcher import Dispatcher
from .dispatch.messages import Request, RequestKind
from .errors import StoreError
from .logs import event
from .store.postgres import PostgresStore

log = logging.getLogger("postgear.exchange")


class Answers:
    """One request at a time each. *settle*: wait until the finishes so far are stored. *resolve*: learn the ids of functions."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        store: PostgresStore,
        changed: Callable[[], None],
        *,
        serve_admin: Callable[[Request], Awaitable[None]],
        settle: Callable[[], Awaitable[None]],
        resolve: Callable[[], Awaitable[None]],
    ) -> None:
        self._dispatcher = dispatcher
        self._store = store
        self._changed = changed
        self._serve_admin = serve_admin
        self._settle = settle
        self._resolve = resolve

    async def serve(self, request: Request) -> None:
        """Answer a connection that waits. A database that is away gets an error sent, not silence."""
        try:
            await self._answer(request)
        except Exception as error:  # a bug of ours must not end the server, nor leave the connection waiting
            event(log, logging.ERROR, "request failed", kind=request.kind.value, exception=error)
            self._dispatcher.send_store_error(request.peer, "internal error, see the server's log")
        self._dispatcher.answered(request.peer)
        self._changed()

    async def _answer(self, request: Request) -> None:
        dispatcher = self._dispatcher
        if request.kind is RequestKind.ADMIN:
            await self._serve_admin(request)
        elif request.kind is RequestKind.JOIN:
            await self._join(request)
        else:
            try:
                await self._settle()
                if request.kind is RequestKind.STATUS:
                    handle = request.arguments[0]
                    status = await self._store.job_status(request.number, None)
                    dispatcher.send_status(request.peer, handle, status)
                else:
                    unique = request.arguments[0]
                    status = await self._store.job_status(None, unique)
                    dispatcher.send_status_unique(request.peer, unique, status, 0)
            except StoreError as error:
                dispatcher.send_store_error(request.peer, str(error))

    async def _join(self, request: Request) -> None:
        assert request.function is not None
        found = None
        is_full = False
        try:
            await self._settle()
            if not request.function.id:
                await self._resolve()
            if key := request.arguments[1]:
                found = await self._store.claim_unique(request.function.id, key)
            if found is None and (room := self._dispatcher.room_for(request)) is not None:
                is_full = room <= 0 or await self._store.is_full(request.function.id, room)
        except StoreError as error:
            # Foreground jobs need no database: this one runs by itself, which is what would happen if the durable job
            # were at another server.
            event(log, logging.INFO, "foreground job not joined", reason=error)
        self._dispatcher.joined(request, found, is_full=is_full)
