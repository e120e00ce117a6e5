"""Direct workers that die, hang or lose the database: no job is lost, and what comes too late changes nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable

import pytest

from postgear.worker.job import Job
from postgear.worker.runner import Worker
from tests.worker.conftest import Running, running
from tests.worker_direct.conftest import WAIT_SECONDS, Database

Start = Callable[..., "subprocess.Popen[bytes]"]


def end_sessions(database: Database, purpose: str = "%") -> None:
    """Break a worker's connections to the database."""
    database.rows(
        "select pg_terminate_backend(pid, 10000) from pg_stat_activity where application_name like %s", f"postgear % {purpose}"
    )


def test_the_jobs_of_a_killed_worker_run_elsewhere(database: Database, start_worker: Start) -> None:
    victim = start_worker(2)
    database.queue("hang", "1")
    database.queue("hang", "2")
    database.wait_for("select count(*) from effect", expected=2)
    survivor = start_worker(2)
    database.wait_for("select count(*) from postgear.workers", expected=2)
    victim.kill()
    victim.wait(WAIT_SECONDS)
    database.wait_for("select count(*) from effect", expected=4)
    assert database.rows("select attempt, pid from postgear.job join postgear.server using (lease)") == [(2, survivor.pid)] * 2


def test_a_worker_that_starts_alone_takes_the_jobs_of_the_one_before(database: Database, start_worker: Start) -> None:
    victim = start_worker(1)
    database.queue("hang", "1")
    database.wait_for("select count(*) from effect", expected=1)
    victim.kill()
    victim.wait(WAIT_SECONDS)
    start_worker(1)
    database.wait_for("select count(*) from effect", expected=2)


def test_a_hung_worker_loses_its_lease_and_its_late_end_changes_nothing(database: Database, start_worker: Start) -> None:
    # A handler that writes its row waits at a gate, in the midst of its transaction.
    database.rows(
        "create function pass_gate() returns trigger language plpgsql as"
        " 'begin perform pg_advisory_xact_lock_shared(77); return new; end'"
    )
    database.rows("create trigger pass_gate before insert on effect for each row execute function pass_gate()")
    database.rows("select pg_advisory_lock(77)")
    hung = start_worker(1)
    database.queue("effect", "x")
    at_gate = "select count(*) from pg_locks where locktype = 'advisory' and objid = 77 and not granted"
    database.wait_for(at_gate, expected=1)
    database.rows("update postgear.server set lease_seconds = 2")
    hung.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, hung.pid, os.WSTOPPED | os.WNOWAIT)  # else it may go on to delete the job before it stops, uncommitted
    database.rows("select pg_advisory_unlock(77)")
    start_worker(1)
    database.wait_empty()
    assert database.rows("select payload from effect") == [("x",)]
    hung.send_signal(signal.SIGCONT)
    # It comes back under a lease of its own, and works on.
    database.wait_for("select count(*) from postgear.workers", expected=2)
    database.queue_many("effect", 20)
    database.wait_empty()
    assert database.value("select count(*) from effect where payload = 'x'") == 1
    assert database.value("select count(*) from effect") == 21


def test_a_database_that_lets_nobody_in_at_the_start_is_waited_for(
    database: Database, limited_role: str, caplog: pytest.LogCaptureFixture
) -> None:
    database.rows("alter role limited connection limit 0")
    worker = Worker(dsn=limited_role)

    @worker.function("f")
    async def f(payload: bytes) -> None: ...

    database.queue("f")
    run = Running(worker)
    while "database away, retrying" not in caplog.text:
        assert database.jobs() == 1
        assert run.error is None
    database.rows("alter role limited connection limit -1")
    database.wait_empty()
    worker.stop()
    run.wait()


def test_ends_of_jobs_are_stored_after_the_database_was_away(database: Database) -> None:
    worker = Worker(dsn=database.dsn, concurrency=2)
    go, started = threading.Event(), threading.Semaphore(0)
    runs: list[tuple[str, int | None]] = []

    @worker.function("f")
    def f(payload: str, job: Job) -> None:
        runs.append((payload, job.attempt))
        started.release()
        assert go.wait(WAIT_SECONDS)

    database.queue_many("f", 2)
    with running(worker):
        for _ in range(2):
            assert started.acquire(timeout=WAIT_SECONDS)
        end_sessions(database)
        go.set()
        database.wait_empty()
        database.queue("f", "3")
        database.wait_empty()
    assert sorted(runs) == [("1", 1), ("2", 1), ("3", 1)]


@pytest.mark.parametrize("purpose", ["claim", "finish", "lease", "ask"])
def test_a_lost_connection_loses_and_doubles_no_job(database: Database, purpose: str) -> None:
    worker = Worker(dsn=database.dsn, concurrency=8)
    seen: list[str] = []

    @worker.function("f")
    async def f(payload: str) -> None:
        seen.append(payload)

    jobs = 6000
    database.queue_many("f", jobs)
    with running(worker):
        for left in (5000, 3000, 1000):
            database.wait_for("select count(*) <= %s from postgear.job", left)
            end_sessions(database, purpose)
        database.wait_empty()
    assert sorted(map(int, seen)) == list(range(1, jobs + 1))
