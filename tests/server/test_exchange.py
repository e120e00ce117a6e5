"""The loops of an exchange, on a real database, with other pauses than usual."""

from __future__ import annotations

import asyncio
import os

import pytest

from postgear import exchange
from postgear.dispatch.dispatcher import Dispatcher
from postgear.dispatch.messages import Settings
from postgear.exchange import Exchange
from postgear.store.postgres import PostgresStore


@pytest.mark.parametrize("grace_seconds", [0.0, 3600.0])
def test_a_new_server_lets_others_reconnect_before_it_takes_them_for_dead(
    dsn: str, monkeypatch: pytest.MonkeyPatch, grace_seconds: float
) -> None:
    monkeypatch.setattr(exchange, "RECONNECT_SECONDS", grace_seconds)
    monkeypatch.setattr(exchange, "REAP_SECONDS", 0.001)
    monkeypatch.setattr(exchange, "RENEW_SECONDS", 0.01)

    async def run() -> None:
        looked, renewed = asyncio.Event(), asyncio.Event()
        renewals = 0

        class Counting(PostgresStore):
            async def reap_leases(self) -> list[tuple[int, int]]:
                looked.set()
                return []

            async def renew_lease(self, *, sleeping: bool) -> bool:
                nonlocal renewals
                renewals += 1
                if renewals > 20:
                    renewed.set()
                return await super().renew_lease(sleeping=sleeping)

        made = Exchange(
            Dispatcher(Settings()),
            lambda on_notify, on_lost: Counting(dsn, "test", on_notify, on_lost),
            lambda: None,
            register=lambda store: store.register_server("test", "127.0.0.1:1", os.getpid(), "1", 15.0),
            lease_seconds=15.0,
        )
        await made.start()
        if grace_seconds:
            await renewed.wait()
            assert not looked.is_set()
        else:
            await looked.wait()
        await made.stop()

    asyncio.run(asyncio.wait_for(run(), 30))
