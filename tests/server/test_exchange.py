"""The loops of an exchange, on a real database, with other pauses than usual."""

from __future__ import annotations

import asyncio
import os

import pytest

from postgear import duties, exchange
from postgear.dispatch.dispatcher import Dispatcher
from postgear.dispatch.messages import Settings
from postgear.exchange import Exchange
from postgear.store.postgres import PostgresStore
from tests.server.load import query


@pytest.mark.parametrize("was_restarted", [False, True])
def test_after_a_restart_of_the_database_a_new_server_lets_others_reconnect_before_it_takes_them_for_dead(
    dsn: str, monkeypatch: pytest.MonkeyPatch, was_restarted: bool
) -> None:
    query(dsn, "select postgear.register_server('another', '127.0.0.1:2', 1, '1', 15)")
    if was_restarted:
        query(dsn, "update postgear.server set renewed_at = pg_postmaster_start_time() - interval '1 second'")
    monkeypatch.setattr(duties, "RECONNECT_SECONDS", 3600.0)
    monkeypatch.setattr(duties, "REAP_SECONDS", 0.001)
    monkeypatch.setattr(exchange, "RENEW_SECONDS", 0.01)

    async def run() -> None:
        looked, renewed = asyncio.Event(), asyncio.Event()
        renewals = 0

        class Counting(PostgresStore):
            async def reap_leases(self) -> list[tuple[int, int]]:
                looked.set()
                return []

            async def renew_lease(self, *, sleeping: bool, duties_seconds: float | None = None) -> bool:
                nonlocal renewals
                renewals += 1
                if renewals > 20:
                    renewed.set()
                return await super().renew_lease(sleeping=sleeping, duties_seconds=duties_seconds)

        made = Exchange(
            Dispatcher(Settings()),
            lambda on_notify, on_lost: Counting(dsn, "test", on_notify, on_lost),
            lambda: None,
            register=lambda store: store.register_server("test", "127.0.0.1:1", os.getpid(), "1", 15.0),
            lease_seconds=15.0,
        )
        await made.start()
        if was_restarted:
            await renewed.wait()
            assert not looked.is_set()
        else:
            await looked.wait()
        await made.stop()

    asyncio.run(asyncio.wait_for(run(), 30))
