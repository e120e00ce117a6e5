"""GearmanClient: what programs written for python-gearman do, with pygearman and with postgear's."""

from __future__ import annotations

import json
from types import ModuleType
from typing import Any

import pytest

from tests.server.bytes import Peer, until
from tests.server_process import ServerProcess

SECONDS = 10


def talk(worker: Any, job: Any) -> bytes:
    worker.send_job_data(job, b"part")
    worker.send_job_warning(job, b"careful")
    worker.send_job_status(job, 1, 2)
    return b"whole"


def fail(worker: Any, job: Any) -> bytes:
    raise ValueError("no")


def test_submit_job_returns_the_completed_request(gearman: ModuleType, client: Any, serve: Any, task: str) -> None:
    serve(**{task: lambda worker, job: job.data[::-1]})

    request = client.submit_job(task, b"abc\0def", unique="u-1", priority=gearman.PRIORITY_HIGH, poll_timeout=SECONDS)

    assert (request.state, request.result, request.complete, request.timed_out) == (
        gearman.JOB_COMPLETE,
        b"fed\0cba",
        True,
        False,
    )
    assert (request.job.task, request.job.unique, request.job.data) == (task, "u-1", b"abc\0def")
    assert isinstance(request.job.handle, bytes)
    assert request.exception is None


def test_text_goes_as_utf8_and_comes_back_as_bytes(client: Any, serve: Any, task: str) -> None:
    serve(**{task: lambda worker, job: job.data.decode().upper()})

    assert client.submit_job(task, "größe", poll_timeout=SECONDS).result == "GRÖSSE".encode()


def test_a_request_collects_data_warnings_and_status(gearman: ModuleType, client: Any, serve: Any, task: str) -> None:
    serve(**{task: talk})

    request = client.submit_job(task, b"", poll_timeout=SECONDS)

    assert (list(request.data_updates), list(request.warning_updates), request.result) == ([b"part"], [b"careful"], b"whole")
    status = dict(request.status)
    assert isinstance(status.pop("time_received"), float)
    assert status == {"handle": request.job.handle, "known": True, "running": True, "numerator": 1, "denominator": 2}


def test_a_callback_that_raises_fails_the_job(gearman: ModuleType, client: Any, serve: Any, task: str) -> None:
    serve(**{task: fail})

    request = client.submit_job(task, b"x", poll_timeout=SECONDS)

    assert (request.state, request.result, request.complete) == (gearman.JOB_FAILED, None, True)


def test_many_jobs_end_in_the_order_given(gearman: ModuleType, client: Any, serve: Any, task: str) -> None:
    serve(**{task: lambda worker, job: job.data[::-1]})
    jobs = [{"task": task, "data": f"{n:03}", "priority": priority} for n, priority in enumerate(PRIORITIES(gearman) * 20)]

    requests = client.submit_multiple_jobs(jobs, poll_timeout=SECONDS)

    assert [request.result for request in requests] == [f"{n:03}"[::-1].encode() for n in range(60)]


def PRIORITIES(gearman: ModuleType) -> list[Any]:
    return [gearman.PRIORITY_LOW, gearman.PRIORITY_NONE, gearman.PRIORITY_HIGH]


def test_a_background_job_is_complete_when_it_is_created(gearman: ModuleType, client: Any, admin: Any, task: str) -> None:
    request = client.submit_job(task, b"x", background=True, poll_timeout=SECONDS)

    assert (request.state, request.complete, request.result) == (gearman.JOB_CREATED, True, None)
    until(lambda: {"task": task, "queued": 1, "running": 0, "workers": 0} in admin.get_status(), True)


def test_jobs_without_a_unique_are_jobs_of_their_own(client: Any, admin: Any, task: str) -> None:
    client.submit_multiple_jobs([{"task": task, "data": "same"}] * 3, background=True, poll_timeout=SECONDS)

    until(lambda: [row["queued"] for row in admin.get_status() if row["task"] == task], [3])


def test_jobs_of_one_unique_are_one_job(client: Any, admin: Any, task: str) -> None:
    first, second = (client.submit_job(task, "x", unique="u", background=True, poll_timeout=SECONDS) for _ in range(2))

    assert first.job.handle == second.job.handle
    until(lambda: [row["queued"] for row in admin.get_status() if row["task"] == task], [1])


def test_a_wait_that_is_too_short_times_out_and_can_go_on(gearman: ModuleType, client: Any, serve: Any, task: str) -> None:
    request = client.submit_job(task, b"abc", poll_timeout=0.2)
    assert (request.state, request.timed_out, request.complete) == (gearman.JOB_CREATED, True, False)

    serve(**{task: lambda worker, job: job.data[::-1]})
    client.wait_until_jobs_completed([request], poll_timeout=SECONDS)

    assert (request.state, request.timed_out, request.result) == (gearman.JOB_COMPLETE, False, b"cba")


def test_jobs_are_submitted_first_and_waited_for_later(gearman: ModuleType, client: Any, serve: Any, task: str) -> None:
    first = client.submit_job(task, b"abc", wait_until_complete=False, poll_timeout=SECONDS)
    second = client.submit_job(task, b"xyz", wait_until_complete=False, poll_timeout=SECONDS)
    assert [request.state for request in (first, second)] == [gearman.JOB_CREATED] * 2

    serve(**{task: lambda worker, job: job.data[::-1]})
    done = client.wait_until_jobs_completed([second, first], poll_timeout=SECONDS)

    assert [request.result for request in done] == [b"zyx", b"cba"]


def test_status_of_jobs(gearman: ModuleType, client: Any, task: str) -> None:
    requests = client.submit_multiple_jobs(
        [{"task": task, "data": str(n)} for n in range(2)], background=True, poll_timeout=SECONDS
    )

    client.get_job_statuses(requests, poll_timeout=SECONDS)

    for request in requests:
        status = dict(request.status)
        assert isinstance(status.pop("time_received"), float)
        assert status == {"handle": request.job.handle, "known": True, "running": False, "numerator": 0, "denominator": 0}
        assert not request.timed_out


def test_status_of_a_job_of_another_client(gearman: ModuleType, client: Any, shared_server: ServerProcess, task: str) -> None:
    handle = client.submit_job(task, b"x", background=True, poll_timeout=SECONDS).job.handle
    other = gearman.GearmanClient([shared_server.address])
    other.establish_connection(other.connection_list[0])
    job_class = type(client).job_class
    request_class = type(client.submit_job(task, b"y", background=True, poll_timeout=SECONDS))
    request = request_class(job_class(other.connection_list[0], handle, task, None, None))
    request.state = gearman.JOB_CREATED

    assert other.get_job_status(request, poll_timeout=SECONDS).status["known"] is True
    other.shutdown()


def test_status_of_a_job_that_has_ended(client: Any, serve: Any, task: str) -> None:
    serve(**{task: lambda worker, job: b""})
    request = client.submit_job(task, b"x", poll_timeout=SECONDS)

    status = client.get_job_status(request, poll_timeout=SECONDS).status

    assert (status["known"], status["running"]) == (False, False)


def test_an_encoder_of_the_program_s_own(gearman: ModuleType, shared_server: ServerProcess, serve: Any, task: str) -> None:
    class JsonEncoder(gearman.DataEncoder):
        @classmethod
        def encode(cls, encodable_object: Any) -> bytes:
            return json.dumps(encodable_object).encode()

        @classmethod
        def decode(cls, decodable_string: bytes) -> Any:
            return json.loads(decodable_string)

    class JsonClient(gearman.GearmanClient):
        data_encoder = JsonEncoder

    class JsonWorker(gearman.GearmanWorker):
        data_encoder = JsonEncoder

    def run(worker: Any, job: Any) -> Any:
        worker.send_job_data(job, [job.data["n"]])
        return {"n": job.data["n"] + 1}

    serve(JsonWorker([shared_server.address]), **{task: run})
    client = JsonClient([shared_server.address])
    request = client.submit_job(task, {"n": 1}, poll_timeout=SECONDS)

    assert (request.result, list(request.data_updates)) == ({"n": 2}, [[1]])
    client.shutdown()


def test_what_is_neither_bytes_nor_text_is_refused(client: Any, task: str) -> None:
    with pytest.raises(TypeError, match="Expecting byte string"):
        client.submit_job(task, {"n": 1}, poll_timeout=SECONDS)


def test_the_next_server_is_tried_when_one_is_away(gearman: ModuleType, shared_server: ServerProcess, task: str) -> None:
    client = gearman.GearmanClient(["127.0.0.1:1", (shared_server.host, shared_server.port)])

    for _ in range(5):
        assert client.submit_job(task, b"x", background=True, poll_timeout=SECONDS).state == gearman.JOB_CREATED
    client.shutdown()


def test_no_server_can_be_reached(gearman: ModuleType, task: str) -> None:
    client = gearman.GearmanClient(["127.0.0.1:1"])

    with pytest.raises(errors(gearman).ServerUnavailable, match="Found no valid connections"):
        client.submit_job(task, b"x", max_retries=2, poll_timeout=SECONDS)


def test_a_server_that_dies_leaves_the_job_unknown(gearman: ModuleType, own_server: ServerProcess, task: str) -> None:
    client = gearman.GearmanClient([own_server.address])
    request = client.submit_job(task, b"x", wait_until_complete=False, poll_timeout=SECONDS)
    own_server.kill()

    with pytest.raises(errors(gearman).ServerUnavailable):
        client.wait_until_jobs_completed([request], poll_timeout=SECONDS)

    assert (request.state, request.complete) == (gearman.JOB_UNKNOWN, False)
    client.shutdown()


def errors(gearman: ModuleType) -> Any:
    return gearman.errors


def test_a_request_can_be_reset_and_submitted_again(gearman: ModuleType, client: Any, serve: Any, task: str) -> None:
    serve(**{task: lambda worker, job: job.data[::-1]})
    request = client.submit_job(task, b"abc", max_retries=1, poll_timeout=SECONDS)
    request.initialize_request()
    assert (request.state, request.result) == (gearman.JOB_UNKNOWN, None)

    client.submit_multiple_requests([request], poll_timeout=SECONDS)
    assert request.result == b"cba"
    request.initialize_request()
    with pytest.raises(errors(gearman).ExceededConnectionAttempts):
        client.submit_multiple_requests([request], poll_timeout=SECONDS)


def test_ssl_is_refused_by_name() -> None:
    from postgear.compat import gearman

    with pytest.raises(gearman.errors.GearmanError, match="Expected HOST"):
        gearman.GearmanClient([{"host": "a", "port": 1}])  # type: ignore[list-item]


def test_without_a_timeout_the_result_is_waited_for(
    shared_server: ServerProcess, serve: Any, task: str, gearman: ModuleType
) -> None:
    if gearman.__name__ == "gearman":
        pytest.skip("pygearman returns before the job has ended; python-gearman 2.0.2 waited")
    serve(**{task: lambda worker, job: job.data[::-1]})
    client = gearman.GearmanClient([shared_server.address])

    assert client.submit_job(task, b"abc").result == b"cba"
    client.shutdown()


def test_a_job_that_the_server_refuses_raises(shared_server: ServerProcess, admin: Any, task: str, gearman: ModuleType) -> None:
    if gearman.__name__ == "gearman":
        pytest.skip("pygearman waits for ever")
    client = gearman.GearmanClient([shared_server.address])
    with Peer(shared_server.host, shared_server.port) as worker:
        worker.can_do(task.encode())
        assert admin.send_maxqueue(task, 1) == "OK"
        client.submit_job(task, b"x", background=True)

        for background in (True, False):
            with pytest.raises(gearman.errors.ExceededConnectionAttempts, match="QUEUE_ERROR"):
                client.submit_job(task, b"x", background=background, max_retries=1)
    client.shutdown()
