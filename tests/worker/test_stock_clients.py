"""The stock ``gearman`` command (libgearman) and our worker."""

from __future__ import annotations

import shutil
import subprocess
from typing import Any

import pytest

from postgear.worker.job import Job
from postgear.worker.runner import Worker
from tests.worker.conftest import running

BYTES = bytes(range(256))

pytestmark = pytest.mark.skipif(shutil.which("gearman") is None, reason="the gearman command is not installed")


def gearman(server: Any, *arguments: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = ["gearman", "-h", server.host, "-p", str(server.port), *arguments]
    return subprocess.run(command, input=data, capture_output=True, timeout=30, check=False)


@pytest.mark.parametrize("priority", [[], ["-I"], ["-L"]], ids=["normal", "high", "low"])
@pytest.mark.parametrize("unique", [[], ["-u", "mine"]], ids=["no unique", "unique"])
def test_a_job_of_the_command(priority: list[str], unique: list[str], shared_server: Any, name: str) -> None:
    worker = Worker(shared_server.address)
    uniques = []

    @worker.function(name)
    def reverse(payload: bytes, job: Job) -> bytes:
        uniques.append(job.unique)
        return payload[::-1]

    with running(worker):
        assert gearman(shared_server, "-f", name, *priority, *unique, data=BYTES).stdout == BYTES[::-1]
    if unique:
        assert uniques == ["mine"]


def test_a_background_job_of_the_command(shared_server: Any, name: str) -> None:
    worker = Worker(shared_server.address)
    workloads = []

    @worker.function(name)
    def keep(payload: str) -> None:
        workloads.append(payload)

    assert gearman(shared_server, "-b", "-f", name, data=b"later").returncode == 0
    with running(worker, max_jobs=1) as run:
        run.wait()
    assert workloads == ["later"]


def test_data_and_failures_reach_the_command(shared_server: Any, name: str) -> None:
    # The command does not ask for exceptions, and gearmand tells it of one in a way that it does not understand: it would wait
    # for ever.
    worker = Worker(shared_server.address, exceptions=False)

    @worker.function(name)
    def talk(payload: str, job: Job) -> str:
        job.data("one ")
        job.data("two ")
        job.status(1, 2)
        if payload == "fail":
            raise ValueError("no")
        return "three"

    with running(worker):
        assert gearman(shared_server, "-f", name, data=b"x").stdout == b"one two three50% Complete\n"
        assert gearman(shared_server, "-f", name, data=b"fail").returncode == 1
