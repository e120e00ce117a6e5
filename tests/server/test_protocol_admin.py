"""The admin text protocol, reply by reply."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from tests.server.bytes import Peer, until

Connect = Callable[[], Peer]
UNKNOWN = b"ERR UNKNOWN_COMMAND Unknown+server+command"
INCOMPLETE = b"ERR INVALID_ARGUMENTS An+incomplete+set+of+arguments+was+sent+to+this+command+"


@pytest.mark.parametrize("line", [b"version", b"version\r", b"VERSION", b"Version", b"version  ", b"version of what"])
def test_version_is_ok_and_a_number(line: bytes, admin: Peer) -> None:
    assert re.fullmatch(rb"OK \d+(\.\d+)*[-+.\w]*\n", admin.reply(line))


def test_verbose_is_ok_and_a_level(admin: Peer) -> None:
    assert re.fullmatch(rb"OK [A-Z]+\n", admin.reply(b"verbose"))


def test_getpid_is_ok_and_the_server_s_pid(shared_server: Any, admin: Peer) -> None:
    assert admin.reply(b"getpid") == b"OK %d\n" % shared_server.process.pid


def test_status_counts_queued_and_running_jobs_and_workers(client: Peer, worker: Peer, admin: Peer, function: bytes) -> None:
    for submit in ("SUBMIT_JOB", "SUBMIT_JOB_BG", "SUBMIT_JOB_LOW_BG"):
        client.submit(submit, function, b"", b"")
    assert function + b"\t3\t0\t0\n" in admin.command(b"status")
    worker.can_do(function)
    worker.grab()
    worker.grab()

    assert function + b"\t3\t2\t1\n" in admin.command(b"status")


def test_status_lists_a_function_as_soon_as_a_worker_can_do_it(worker: Peer, admin: Peer, function: bytes) -> None:
    worker.can_do(function)

    assert function + b"\t0\t0\t1\n" in admin.command(b"status")


@pytest.mark.difference("lists functions in the order of a hash")
def test_status_is_sorted_by_name(worker: Peer, admin: Peer, function: bytes) -> None:
    worker.can_do(*(function + letter for letter in (b"q", b"a", b"z", b"B", b"m")))

    for command in (b"status", b"prioritystatus"):
        names = [line.split(b"\t")[0] for line in admin.command(command)]
        assert names == sorted(names)


def test_prioritystatus_counts_queued_jobs_by_priority(client: Peer, worker: Peer, admin: Peer, function: bytes) -> None:
    submits = ["SUBMIT_JOB_HIGH", "SUBMIT_JOB_HIGH_BG", "SUBMIT_JOB_HIGH", "SUBMIT_JOB", "SUBMIT_JOB_BG", "SUBMIT_JOB_LOW_BG"]
    for submit in submits:
        client.submit(submit, function, b"", b"")
    assert function + b"\t3\t2\t1\t0\n" in admin.command(b"prioritystatus")
    worker.can_do(function)
    worker.grab()

    assert function + b"\t2\t2\t1\t1\n" in admin.command(b"prioritystatus")


def test_workers_lists_every_connection_and_its_abilities(worker: Peer, admin: Peer, function: bytes) -> None:
    worker.send("SET_CLIENT_ID", b"id-" + function)
    admin.send("SET_CLIENT_ID", b"admin-" + function)
    worker.can_do(function + b"a", function + b"b")
    lines = admin.command(b"workers")

    (busy,) = [line for line in lines if b"id-" + function in line]
    (idle,) = [line for line in lines if b"admin-" + function in line]
    assert re.fullmatch(rb"\d+ 127\.0\.0\.1 id-%s : %sb %sa\n" % (function, function, function), busy)
    assert re.fullmatch(rb"\d+ 127\.0\.0\.1 admin-%s :\n" % function, idle)


def test_a_connection_without_an_id_is_listed_with_a_dash(worker: Peer, admin: Peer, function: bytes) -> None:
    worker.can_do(function)

    (line,) = [line for line in admin.command(b"workers") if line.endswith(b" " + function + b"\n")]
    assert re.fullmatch(rb"\d+ 127\.0\.0\.1 - : %s\n" % function, line)


def test_show_jobs_lists_handle_retries_ignored_and_queued(
    connect: Connect, client: Peer, worker: Peer, admin: Peer, function: bytes
) -> None:
    foreground = client.submit("SUBMIT_JOB", function, b"", b"")
    background = client.submit("SUBMIT_JOB_BG", function, b"", b"")
    lines = admin.command(b"show jobs")
    assert foreground + b"\t0\t0\t0\n" in lines
    assert background + b"\t0\t0\t1\n" in lines

    loser = connect()
    loser.can_do(function)
    for _ in range(2):
        loser.grab()
    loser.close()
    until(lambda: foreground + b"\t1\t0\t0\n" in admin.command(b"show jobs"), True)
    until(lambda: background + b"\t1\t0\t1\n" in admin.command(b"show jobs"), True)


def test_show_unique_jobs_lists_uniques(client: Peer, admin: Peer, function: bytes) -> None:
    client.submit("SUBMIT_JOB", function, function + b"-1", b"")
    client.submit("SUBMIT_JOB_BG", function, function + b"-2", b"")
    client.submit("SUBMIT_JOB_BG", function, b"", b"")
    lines = admin.command(b"show unique jobs")

    assert function + b"-1\n" in lines
    assert function + b"-2\n" in lines
    assert b"\n" in lines


@pytest.mark.parametrize("submit", ["SUBMIT_JOB", "SUBMIT_JOB_BG"])
def test_a_cancelled_job_is_not_run(submit: str, client: Peer, worker: Peer, admin: Peer, function: bytes) -> None:
    handle = client.submit(submit, function, b"", b"cancelled")
    other = client.submit(submit, function, b"", b"other")

    assert admin.reply(b"cancel job " + handle) == b"OK\r\n"
    if submit == "SUBMIT_JOB":
        client.expect("WORK_FAIL", handle)
    worker.can_do(function)
    assert worker.grab() == [other, function, b"other"]
    worker.send("GRAB_JOB")
    worker.expect("NO_JOB")
    client.silent()


@pytest.mark.difference("keeps the job listed until a worker passes it")
@pytest.mark.parametrize("submit", ["SUBMIT_JOB", "SUBMIT_JOB_BG"])
def test_a_cancelled_job_is_gone_at_once(submit: str, client: Peer, admin: Peer, function: bytes) -> None:
    handle = client.submit(submit, function, b"", b"")
    assert admin.reply(b"cancel job " + handle) == b"OK\r\n"

    assert admin.status(function) in ((0, 0, 0), None)
    assert admin.status_of(handle) == [b"0", b"0", b"0", b"0"]
    assert not any(line.startswith(handle + b"\t") for line in admin.command(b"show jobs"))
    assert admin.reply(b"cancel job " + handle) == b"ERR UNKNOWN_JOB\r\n"


@pytest.mark.parametrize("submit", ["SUBMIT_JOB", "SUBMIT_JOB_BG"])
def test_the_result_of_a_job_cancelled_while_running_is_swallowed(
    submit: str, client: Peer, worker: Peer, admin: Peer, function: bytes
) -> None:
    worker.can_do(function)
    handle = client.submit(submit, function, b"", b"")
    worker.grab()

    assert admin.reply(b"cancel job " + handle) == b"OK\r\n"
    worker.send("WORK_COMPLETE", handle, b"too late")
    worker.silent()
    until(lambda: admin.status(function), (0, 0, 1))


@pytest.mark.parametrize("handle", [b"H:nobody:1", b"x", b"H:", b"\xff\xfe"])
def test_cancelling_no_job_is_an_error(handle: bytes, admin: Peer) -> None:
    assert admin.reply(b"cancel job " + handle) == b"ERR UNKNOWN_JOB\r\n"


def test_cancelling_anything_but_a_job_is_an_error(admin: Peer) -> None:
    assert admin.reply(b"cancel my subscription") == b"ERR UNKNOWN_ERROR\r\n"


def test_a_function_can_be_created_and_dropped(admin: Peer, function: bytes) -> None:
    assert admin.reply(b"create function " + function + b"\r") == b"OK\r\n"
    assert admin.status(function) == (0, 0, 0)
    assert admin.reply(b"drop function " + function + b"\r") == b"OK\r\n"
    assert admin.status(function) is None


@pytest.mark.difference("loses the last letter before a bare LF")
def test_a_function_can_be_created_with_a_bare_lf(admin: Peer, function: bytes) -> None:
    assert admin.reply(b"create function " + function) == b"OK\r\n"
    assert admin.status(function) == (0, 0, 0)


def test_dropping_no_function_is_an_error(admin: Peer, function: bytes) -> None:
    assert admin.reply(b"drop function " + function) == b"ERR function not found\r\n"


def test_a_function_with_a_worker_cannot_be_dropped(worker: Peer, admin: Peer, function: bytes) -> None:
    worker.can_do(function)

    reply = admin.reply(b"drop function " + function + b"\r")
    assert reply == b"ERR there are still connected workers or executing clients\r\n"
    assert admin.status(function) == (0, 0, 1)


@pytest.mark.parametrize("command", [b"create", b"create job x", b"create function"])
def test_create_with_other_words_is_an_error(command: bytes, admin: Peer) -> None:
    assert admin.reply(command + b"\r") == INCOMPLETE + b"create\r\n"


@pytest.mark.parametrize("command", [b"drop", b"drop job x", b"drop function"])
def test_drop_with_other_words_is_an_error(command: bytes, admin: Peer) -> None:
    assert admin.reply(command + b"\r") == INCOMPLETE + b"drop\r\n"


@pytest.mark.parametrize("line", [b"", b"\r", b"hello", b"hello world\r", b" version", b"x" * 8000, b"shutup now"])
def test_an_unknown_command_is_an_error_with_its_first_word(line: bytes, admin: Peer) -> None:
    assert admin.reply(line) == UNKNOWN + line.split(b" ")[0].rstrip(b"\r") + b"\r\n"


def test_show_needs_something_to_show(admin: Peer) -> None:
    assert admin.reply(b"show") == UNKNOWN + b"show\r\n"
    assert admin.reply(b"show business") == b"ERR UNKNOWN_SHOW_ARGUMENTS\r\n"
    assert admin.reply(b"show unique business") == b"ERR UNKNOWN_SHOW_ARGUMENTS\r\n"


@pytest.mark.parametrize("line", [b"cancel", b"cancel job"])
def test_cancel_needs_a_job(line: bytes, admin: Peer) -> None:
    assert admin.reply(line) == UNKNOWN + b"cancel\r\n"


@pytest.mark.difference("has no shutdown")
@pytest.mark.parametrize("command", [b"shutdown", b"shutdown graceful"])
def test_shutdown_ends_the_server(command: bytes, start_server: Callable[..., Any], connect_to: Callable[[Any], Peer]) -> None:
    server = start_server()
    admin = connect_to(server)

    assert admin.reply(command) == b"OK\r\n"
    admin.closed()
    assert server.process.wait(5) == 0


def test_the_words_of_a_command_may_stand_apart(client: Peer, admin: Peer, function: bytes) -> None:
    handle = client.submit("SUBMIT_JOB_BG", function, b"", b"")

    assert admin.reply(b"cancel   job  " + handle) == b"OK\r\n"
