"""How a server stops and reopens its log: signals, the shutdown command, the pid file."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.server.bytes import Peer, request
from tests.server.load import Submitter, UnreadyServer, count, query, stored, wait_for
from tests.server_process import ServerProcess

Start = Callable[..., ServerProcess]
ConnectTo = Callable[[ServerProcess], Peer]
STOP_SECONDS = 15


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_sends_the_acks_of_submits_under_way(
    number: signal.Signals, start_server: Start, connect_to: ConnectTo, dsn: str
) -> None:
    server = start_server()
    client = connect_to(server)
    jobs = 3000
    client.write(b"".join(request("SUBMIT_JOB_BG", b"f", b"", b"%d" % number) for number in range(jobs)))
    first = client.created()
    server.process.send_signal(number)
    acked = {first}
    try:
        while True:
            acked.add(client.created())
    except (ConnectionError, AssertionError):
        pass

    assert server.process.wait(STOP_SECONDS) == 0
    # Each job that is stored was acknowledged, and each that was acknowledged is stored.
    assert acked == stored(dsn)


def test_a_stop_under_load_loses_no_acknowledged_job(start_server: Start, dsn: str) -> None:
    server = start_server("--drain-seconds", "2")
    submitters = [Submitter(server, b"f") for _ in range(3)]
    for submitter in submitters:
        submitter.start()
    wait_for(lambda: all(submitter.acked for submitter in submitters), "acks")
    assert server.stop() == 0
    for submitter in submitters:
        submitter.join(10)

    assert {handle for submitter in submitters for handle in submitter.acked} <= stored(dsn)


def test_a_stop_releases_claims_and_ends_the_lease(start_server: Start, connect_to: ConnectTo, dsn: str) -> None:
    server = start_server()
    worker, client = connect_to(server), connect_to(server)
    worker.can_do(b"f")
    for _ in range(50):
        client.submit("SUBMIT_JOB_BG", b"f", b"", b"")
    handle = worker.grab()[0]
    wait_for(lambda: count(dsn, "lease is not null") > 1, "jobs claimed ahead")
    server.process.send_signal(signal.SIGTERM)
    server.wait_for_log("stopping")
    worker.send("WORK_COMPLETE", handle, b"")

    assert server.process.wait(STOP_SECONDS) == 0
    assert count(dsn, "lease is not null") == 0
    assert count(dsn) == 49, "the result that came while it stopped counts"
    assert count(dsn, "attempt > 0") == 0, "what no worker had was not tried"
    assert query(dsn, "select * from postgear.server") == []


def test_a_worker_that_never_answers_does_not_hold_a_stop_up(start_server: Start, connect_to: ConnectTo, dsn: str) -> None:
    server = start_server("--drain-seconds", "1")
    worker, client = connect_to(server), connect_to(server)
    worker.can_do(b"f")
    client.submit("SUBMIT_JOB_BG", b"f", b"", b"")
    worker.grab()
    started = time.monotonic()

    assert server.stop() == 0
    assert 0.9 < time.monotonic() - started < 4.0
    assert query(dsn, "select lease, attempt from postgear.job") == [(None, 1)]


def test_a_stopping_server_gives_no_job_out(start_server: Start, connect_to: ConnectTo) -> None:
    server = start_server("--drain-seconds", "5")
    busy, client = connect_to(server), connect_to(server)
    busy.can_do(b"f")
    handle = client.submit("SUBMIT_JOB_BG", b"f", b"", b"")
    busy.grab()
    client.submit("SUBMIT_JOB_BG", b"f", b"", b"")
    server.process.send_signal(signal.SIGTERM)
    server.wait_for_log("stopping")

    busy.send("GRAB_JOB")
    busy.expect("NO_JOB")
    busy.send("WORK_COMPLETE", handle, b"")
    assert server.process.wait(STOP_SECONDS) == 0


@pytest.mark.parametrize("how", ["SIGUSR1", "shutdown graceful"])
def test_a_graceful_stop_waits_for_the_jobs_in_memory_and_takes_nobody_new(
    how: str, start_server: Start, connect_to: ConnectTo, dsn: str
) -> None:
    server = start_server()
    worker, client, admin = connect_to(server), connect_to(server), connect_to(server)
    worker.can_do(b"f")
    handles = [client.submit("SUBMIT_JOB", b"f", b"", b"%d" % number) for number in range(3)]
    durable = client.submit("SUBMIT_JOB_BG", b"h", b"", b"")
    assert worker.grab()[0] == handles[0]
    if how == "SIGUSR1":
        server.process.send_signal(signal.SIGUSR1)
    else:
        assert admin.reply(b"shutdown graceful") == b"OK\r\n"
    server.wait_for_log("stopping graceful=true")

    with pytest.raises(ConnectionRefusedError):
        connect_to(server)
    for number, handle in enumerate(handles):
        if number:
            assert worker.grab()[0] == handle
        assert server.process.poll() is None
        worker.send("WORK_COMPLETE", handle, b"done")
        client.expect("WORK_COMPLETE", handle, b"done")
    assert server.process.wait(STOP_SECONDS) == 0
    assert stored(dsn) == {durable}


def test_a_second_signal_ends_the_patience_of_a_graceful_stop(start_server: Start, connect_to: ConnectTo) -> None:
    server = start_server("--drain-seconds", "0")
    client = connect_to(server)
    client.submit("SUBMIT_JOB", b"f", b"", b"")
    server.process.send_signal(signal.SIGUSR1)
    server.wait_for_log("stopping graceful=true")
    client.silent()

    assert server.stop() == 0


def test_the_command_shutdown_stops_the_server(start_server: Start, connect_to: ConnectTo) -> None:
    server = start_server()
    admin = connect_to(server)

    assert admin.reply(b"shutdown") == b"OK\r\n"
    assert server.process.wait(STOP_SECONDS) == 0
    admin.closed()


def test_sighup_reopens_the_log_file(dsn: str, tmp_path: Path) -> None:
    log, moved = tmp_path / "server.log", tmp_path / "server.log.1"
    server = UnreadyServer("--log-file", str(log), dsn=dsn, log_path=tmp_path / "stderr")
    try:
        wait_for(lambda: log.exists() and " ready " in log.read_text(), "ready in the log file")
        log.rename(moved)
        server.process.send_signal(signal.SIGHUP)

        wait_for(lambda: log.exists() and "reloaded" in log.read_text(), "a line in the new file")
        assert server.listens()
        server.process.terminate()
        assert server.process.wait(STOP_SECONDS) == 0
        assert "stopped" in log.read_text()
        assert "reloaded" not in moved.read_text()
        assert server.log() == ""
    finally:
        server.process.kill()
        server.process.wait()


def test_the_pid_file_holds_the_pid_while_the_server_runs(start_server: Start, connect_to: ConnectTo, tmp_path: Path) -> None:
    pid_file = tmp_path / "postgear.pid"
    server = start_server("--pid-file", str(pid_file))

    assert pid_file.read_text() == f"{server.process.pid}\n"
    assert connect_to(server).reply(b"getpid") == b"OK %d\n" % server.process.pid
    assert server.stop() == 0
    assert not pid_file.exists()
