"""Every option of the ``gearadmin`` command of Debian's gearman-tools."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from tests.interop.conftest import Programs
from tests.server.bytes import Peer, until

pytestmark = pytest.mark.skipif(shutil.which("gearadmin") is None, reason="the gearadmin command is not installed")


def gearadmin(programs: Programs, *arguments: str) -> str:
    """Run the command and return what it prints, errors as well: it exits with 0 either way."""
    command = ["gearadmin", "--host", programs.server.host, "--port", str(programs.server.port), *arguments]
    run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=10, check=True)
    return run.stdout


def test_server_version(programs: Programs) -> None:
    assert re.fullmatch(r"\d+(\.\d+)*[-+.\w]*\n", gearadmin(programs, "--server-version"))


def test_server_verbose(programs: Programs) -> None:
    assert re.fullmatch(r"[A-Z]+\n", gearadmin(programs, "--server-verbose"))


def test_getpid(programs: Programs) -> None:
    assert gearadmin(programs, "--getpid").strip() == str(programs.server.process.pid)


def test_status(programs: Programs, peer: Peer) -> None:
    peer.submit("SUBMIT_JOB_BG", b"later", b"", b"")

    assert gearadmin(programs, "--status") == "later\t1\t0\t0\n.\n"


def test_priority_status(programs: Programs, peer: Peer) -> None:
    peer.submit("SUBMIT_JOB_HIGH_BG", b"later", b"", b"")

    assert gearadmin(programs, "--priority-status") == "later\t1\t0\t0\t0\n.\n"


def test_workers(programs: Programs, peer: Peer) -> None:
    peer.send("SET_CLIENT_ID", b"me")
    peer.can_do(b"later")

    lines = gearadmin(programs, "--workers").splitlines()
    assert lines[-1] == "."
    assert any(re.fullmatch(r"\d+ 127\.0\.0\.1 me : later", line) for line in lines)


def test_show_jobs_and_show_unique_jobs(programs: Programs, peer: Peer) -> None:
    handle = peer.submit("SUBMIT_JOB_BG", b"later", b"my-unique", b"").decode()

    assert gearadmin(programs, "--show-jobs") == f"{handle}\t0\t0\t1\n.\n"
    assert gearadmin(programs, "--show-unique-jobs") == "my-unique\n.\n"


def test_cancel_job(programs: Programs, peer: Peer) -> None:
    handle = peer.submit("SUBMIT_JOB_BG", b"later", b"", b"").decode()

    assert "Error" not in gearadmin(programs, "--cancel-job", handle)
    assert "UNKNOWN_JOB" in gearadmin(programs, "--cancel-job", "H:nobody:1")
    peer.can_do(b"later")
    peer.send("GRAB_JOB")
    peer.expect("NO_JOB")
    until(lambda: peer.status(b"later"), (0, 0, 1))


def test_create_function_and_drop_function(programs: Programs, peer: Peer) -> None:
    assert "Error" not in gearadmin(programs, "--create-function", "later")
    assert peer.status(b"later") == (0, 0, 0)
    assert "Error" not in gearadmin(programs, "--drop-function", "later")
    assert peer.status(b"later") is None
    assert "function not found" in gearadmin(programs, "--drop-function", "later")
