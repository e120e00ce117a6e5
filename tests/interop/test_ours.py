"""postgear's own client with the stock workers of each language, and its worker with their clients."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from postgear import Client, Job, TaskSet, Worker
from postgear.errors import JobFailed
from tests.database import database
from tests.interop.conftest import Programs
from tests.interop.test_clients import TALK
from tests.interop.test_workers import THROW
from tests.server import gearmand
from tests.server_process import ServerProcess
from tests.worker.conftest import running

EVERY = pytest.mark.parametrize("language", ["c", "pl", "php", "py", "js"], indirect=True)
BYTES = bytes(range(256))
SECONDS = 20


@pytest.fixture(scope="module")
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One running server for all of these; each test leaves no job and no worker."""
    folder = tmp_path_factory.mktemp("server")
    if gearmand.is_wanted():
        process: Any = gearmand.Gearmand(folder)
        yield process
        process.kill()
        return
    dsn, template = request.getfixturevalue("postgres_dsn"), request.getfixturevalue("template")
    with database(dsn, "interop_ours", template) as own:
        process = ServerProcess(dsn=own, log_path=folder / "postgear.log")
        yield process
        process.kill()


@pytest.fixture
def client(server: Any) -> Iterator[Client]:
    """Our client."""
    with Client(server.address) as client:
        yield client


@pytest.fixture
def worker(server: Any) -> Iterator[Worker]:
    """Our worker, at work: reverse, talk, fail, throw."""
    worker = Worker(server.address, concurrency=2)

    @worker.function("reverse")
    def reverse(payload: bytes) -> bytes:
        return payload[::-1]

    @worker.function("talk")
    async def talk(payload: bytes, job: Job) -> str:
        job.data("part")
        job.warning("careful")
        job.status(1, 2)
        return "whole"

    @worker.function("fail")
    def fail(payload: bytes, job: Job) -> None:
        job.exception("")

    @worker.function("throw")
    def throw(payload: bytes, job: Job) -> None:
        job.exception("oops")

    with running(worker):
        yield worker


@EVERY
@pytest.mark.parametrize("workload", [BYTES, BYTES * 12 * 1024], ids=["256 bytes", "3 MB"])
def test_our_client_gets_every_byte_from_a_worker(language: str, programs: Programs, client: Client, workload: bytes) -> None:
    programs.worker(f"worker.{language}")

    assert client.do("reverse", workload, timeout=SECONDS) == workload[::-1]


@EVERY
def test_our_client_maps_over_inputs(language: str, programs: Programs, client: Client) -> None:
    for _ in range(2):
        programs.start(programs.command(f"worker.{language}"))
    programs.wait_for_workers(b"reverse", 2)
    inputs = [b"input %d" % number for number in range(200)]

    assert list(client.map("reverse", inputs, in_flight=20, timeout=SECONDS)) == [each[::-1] for each in inputs]


@EVERY
def test_our_client_hears_what_a_worker_reports(language: str, programs: Programs, client: Client) -> None:
    programs.worker(f"worker.{language}")
    heard: list[Any] = []
    with TaskSet(client) as tasks:
        task = tasks.add(
            "talk",
            "x",
            on_data=lambda _, data: heard.append(data),
            on_warning=lambda _, text: heard.append(text),
            on_status=lambda _, *numbers: heard.append(numbers),
        )
        failing = tasks.add("fail", "x", on_fail=lambda task: heard.append("fail"))
        assert tasks.wait(SECONDS)

    heard.remove("fail")
    assert heard == ([b"part"] if language == "js" else [b"part", b"careful", (1, 2)])
    assert task.result == b"whole"
    assert isinstance(failing.error, JobFailed)


@pytest.mark.parametrize("language", sorted(THROW), indirect=True)
def test_our_client_learns_why_a_job_failed(language: str, programs: Programs, client: Client) -> None:
    programs.worker(f"worker.{language}")

    with pytest.raises(JobFailed, match="oops"):
        client.do("throw", "x", timeout=SECONDS)


@EVERY
@pytest.mark.parametrize("workload", [BYTES, BYTES * 12 * 1024], ids=["256 bytes", "3 MB"])
@pytest.mark.usefixtures("worker")
def test_our_worker_gets_every_byte_from_a_client(language: str, programs: Programs, workload: bytes) -> None:
    assert programs.client(f"client.{language}", "reverse", data=workload) == workload[::-1]


@EVERY
@pytest.mark.usefixtures("worker")
def test_a_client_hears_what_our_worker_reports(language: str, programs: Programs) -> None:
    assert programs.client(f"client.{language}", "tasks", "talk").decode().splitlines() == TALK[language]


@EVERY
@pytest.mark.usefixtures("worker")
def test_a_client_learns_that_our_worker_failed(language: str, programs: Programs) -> None:
    assert "fail" in programs.client(f"client.{language}", "tasks", "fail").decode().splitlines()


@pytest.mark.parametrize("language", ["c", "pl", "php"], indirect=True)
@pytest.mark.usefixtures("worker")
def test_a_client_learns_why_our_worker_failed(language: str, programs: Programs) -> None:
    assert "exception oops" in programs.client(f"client.{language}", "exceptions", "throw").decode().splitlines()
