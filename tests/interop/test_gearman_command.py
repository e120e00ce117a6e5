"""The ``gearman`` command of Debian's gearman-tools, as client and as worker."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tests.interop.conftest import Programs
from tests.server.bytes import Peer, until

pytestmark = pytest.mark.skipif(shutil.which("gearman") is None, reason="the gearman command is not installed")
BYTES = bytes(range(256))


def gearman(programs: Programs, *arguments: str, data: bytes = b"") -> bytes:
    """Run the command to its end and return what it prints."""
    return programs.run(line(programs, *arguments), data)


def line(programs: Programs, *arguments: str) -> list[str]:
    return ["gearman", "-h", programs.server.host, "-p", str(programs.server.port), *arguments]


@pytest.mark.parametrize("priority", [[], ["-I"], ["-L"]], ids=["normal", "high", "low"])
def test_a_foreground_job_is_counted_by_wc(priority: list[str], programs: Programs) -> None:
    programs.start(line(programs, "-w", "-f", "count", "--", "wc", "-c"))
    programs.wait_for_workers(b"count", 1)

    assert gearman(programs, "-f", "count", *priority, data=b"12345").strip() == b"5"


def test_a_workload_may_stand_on_the_command_line(programs: Programs) -> None:
    programs.start(line(programs, "-w", "-f", "count", "--", "wc", "-c"))
    programs.wait_for_workers(b"count", 1)

    assert gearman(programs, "-f", "count", "hello").strip() == b"5"


def test_every_byte_goes_through_cat_and_back(programs: Programs) -> None:
    programs.start(line(programs, "-w", "-f", "cat", "--", "cat"))
    programs.wait_for_workers(b"cat", 1)

    assert gearman(programs, "-f", "cat", data=BYTES) == BYTES


@pytest.mark.timeout(180)
def test_three_megabytes_arrive(programs: Programs) -> None:
    # Through wc, not cat: the command writes the whole workload before it reads, and would block on a full pipe.
    programs.start(line(programs, "-w", "-f", "count", "--", "wc", "-c"))
    programs.wait_for_workers(b"count", 1)

    # The command grows its buffer by a kilobyte at a time: 5 s of CPU time, which a busy machine may not give it in 20 s.
    assert programs.run(line(programs, "-f", "count"), BYTES * 12 * 1024, seconds=150).strip() == b"3145728"


@pytest.mark.parametrize("priority", [[], ["-I"], ["-L"]], ids=["normal", "high", "low"])
def test_a_background_job_is_run_by_a_worker_that_comes_later(priority: list[str], programs: Programs, peer: Peer) -> None:
    gearman(programs, "-b", "-f", "count", *priority, data=b"12345")
    column = {"": 2, "-I": 1, "-L": 3}["".join(priority)]
    (row,) = [row.split(b"\t") for row in peer.command(b"prioritystatus") if row.startswith(b"count\t")]
    assert row[column] == b"1"

    worker = programs.start(line(programs, "-w", "-c", "1", "-f", "count", "--", "wc", "-c"), stdout=subprocess.PIPE)
    assert worker.communicate(timeout=5)[0] == b""
    assert worker.returncode == 0
    until(lambda: (peer.status(b"count") or (0, 0, 0))[0], 0)


def test_jobs_of_one_unique_are_one_job(programs: Programs, peer: Peer) -> None:
    for _ in range(3):
        gearman(programs, "-b", "-f", "count", "-u", "same", data=b"x")

    assert peer.status(b"count") == (1, 0, 0)
    assert peer.command(b"show unique jobs") == [b"same\n"]


def test_one_job_a_line(programs: Programs) -> None:
    programs.start(line(programs, "-w", "-f", "upper", "--", "tr", "a-z", "A-Z"))
    programs.wait_for_workers(b"upper", 1)

    assert gearman(programs, "-n", "-f", "upper", data=b"one\ntwo\nthree\n").split() == [b"ONE", b"TWO", b"THREE"]


def test_several_functions_at_once(programs: Programs) -> None:
    programs.start(line(programs, "-w", "-f", "a", "-f", "b", "--", "cat"))
    programs.wait_for_workers(b"b", 1)

    lines = gearman(programs, "-P", "-f", "a", "-f", "b", data=b"x").decode()
    assert sorted(part for part in lines.replace("x", "x\n").split() if part) == ["a:", "b:", "x", "x"]


def test_a_worker_that_exits_with_an_error_fails_the_job(programs: Programs, peer: Peer) -> None:
    programs.start(line(programs, "-w", "-f", "false", "--", "false"))
    programs.wait_for_workers(b"false", 1)
    run = subprocess.run(line(programs, "-f", "false"), input=b"x", capture_output=True, timeout=10, check=False)

    assert run.returncode != 0
    assert peer.status(b"false") == (0, 0, 1)
