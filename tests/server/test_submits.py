"""Batches of submits between the Dispatcher and a store that answers as it is told: what no real database does on demand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, cast

from postgear.dispatch.dispatcher import Dispatcher
from postgear.dispatch.messages import Settings
from postgear.dispatch.peer import Peer
from postgear.errors import StoreError, StoreInDoubt
from postgear.function_ids import FunctionIds
from postgear.job import FunctionRow, SubmitBatch
from postgear.store.postgres import PostgresStore
from postgear.submits import Submits
from postgear.wire.packet import PacketType, encode_response


class ToldStore:
    """Loses the answer to each submit; its batch is there. *standby*: what is seen of the standby, look by look, then True."""

    def __init__(self, standby: Sequence[bool]) -> None:
        self.sent = 0
        self._standby = list(standby)

    def start_submit(self, _batch: SubmitBatch, done: Callable[[Sequence[int] | StoreError], None]) -> None:
        self.sent += 1
        asyncio.get_running_loop().call_soon(done, StoreInDoubt("the answer was lost"))

    async def settle_batch(self, _batch: SubmitBatch) -> list[int]:
        return [7]

    async def has_sync_standby(self) -> bool:
        return self._standby.pop(0) if self._standby else True

    async def ensure_functions(self, names: Sequence[bytes]) -> list[FunctionRow]:
        return [FunctionRow(name, 1, (None, None, None), False) for name in names]


def test_a_batch_that_is_there_is_not_sent_again_when_the_standby_goes_between_two_looks() -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        up, acknowledged, tasks = asyncio.Event(), asyncio.Event(), set()
        up.set()
        told = ToldStore([True, True, False])  # before it is sent, before it is settled, before it is acknowledged
        store = cast(PostgresStore, told)
        dispatcher = Dispatcher(Settings())
        dispatcher.set_queue_name("q")
        dispatcher.store_is_up = True

        async def settle() -> None: ...

        def fail(error: BaseException) -> None:
            raise error

        submits = Submits(
            dispatcher,
            store,
            up,
            FunctionIds(cast(Any, dispatcher), store),
            timeout_seconds=10,
            require_sync=True,
            settle=settle,
            spawn=lambda coroutine: tasks.add(loop.create_task(coroutine)),
            stored=lambda _batch: acknowledged.set(),
            flush=lambda: None,
            fatal=fail,
        )
        peer = Peer()
        dispatcher.connected(peer)
        dispatcher.receive(peer, [(PacketType.SUBMIT_JOB_BG, (b"f", b"", b"x"))])
        submits.kick()
        await asyncio.wait_for(acknowledged.wait(), 10)

        assert told.sent == 1
        assert peer.out == [encode_response(PacketType.JOB_CREATED, b"H:q:7")]

    asyncio.run(run())
