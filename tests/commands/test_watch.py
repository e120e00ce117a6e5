"""`postgear status --watch`."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from postgear.client.admin import FunctionStatus
from postgear.watch import Rates
from tests.commands.worker_process import PROGRAM, WAIT_SECONDS
from tests.server.bytes import Peer
from tests.server_process import ServerProcess


def status(total: int) -> FunctionStatus:
    return FunctionStatus("f", 0, total, 0, 0, 1, total)


def test_rates_are_taken_over_some_time() -> None:
    rates = Rates()
    seen = [rates.watch(float(now), [status(total)])[0] for now, total in ((0, 100), (2, 90), (10, 50), (25, 20), (60, 20))]
    assert [each.change_per_second for each in seen] == [None, -5.0, -5.0, -2.0, 0.0]
    assert [each.empty_in_seconds for each in seen] == [None, 18.0, 10.0, 10.0, None]


def test_a_function_that_is_new_grows_from_nothing() -> None:
    rates = Rates()
    rates.watch(0.0, [])
    (seen,) = rates.watch(2.0, [status(10)])
    assert (seen.change_per_second, seen.empty_in_seconds) == (5.0, None)


@pytest.fixture
def filled(server: ServerProcess) -> Iterator[ServerProcess]:
    """A server with two jobs of a function."""
    with Peer(server.host, server.port) as peer:
        for _ in range(2):
            peer.submit("SUBMIT_JOB_BG", b"resize", b"", b"")
    return server


def watching(server: ServerProcess, *words: str) -> subprocess.Popen[str]:
    command = [str(PROGRAM), "status", "--watch", "0.1", "--server", server.address, *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_lines_are_repeated_until_interrupted(filled: ServerProcess) -> None:
    process = watching(filled)
    assert process.stdout is not None
    head, first, second = (process.stdout.readline().split() for _ in range(3))
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=WAIT_SECONDS)
    assert head == ["time", "function", "high", "normal", "low", "running", "workers", "total", "change/s", "empty", "in"]
    assert first[1:] == ["resize", "0", "2", "0", "0", "0", "2"]
    assert second[1:] == ["resize", "0", "2", "0", "0", "0", "2", "0"]
    assert (process.returncode, errors) == (0, "")


def test_json_is_a_line_each_time(filled: ServerProcess) -> None:
    process = watching(filled, "--json")
    assert process.stdout is not None
    rows = [json.loads(process.stdout.readline()) for _ in range(2)]
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=WAIT_SECONDS)
    assert process.returncode == 0
    assert [row["functions"][0]["total"] for row in rows] == [2, 2]
    assert [row["functions"][0]["change_per_second"] for row in rows] == [None, 0]


def test_a_reader_that_leaves_ends_it(filled: ServerProcess) -> None:
    process = watching(filled)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(WAIT_SECONDS) == 0
    assert process.stderr.read() == ""
    process.stderr.close()


def test_a_server_that_goes_away_is_told_and_waited_for(filled: ServerProcess, tmp_path: Path) -> None:
    process = watching(filled)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    filled.stop()
    assert filled.address in process.stderr.readline()
    again = ServerProcess("--listen", filled.address, dsn=filled.dsn, log_path=tmp_path / "again.log")
    try:
        process.send_signal(signal.SIGINT) if process.stdout.readline() else None
        output, _ = process.communicate(timeout=WAIT_SECONDS)
        assert process.returncode == 0
        assert "resize" in output or output == ""
    finally:
        again.kill()


def test_a_server_that_was_never_there_ends_it() -> None:
    done = subprocess.run([PROGRAM, "status", "--watch", "--server", "127.0.0.1:1"], capture_output=True, text=True, check=False)
    assert done.returncode == 6
    assert "postgear serve" in done.stderr


def test_a_table_is_drawn_on_a_terminal_until_ctrl_c(filled: ServerProcess) -> None:
    master, slave = pty.openpty()
    process = subprocess.Popen(
        ["setsid", "--ctty", "--wait", PROGRAM, "status", "--watch", "0.1", "--server", filled.address],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "30"},
    )
    os.close(slave)
    shown = b""
    while shown.count(b"change/s") < 3:
        shown += os.read(master, 65536)
    os.write(master, b"\x03")
    try:
        while chunk := os.read(master, 65536):
            shown += chunk
    except OSError:  # Linux tells the end so
        pass
    os.close(master)
    assert process.wait(WAIT_SECONDS) == 0
    assert shown.rstrip().endswith(b"\x1b[?25h"), "the cursor is back"
    assert b"Traceback" not in shown
    text = re.sub(rb"\x1b\[[0-9;?]*[a-zA-Z]", b"", shown).decode()
    assert f"{filled.address}   every 0.1 s, Ctrl-C ends" in text
    assert re.search(r"resize +0 +2 +0 +0 +0 +2", text)
