"""Transactional handlers when a standby was promoted and the old primary lives on: what they do counts at the new one only."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from postgear.errors import JobLost, StoreInDoubt
from postgear.functions import Handler
from postgear.worker.job import Job
from postgear.worker.runner import Worker
from tests.failover.replicas import Hosts
from tests.server.load import query, wait_for
from tests.worker.conftest import running
from tests.worker_direct.conftest import WAIT_SECONDS

ADD = "insert into effect (payload) values (%s)"
QUEUE = "select gman_do_background('f', %s::text)"
JOBS = "select count(*)::integer from postgear.job"


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    with Hosts.make() as made:
        query(made.old.dsn, "create table effect (payload text not null)")
        yield made


def wait_moved(caplog: pytest.LogCaptureFixture) -> None:
    """Wait until the worker's lease is at the new primary."""
    wait_for(lambda: "database was promoted" in caplog.text and "database connected" in caplog.text, "the worker has moved")


@pytest.mark.parametrize("is_async", [False, True], ids=["plain", "async"])
def test_handlers_follow_their_worker(hosts: Hosts, caplog: pytest.LogCaptureFixture, is_async: bool) -> None:
    caplog.set_level("INFO")
    worker = Worker(dsn=hosts.dsn, concurrency=3)

    def plain(payload: str, job: Job) -> None:
        assert isinstance(job.connection, psycopg.Connection)
        job.connection.execute(ADD, [payload])

    async def in_loop(payload: str, job: Job) -> None:
        assert isinstance(job.connection, psycopg.AsyncConnection)
        await job.connection.execute(ADD, [payload])

    worker.add(Handler(in_loop if is_async else plain, "f", transactional=True))
    with running(worker):
        for number in range(3):
            query(hosts.old.dsn, QUEUE, f"before {number}")
        wait_for(lambda: query(hosts.old.dsn, JOBS) == [(0,)], "they are done")
        hosts.promote()
        wait_moved(caplog)
        hosts.set_fence(is_on=False)  # it is named first and says again that it takes writes
        for number in range(5):
            query(hosts.new.dsn, QUEUE, f"after {number}")
        wait_for(lambda: query(hosts.new.dsn, JOBS) == [(0,)], "they are done")
    found = query(hosts.new.dsn, "select payload from effect order by payload")
    assert [payload for (payload,) in found] == [*(f"after {number}" for number in range(5)), "before 0", "before 1", "before 2"]


@pytest.mark.parametrize("is_row_there", [True, False], ids=["committed", "stale"])
def test_a_job_that_ends_at_the_old_primary_runs_again_at_the_new(
    hosts: Hosts, caplog: pytest.LogCaptureFixture, is_row_there: bool
) -> None:
    caplog.set_level("INFO")
    worker = Worker(dsn=hosts.dsn)
    errors: list[BaseException | None] = []
    has_begun, may_end = threading.Event(), threading.Event()
    worker.after(lambda _job, error: errors.append(error))

    @worker.function("f", transactional=True)
    def f(payload: str, job: Job) -> None:
        connection: psycopg.Connection[Any] = job.connection
        connection.execute(ADD, [payload])
        if not has_begun.is_set():
            has_begun.set()
            assert may_end.wait(WAIT_SECONDS)
            if not is_row_there:
                connection.execute("update postgear.job set lease = null")

    with running(worker):
        query(hosts.old.dsn, QUEUE, "x")
        assert has_begun.wait(WAIT_SECONDS)
        hosts.promote()
        wait_moved(caplog)
        may_end.set()
        wait_for(lambda: query(hosts.new.dsn, JOBS) == [(0,)], "it is done")
    assert query(hosts.new.dsn, "select payload from effect") == [("x",)]
    assert [type(error) for error in errors] == [StoreInDoubt if is_row_there else JobLost, type(None)]
