"""`postgear worker --exec`: shell commands as functions."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.commands.test_worker_restart import do
from tests.commands.worker_process import WorkerProcess, is_alive
from tests.server.bytes import Peer
from tests.server.load import count, wait_for

Start = Callable[..., WorkerProcess]


def failure(client: Peer, function: bytes, workload: bytes) -> bytes:
    """Run a job that fails and return what is said about it."""
    handle = client.submit("SUBMIT_JOB", function, b"", workload)
    name, body = client.packet()
    assert (name, body.split(b"\0")[0]) == ("WORK_EXCEPTION", handle), (name, body)
    return body.split(b"\0", 1)[1]


def test_the_workload_is_standard_input_and_standard_output_the_result(start_worker: Start, client: Peer) -> None:
    worker = start_worker("--exec", "wc -l", "-f", "count", "-f", "lines")
    assert do(client, b"count", b"a\nb\n").strip() == b"2"
    assert do(client, b"lines", b"").strip() == b"0"
    assert worker.end() == 0


def test_any_bytes_and_large_ones_pass(start_worker: Start, client: Peer) -> None:
    start_worker("--exec", "cat", "-f", "same")
    workload = bytes(range(256)) * 20_000
    assert do(client, b"same", workload) == workload


def test_a_command_may_leave_its_input_alone(start_worker: Start, client: Peer) -> None:
    start_worker("--exec", 'echo "$POSTGEAR_FUNCTION $POSTGEAR_HANDLE $POSTGEAR_UNIQUE"', "-f", "who")
    handle = client.submit("SUBMIT_JOB", b"who", b"key", bytes(5_000_000))
    client.expect("WORK_COMPLETE", handle, b"who " + handle + b" key\n")


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("echo no such page >&2; exit 3", b"CommandFailed: exit status 3: no such page"),
        ("exit 1", b"CommandFailed: exit status 1"),
        ("kill -9 $$", b"CommandFailed: signal SIGKILL"),
        ("no-such-command", b"CommandFailed: exit status 127: "),
    ],
)
def test_a_command_that_fails_tells_the_end_of_its_standard_error(
    command: str, said: bytes, start_worker: Start, client: Peer
) -> None:
    start_worker("--exec", command, "-f", "fail")
    assert failure(client, b"fail", b"x").startswith(said)


def test_only_the_end_of_a_long_standard_error_is_told_and_all_of_it_is_passed_on(start_worker: Start, client: Peer) -> None:
    worker = start_worker("--exec", "seq 1 100000 >&2; exit 1", "-f", "fail")
    said = failure(client, b"fail", b"x")
    assert len(said) < 2100
    assert said.endswith(b"\n99999\n100000")
    assert "\n1\n2\n3\n" in worker.log()


def test_the_time_limit_ends_a_command_with_all_it_has_started(start_worker: Start, client: Peer, folder: Path) -> None:
    start_worker("--exec", "trap '' TERM; sleep 1000 & echo $! $$ > pids; wait; sleep 1000", "-f", "hang", "--timeout", "0.5")
    assert b"took longer than 0.5 s" in failure(client, b"hang", b"x")
    pids = [int(word) for word in (folder / "pids").read_text().split()]
    wait_for(lambda: not any(map(is_alive, pids)), "the end of the command")


def test_failed_commands_run_again(start_worker: Start, client: Peer, folder: Path) -> None:
    start_worker("--exec", "test -e here || { touch here; exit 1; }; echo done", "-f", "twice", "--retries", "1")
    assert do(client, b"twice", b"") == b"done\n"


@pytest.mark.parametrize("signals", [1, 2])
def test_a_stop_ends_commands_that_outlast_it(signals: int, start_worker: Start, client: Peer, folder: Path, dsn: str) -> None:
    worker = start_worker(
        "--exec", "echo $$ > pid; exec sleep 1000", "-f", "hang", "--drain-seconds", "0" if signals == 1 else "900"
    )
    client.submit("SUBMIT_JOB_BG", b"hang", b"", b"")
    wait_for(lambda: (folder / "pid").exists() and (folder / "pid").read_text(), "the command")
    for _ in range(signals):
        worker.send(signal.SIGTERM)
        worker.wait_for_log(r" stopping processes=1")
    assert worker.process.wait(20) == 0
    wait_for(lambda: not is_alive(int((folder / "pid").read_text())), "the end of the command")
    assert count(dsn) == 1


def test_several_commands_run_at_a_time(start_worker: Start, client: Peer, folder: Path) -> None:
    start_worker("--exec", "read name; touch $name; while [ ! -e go ]; do sleep 0.01; done", "-f", "wait", "--concurrency", "3")
    handles = {client.submit("SUBMIT_JOB", b"wait", b"", b"job%d\n" % number) for number in range(3)}
    wait_for(lambda: len(list(folder.glob("job?"))) == 3, "all three at once")
    (folder / "go").touch()
    assert {client.packet().body.split(b"\0")[0] for _ in range(3)} == handles
