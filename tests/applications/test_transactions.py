"""The job exists if and only if the application's transaction commits, whatever the application's connection is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest

from postgear import NewJob, enqueue, enqueue_async, enqueue_many, enqueue_many_async
from postgear.errors import QueueFull
from tests.applications.kinds import Database, SyncKind, Undo

RunAsync = Callable[[Callable[[Any], Awaitable[None]]], None]


def test_job_appears_with_the_commit(application: SyncKind, database: Database) -> None:
    with application.transaction():
        application.execute("insert into article values (1, 'one')")
        handle = enqueue(application.connection, "index", {"id": 1})
        assert database.jobs() == []
    assert database.articles() == [1]
    assert database.jobs() == [(b"index", b'{"id":1}', None, 1, handle)]


def test_rolled_back_transaction_leaves_no_job(application: SyncKind, database: Database) -> None:
    with suppress(Undo), application.transaction():
        application.execute("insert into article values (1, 'one')")
        enqueue(application.connection, "index", {"id": 1})
        raise Undo
    assert (database.articles(), database.jobs()) == ([], [])


def test_savepoint_takes_its_jobs_back_and_no_others(application: SyncKind, database: Database) -> None:
    with application.transaction():
        enqueue(application.connection, "index", "before")
        with suppress(Undo), application.savepoint():
            enqueue(application.connection, "index", "inside")
            raise Undo
        with application.savepoint():
            enqueue(application.connection, "index", "kept")
    assert [job.workload for job in database.jobs()] == [b"before", b"kept"]


def test_many_jobs_keep_bytes_and_order(application: SyncKind, database: Database) -> None:
    every_byte = bytes(range(256))
    jobs = [
        NewJob("index", every_byte),
        NewJob(b"\xff\xfe{},\"'\\", "naïve ☃ %s :name \\", unique=b"\x01\xff", priority="high"),
        NewJob("index", [1, None, {"a": "☃"}], unique="17", priority="low"),
        ("index",),
    ]
    with application.transaction():
        handles = enqueue_many(application.connection, jobs)
    assert database.jobs() == [
        (b"index", every_byte, None, 1, handles[0]),
        (b"\xff\xfe{},\"'\\", "naïve ☃ %s :name \\".encode(), b"\x01\xff", 0, handles[1]),
        (b"index", '[1,null,{"a":"☃"}]'.encode(), b"17", 2, handles[2]),
        (b"index", b"", None, 1, handles[3]),
    ]


def test_full_queue_is_refused_whole_and_the_transaction_goes_on(application: SyncKind, database: Database) -> None:
    database.look.execute("insert into postgear.function (name, max_normal) values ('index', 2)")
    with application.transaction():
        enqueue(application.connection, "index", "first")
        with pytest.raises(QueueFull, match="the queue of function 'index' is full") as raised:
            enqueue_many(application.connection, [("other", "a"), ("index", "second"), ("index", "third")])
        application.execute("insert into article values (1, 'one')")
    assert raised.value.function == "index"
    assert database.articles() == [1]
    assert [job.workload for job in database.jobs()] == [b"first"]


def test_no_jobs_are_no_error(application: SyncKind, database: Database) -> None:
    with application.transaction():
        assert enqueue_many(application.connection, []) == []
    assert database.jobs() == []


def test_async_job_appears_with_the_commit(run_async: RunAsync, database: Database) -> None:
    async def story(application: Any) -> None:
        async with application.transaction():
            await application.execute("insert into article values (1, 'one')")
            handle = await enqueue_async(application.connection, "index", bytes(range(256)), unique="1", priority="low")
            assert database.jobs() == []
        assert database.articles() == [1]
        assert database.jobs() == [(b"index", bytes(range(256)), b"1", 2, handle)]

    run_async(story)


def test_async_rollback_and_savepoint_take_their_jobs_back(run_async: RunAsync, database: Database) -> None:
    async def story(application: Any) -> None:
        with suppress(Undo):
            async with application.transaction():
                await enqueue_async(application.connection, "index", "gone")
                raise Undo
        async with application.transaction():
            with suppress(Undo):
                async with application.savepoint():
                    await enqueue_async(application.connection, "index", "inside")
                    raise Undo
            handles = await enqueue_many_async(application.connection, [("index", "a"), ("index", "b", b"\xff")])
        assert database.jobs() == [(b"index", b"a", None, 1, handles[0]), (b"index", b"b", b"\xff", 1, handles[1])]

    run_async(story)


def test_async_full_queue_is_refused_and_the_transaction_goes_on(run_async: RunAsync, database: Database) -> None:
    database.look.execute("insert into postgear.function (name, max_normal) values ('index', 1)")

    async def story(application: Any) -> None:
        async with application.transaction():
            with pytest.raises(QueueFull):
                await enqueue_many_async(application.connection, [("index", "a"), ("index", "b")])
            await application.execute("insert into article values (1, 'one')")
        assert (database.articles(), database.jobs()) == ([1], [])

    run_async(story)
