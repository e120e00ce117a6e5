"""Batches of submits between the Dispatcher and a store that answers as it is told: what no real database does on demand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest

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

    lease = 0

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


class CommittingStore(ToldStore):
    """Stores each submit; *batches*: the jobs of each."""

    def __init__(self) -> None:
        super().__init__([])
        self.batches: list[int] = []

    def start_submit(self, batch: SubmitBatch, done: Callable[[Sequence[int] | StoreError], None]) -> None:
        self.batches.append(len(batch))
        asyncio.get_running_loop().call_soon(done, [7 + number for number in range(len(batch))])


def make_submits(dispatcher: Dispatcher, told: ToldStore, acknowledged: asyncio.Event, *, require_sync: bool) -> Submits:
    store = cast(PostgresStore, told)
    loop = asyncio.get_running_loop()
    up, tasks = asyncio.Event(), set()
    up.set()
    dispatcher.set_queue_name("q")
    dispatcher.store_is_up = True

    async def settle() -> None: ...

    def fail(error: BaseException) -> None:
        raise error

    return Submits(
        dispatcher,
        store,
        up,
        FunctionIds(cast(Any, dispatcher), store),
        timeout_seconds=10,
        require_sync=require_sync,
        settle=settle,
        spawn=lambda coroutine: tasks.add(loop.create_task(coroutine)),
        stored=lambda _batch: acknowledged.set(),
        flush=lambda: None,
        fatal=fail,
    )


def test_a_batch_that_is_there_is_not_sent_again_when_the_standby_goes_between_two_looks() -> None:
    async def run() -> None:
        acknowledged = asyncio.Event()
        told = ToldStore([True, True, False])  # before it is sent, before it is settled, before it is acknowledged
        dispatcher = Dispatcher(Settings())
        submits = make_submits(dispatcher, told, acknowledged, require_sync=True)
        peer = Peer()
        dispatcher.connected(peer)
        dispatcher.receive(peer, [(PacketType.SUBMIT_JOB_BG, (b"f", b"", b"x"))])
        submits.kick()
        await asyncio.wait_for(acknowledged.wait(), 10)

        assert told.sent == 1
        assert peer.out == [encode_response(PacketType.JOB_CREATED, b"H:q:7")]

    asyncio.run(run())


@pytest.mark.parametrize("lease", [3, 4])
def test_what_was_born_claimed_is_held_only_under_the_lease_it_was_born_with(lease: int) -> None:
    async def run() -> None:
        acknowledged = asyncio.Event()
        told = ToldStore([])
        told.lease = lease
        dispatcher = Dispatcher(Settings())
        submits = make_submits(dispatcher, told, acknowledged, require_sync=False)
        client, worker = Peer(), Peer()
        for peer in (client, worker):
            dispatcher.connected(peer)
        dispatcher.receive(worker, [(PacketType.CAN_DO, (b"f",))])
        dispatcher.function(b"f").backlog[:] = [False, False, False]
        dispatcher.receive(worker, [(PacketType.PRE_SLEEP, ())])
        dispatcher.receive(client, [(PacketType.SUBMIT_JOB_BG, (b"f", b"", b"x"))])
        batch = dispatcher.submits[0]
        assert batch.claims == [True]
        batch.sent_as = (3, 1)
        submits.kick()
        await asyncio.wait_for(acknowledged.wait(), 10)

        assert client.out == [encode_response(PacketType.JOB_CREATED, b"H:q:7")]
        assert dispatcher.held_ids() == ([7] if lease == 3 else [])

    asyncio.run(run())


def test_clients_that_were_just_acknowledged_come_into_the_next_batch() -> None:
    async def run() -> None:
        told = CommittingStore()
        dispatcher = Dispatcher(Settings())
        acknowledged = asyncio.Event()
        submits = make_submits(dispatcher, told, acknowledged, require_sync=False)
        peers = [Peer() for _ in range(8)]

        def submit(some: Sequence[Peer]) -> None:
            for peer in some:
                peer.out.clear()
                dispatcher.receive(peer, [(PacketType.SUBMIT_JOB_BG, (b"f", b"", b"x"))])
            submits.kick()

        async def until_acknowledged() -> None:
            await asyncio.wait_for(acknowledged.wait(), 10)
            acknowledged.clear()

        for peer in peers:
            dispatcher.connected(peer)
        submit(peers[:1])  # its function is new: this one asks for it
        await until_acknowledged()
        submit(peers[:3])
        submit(peers[3:])  # these wait while the others are stored
        await until_acknowledged()
        submit(peers[:3])
        await until_acknowledged()
        assert told.batches == [1, 3, 8]

    asyncio.run(run())


def test_what_gathers_is_sent_when_nobody_else_comes() -> None:
    async def run() -> None:
        told = CommittingStore()
        dispatcher = Dispatcher(Settings())
        acknowledged = asyncio.Event()
        submits = make_submits(dispatcher, told, acknowledged, require_sync=False)
        first, second = Peer(), Peer()
        for peer in (first, second):
            dispatcher.connected(peer)
            dispatcher.receive(peer, [(PacketType.SUBMIT_JOB_BG, (b"f", b"", b"x"))])
            submits.kick()
        for peer in (first, second):
            await asyncio.wait_for(acknowledged.wait(), 10)
            acknowledged.clear()
            assert peer.out
        assert told.batches == [1, 1]

    asyncio.run(run())
