"""Stock workers of each language: what they do with jobs, seen from a raw connection."""

from __future__ import annotations

import pytest

from tests.interop.conftest import Programs
from tests.server.bytes import Peer, until

EVERY = pytest.mark.parametrize("language", ["c", "pl", "php", "py", "js"], indirect=True)

BYTES = bytes(range(256))
TALK = {
    "c": ["WORK_DATA part", "WORK_WARNING careful", "WORK_STATUS 1 2", "WORK_COMPLETE whole"],
    "js": ["WORK_DATA part", "WORK_COMPLETE whole"],
}
THROW = {"c": "WORK_EXCEPTION oops", "php": "WORK_EXCEPTION oops", "pl": "WORK_EXCEPTION oops"}


def run(peer: Peer, function: bytes, workload: bytes) -> list[str]:
    """Submit a job and return what comes of it, to its end."""
    handle = peer.submit("SUBMIT_JOB", function, b"", workload)
    reports = []
    while not reports or reports[-1].split()[0] not in ("WORK_COMPLETE", "WORK_FAIL", "WORK_EXCEPTION"):
        name, body = peer.packet()
        assert body.split(b"\0")[0] == handle
        reports.append(" ".join([name, *body.decode("latin-1").split("\0")[1:]]))
    return reports


@EVERY
@pytest.mark.parametrize("workload", [BYTES, BYTES * 12 * 1024], ids=["256 bytes", "3 MB"])
def test_a_worker_gets_and_returns_every_byte(language: str, programs: Programs, peer: Peer, workload: bytes) -> None:
    programs.worker(f"worker.{language}")
    handle = peer.submit("SUBMIT_JOB", b"reverse", b"", workload)

    peer.expect("WORK_COMPLETE", handle, workload[::-1])


@EVERY
def test_a_worker_reports_data_warning_and_status(language: str, programs: Programs, peer: Peer) -> None:
    programs.worker(f"worker.{language}")

    assert run(peer, b"talk", b"") == TALK.get(language, TALK["c"])


@EVERY
def test_a_worker_fails_a_job(language: str, programs: Programs, peer: Peer) -> None:
    programs.worker(f"worker.{language}")

    assert run(peer, b"fail", b"x") == ["WORK_FAIL"]


@EVERY
def test_a_worker_throws_an_exception(language: str, programs: Programs, peer: Peer) -> None:
    if language not in THROW:
        pytest.skip("this library sends no WORK_EXCEPTION")
    programs.worker(f"worker.{language}")
    peer.send("OPTION_REQ", b"exceptions")
    peer.expect("OPTION_RES", b"exceptions")

    assert run(peer, b"throw", b"x") == [THROW[language]]


@EVERY
def test_a_worker_drains_what_waited_for_it_and_then_sleeps(language: str, programs: Programs, peer: Peer) -> None:
    for number in range(50):
        peer.submit("SUBMIT_JOB_BG" if number % 2 else "SUBMIT_JOB_LOW_BG", b"reverse", b"", b"job %d" % number)
    programs.worker(f"worker.{language}")

    until(lambda: peer.status(b"reverse"), (0, 0, 1))
    assert run(peer, b"reverse", b"awake") == ["WORK_COMPLETE ekawa"]


@EVERY
def test_a_killed_worker_s_job_goes_to_the_next(language: str, programs: Programs, peer: Peer) -> None:
    process = programs.worker(f"worker.{language}")
    assert run(peer, b"reverse", b"abc") == ["WORK_COMPLETE cba"]
    process.kill()
    until(lambda: (peer.status(b"reverse") or (0, 0, 0))[2], 0)
    handle = peer.submit("SUBMIT_JOB", b"reverse", b"", b"abc")
    programs.worker(f"worker.{language}")

    peer.expect("WORK_COMPLETE", handle, b"cba")


@pytest.mark.parametrize("language", ["pl"], indirect=True)
@pytest.mark.parametrize("empty", [b"", b"0"])
@pytest.mark.difference("waits for the separator that Perl's worker leaves out, and the job never ends")
def test_a_perl_worker_s_empty_result_completes_the_job(language: str, empty: bytes, programs: Programs, peer: Peer) -> None:
    programs.worker("worker.pl")
    assert run(peer, b"reverse", empty) == ["WORK_COMPLETE "]

    assert run(peer, b"reverse", b"abc") == ["WORK_COMPLETE cba"]
