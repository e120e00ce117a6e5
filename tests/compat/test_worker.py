"""GearmanWorker and GearmanAdminClient: what programs written for python-gearman do, with pygearman and with postgear's."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from tests.server.bytes import until
from tests.server_process import ServerProcess

SECONDS = 10


def test_a_job_as_its_callback_sees_it(gearman: ModuleType, client: Any, serve: Any, task: str) -> None:
    seen: list[Any] = []
    worker = serve(**{task: lambda worker, job: seen.append((worker, job)) or b""})

    request = client.submit_job(task, b"abc", unique="u-1", poll_timeout=SECONDS)

    ((given, job),) = seen
    assert given is worker
    assert (job.task, job.handle, job.unique, job.data) == (task.encode(), request.job.handle, b"u-1", b"abc")
    assert job.to_dict() == {"task": task.encode(), "job_handle": job.handle, "unique": b"u-1", "data": b"abc"}
    assert job.connection in worker.connection_list


def test_callbacks_run_in_the_thread_that_calls_work(
    gearman: ModuleType, shared_server: ServerProcess, client: Any, task: str
) -> None:
    threads: list[threading.Thread] = []

    class Worker(gearman.GearmanWorker):
        def after_job(self) -> bool:
            threads.append(threading.current_thread())
            return False

    request = client.submit_job(task, b"", wait_until_complete=False, poll_timeout=SECONDS)
    worker = Worker([shared_server.address])
    worker.register_task(task.encode(), lambda worker, job: threads.append(threading.current_thread()) or b"done")
    worker.work(poll_timeout=1)

    assert threads == [threading.current_thread()] * 2
    assert client.wait_until_jobs_completed([request], poll_timeout=SECONDS)[0].result == b"done"


def test_a_worker_that_ends_after_a_job_leaves_the_next_one_alone(
    gearman: ModuleType, shared_server: ServerProcess, client: Any, admin: Any, task: str
) -> None:
    seen: list[bytes] = []

    class Worker(gearman.GearmanWorker):
        def after_poll(self, any_activity: bool) -> bool:
            return len(seen) < 2

    client.submit_multiple_jobs([{"task": task, "data": str(n)} for n in range(3)], background=True, poll_timeout=SECONDS)
    worker = Worker([shared_server.address])
    worker.register_task(task.encode(), lambda worker, job: seen.append(job.data) or b"")
    worker.work(poll_timeout=1)

    assert seen == [b"0", b"1"]
    until(lambda: [row for row in admin.get_status() if row["task"] == task], [row_of(task, 1, 0)])


def row_of(task: str, queued: int, workers: int) -> dict[str, Any]:
    return {"task": task, "queued": queued, "running": 0, "workers": workers}


def test_after_poll_ends_work_without_a_job(gearman: ModuleType, shared_server: ServerProcess, task: str) -> None:
    class Worker(gearman.GearmanWorker):
        polls = 0

        def after_poll(self, any_activity: bool) -> bool:
            self.polls += 1
            return self.polls < 4

    worker = Worker([shared_server.address])
    worker.register_task(task.encode(), lambda worker, job: b"")
    worker.work(poll_timeout=0.01)

    assert worker.polls == 4


def test_hooks_of_a_job_are_called_in_order(
    gearman: ModuleType, shared_server: ServerProcess, client: Any, serve: Any, task: str
) -> None:
    called: list[Any] = []

    class Worker(gearman.GearmanWorker):
        def on_job_execute(self, current_job: Any) -> Any:
            called.append("execute")
            return super().on_job_execute(current_job)

        def on_job_exception(self, current_job: Any, exc_info: Any) -> Any:
            called.append(("exception", exc_info[0], str(exc_info[1])))
            return super().on_job_exception(current_job, exc_info)

        def on_job_complete(self, current_job: Any, job_result: Any) -> Any:
            called.append(("complete", job_result))
            return super().on_job_complete(current_job, job_result)

    def run(worker: Any, job: Any) -> bytes:
        if job.data == b"bad":
            raise ValueError("bad data")
        return b"good"

    serve(Worker([shared_server.address]), **{task: run})
    good = client.submit_job(task, b"x", poll_timeout=SECONDS)
    bad = client.submit_job(task, b"bad", poll_timeout=SECONDS)

    assert (good.result, bad.state) == (b"good", gearman.JOB_FAILED)
    assert called == ["execute", ("complete", b"good"), "execute", ("exception", ValueError, "bad data")]


def test_a_program_ends_jobs_by_itself(
    gearman: ModuleType, shared_server: ServerProcess, client: Any, serve: Any, task: str
) -> None:
    class Worker(gearman.GearmanWorker):
        def on_job_execute(self, current_job: Any) -> bool:
            {
                b"complete": lambda: self.send_job_complete(current_job, b"by hand"),
                b"fail": lambda: self.send_job_failure(current_job),
            }[current_job.data]()
            return True

    serve(Worker([shared_server.address]), **{task: lambda worker, job: b""})

    assert client.submit_job(task, b"complete", poll_timeout=SECONDS).result == b"by hand"
    assert client.submit_job(task, b"fail", poll_timeout=SECONDS).state == gearman.JOB_FAILED


def test_what_a_handler_reports_reaches_the_client_while_it_runs(gearman: ModuleType, client: Any, serve: Any, task: str) -> None:
    go_on = threading.Event()

    def run(worker: Any, job: Any) -> bytes:
        worker.send_job_status(job, 3, 7)
        go_on.wait(SECONDS)
        return b""

    serve(**{task: run})
    request = client.submit_job(task, b"", wait_until_complete=False, poll_timeout=SECONDS)

    def numerator() -> Any:
        return client.get_job_status(request, poll_timeout=SECONDS).status["numerator"]

    until(numerator, 3)
    go_on.set()
    assert client.wait_until_jobs_completed([request], poll_timeout=SECONDS)[0].state == gearman.JOB_COMPLETE


def test_tasks_are_registered_and_unregistered_while_it_works(
    gearman: ModuleType, client: Any, admin: Any, serve: Any, task: str
) -> None:
    if gearman.__name__ == "gearman":
        pytest.skip("pygearman resets all abilities, which gives the job that runs to another worker")
    other = f"{task}-other"

    def learn(worker: Any, job: Any) -> bytes:
        worker.register_task(other.encode(), lambda worker, job: b"learnt")
        worker.unregister_task(task.encode())
        return b""

    serve(**{task: learn})
    client.submit_job(task, b"", poll_timeout=SECONDS)

    assert client.submit_job(other, b"", poll_timeout=SECONDS).result == b"learnt"
    until(lambda: [row["workers"] for row in admin.get_status() if row["task"] == task], [0])


def test_servers_show_the_client_id(gearman: ModuleType, shared_server: ServerProcess, admin: Any, serve: Any, task: str) -> None:
    worker = gearman.GearmanWorker([shared_server.address])
    worker.set_client_id(f"id-{task}")
    serve(worker, **{task: lambda worker, job: b""})

    assert [(row["client_id"], row["tasks"]) for row in admin.get_workers() if task in row["tasks"]] == [(f"id-{task}", (task,))]


def test_work_raises_when_no_server_can_be_reached(gearman: ModuleType, task: str) -> None:
    worker = gearman.GearmanWorker(["127.0.0.1:1"])
    worker.register_task(task.encode(), lambda worker, job: b"")

    with pytest.raises(gearman.errors.ServerUnavailable, match="Found no valid connections"):
        worker.work(poll_timeout=1)


def test_an_interrupted_job_goes_to_the_next_worker(
    gearman: ModuleType, shared_server: ServerProcess, client: Any, serve: Any, task: str
) -> None:
    def interrupt(worker: Any, job: Any) -> bytes:
        raise KeyboardInterrupt

    request = client.submit_job(task, b"abc", wait_until_complete=False, poll_timeout=SECONDS)
    worker = gearman.GearmanWorker([shared_server.address])
    worker.register_task(task.encode(), interrupt)
    with pytest.raises(KeyboardInterrupt):
        worker.work(poll_timeout=1)
    worker.shutdown()

    serve(**{task: lambda worker, job: b"by another"})
    assert client.wait_until_jobs_completed([request], poll_timeout=SECONDS)[0].result == b"by another"


def test_admin_commands(gearman: ModuleType, admin: Any, client: Any, task: str) -> None:
    assert admin.get_version().startswith("OK ")
    assert 0 <= admin.ping_server() < SECONDS
    assert int(admin.get_pid().split()[-1]) > 1
    request = client.submit_job(task, b"x", unique=f"u-{task}", background=True, poll_timeout=SECONDS)
    until(lambda: row_of(task, 1, 0) in admin.get_status(), True)
    handle = request.job.handle.decode()
    until(
        lambda: [set(job) for job in admin.get_jobs() if job["handle"] == handle], [{"handle", "queued", "canceled", "enabled"}]
    )
    assert admin.cancel_job(handle).strip() == "OK"
    assert client.get_job_status(request, poll_timeout=SECONDS).status["known"] is False


def test_an_admin_client_is_for_one_server(gearman: ModuleType) -> None:
    with pytest.raises(gearman.errors.GearmanError, match="Only pass a single host"):
        gearman.GearmanAdminClient(["127.0.0.1:1", "127.0.0.1:2"])


def test_an_admin_client_s_server_is_away(gearman: ModuleType) -> None:
    with pytest.raises(gearman.errors.ServerUnavailable, match="Found no valid connections"):
        gearman.GearmanAdminClient(["127.0.0.1:1"]).get_status()


def test_shutdown_ends_the_server(gearman: ModuleType, own_server: ServerProcess) -> None:
    admin = gearman.GearmanAdminClient([own_server.address])

    assert admin.send_shutdown() is None
    assert own_server.process.wait(SECONDS) == 0
    admin.shutdown()


def test_an_exception_s_text_reaches_a_client_that_can_be_told(
    gearman: ModuleType, shared_server: ServerProcess, client: Any, serve: Any, task: str
) -> None:
    def run(worker: Any, job: Any) -> bytes:
        worker.send_job_exception(job, b"oops")
        return b"too late"

    serve(**{task: run})
    request = client.submit_job(task, b"", poll_timeout=SECONDS)

    assert request.state == gearman.JOB_FAILED
    # pygearman never asks servers for it.
    assert request.exception == (None if gearman.__name__ == "gearman" else b"oops")


def test_a_job_neither_completed_nor_failed_is_failed(shared_server: ServerProcess, task: str) -> None:
    from postgear.compat import gearman

    class Worker(gearman.GearmanWorker):
        def on_job_execute(self, current_job: Any) -> bool:
            return True

        def after_job(self) -> bool:
            return False

    client = gearman.GearmanClient([shared_server.address])
    request = client.submit_job(task, b"", wait_until_complete=False)
    worker = Worker([shared_server.address])
    worker.register_task(task, lambda worker, job: b"")
    worker.work()

    assert client.wait_until_jobs_completed([request], poll_timeout=SECONDS)[0].state == gearman.JOB_FAILED
    with pytest.raises(gearman.errors.InvalidWorkerState, match="does not run here"):
        worker.send_job_complete(request.job, b"late")
    client.shutdown()


def test_a_server_that_comes_back_is_worked_for_again(own_server: ServerProcess, work: Callable[[Any], Any], task: str) -> None:
    from postgear.compat import gearman

    worker = gearman.GearmanWorker([own_server.address])
    worker.register_task(task, lambda worker, job: job.data[::-1])
    work(worker)
    client = gearman.GearmanClient([own_server.address])
    assert client.submit_job(task, b"abc", poll_timeout=SECONDS).result == b"cba"
    own_server.kill()
    again = ServerProcess("--listen", own_server.address, dsn=own_server.dsn, log_path=own_server._log_path.with_suffix(".again"))
    try:
        assert client.submit_job(task, b"xyz", poll_timeout=2 * SECONDS).result == b"zyx"
    finally:
        client.shutdown()
        again.kill()
