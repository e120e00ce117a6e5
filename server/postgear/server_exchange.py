"""The exchange of a server: besides the loops there are submits (``submits``) and what connections ask (``answers``)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from .answers import Answers
from .dispatch.dispatcher import Dispatcher
from .dispatch.messages import Request
from .exchange import Exchange
from .job import SubmitBatch
from .store.postgres import PostgresStore
from .submits import Submits


class ServerExchange(Exchange):
    """``flush`` sends what is in the Dispatcher's ``out`` at once, where somebody waits for it; else see ``Exchange``."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        make_store: Callable[[Callable[[str], None], Callable[[str], None]], PostgresStore],
        changed: Callable[[], None],
        flush: Callable[[], None],
        serve_admin: Callable[[Request], Awaitable[None]],
        *,
        register: Callable[[PostgresStore], Awaitable[None]],
        submit_timeout_seconds: float,
        require_sync: bool,
        lease_seconds: float,
    ) -> None:
        super().__init__(dispatcher, make_store, changed, register=register, lease_seconds=lease_seconds)
        self._dispatcher = dispatcher
        self._submits = Submits(
            dispatcher,
            self.store,
            self._up,
            self.function_ids,
            timeout_seconds=submit_timeout_seconds,
            require_sync=require_sync,
            settle=self.settle,
            spawn=self._spawn,
            stored=self._stored,
            flush=flush,
            fatal=self._fail,
        )
        self._answers = Answers(
            dispatcher, self.store, changed, serve_admin=serve_admin, settle=self.settle, resolve=self.function_ids.learn
        )

    def kick(self) -> None:
        """See ``Exchange``."""
        self._submits.kick()
        super().kick()
        if self._dispatcher.requests:
            requests, self._dispatcher.requests = self._dispatcher.requests, []
            for request in requests:
                self._spawn(self._answers.serve(request))

    @property
    def submit_counts(self) -> dict[str, int]:
        """Background submits since the start, by what became of them."""
        return self._submits.counts

    @property
    def is_settled(self) -> bool:
        """Whether no submit, finish, release or claim is waiting or under way."""
        return self._submits.is_idle and super().is_settled

    def _stored(self, batch: SubmitBatch) -> None:
        if batch.run_ats:
            self._look_soon()

    async def _settle_submits(self, *, lease_lives: bool) -> None:
        await self._submits.settle(lease_lives=lease_lives)

    def _on_renewed(self) -> None:
        self._dispatcher.ask_for_uniques()
