"""Servers that are away, hang, drip, flood or send garbage: every call ends in time, and the database server lives."""

from __future__ import annotations

import json
import random
import socket
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import mysql.connector
import pytest

from tests.mariadb import MariaDB
from tests.server.gearmand import Gearmand
from tests.udf import bad_server
from tests.udf.asking import Session
from tests.udf.bad_server import BadServer, answering, dripping, flooding, greeted, packet, read_packet, wait_for_the_end
from tests.udf.conftest import load

CREATED = packet(8, b"H:x:1")
SLACK_SECONDS = 1.5
"""What a busy machine may add to a timeout."""


@pytest.fixture
def hasty(session: Session) -> Session:
    """A session with short timeouts."""
    for option, seconds in (("connect_timeout", 0.3), ("background_timeout", 0.4), ("timeout", 0.6)):
        session.value("select gman_option_set(%s, %s)", option, seconds)
    return session


@contextmanager
def within(seconds: float) -> Any:
    started = time.monotonic()
    yield
    assert time.monotonic() - started < seconds + SLACK_SECONDS


def hang(connection: socket.socket) -> None:
    wait_for_the_end(connection)


@pytest.mark.parametrize("call", ["gman_do('f', '')", "gman_do_background('f', '')", "gman_sum('f', '')", "gman_status('H:x:1')"])
def test_nothing_is_asked_of_no_server(session: Session, call: str) -> None:
    assert session.value(f"select {call}") is None
    assert "no Gearman server is set" in session.warning()


def test_a_server_that_is_not_there_is_null_and_passed_over(hasty: Session) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        address = f"127.0.0.1:{closed.getsockname()[1]}"
    hasty.value("select gman_servers_set(%s)", address)
    assert hasty.value("select gman_do_background('f', '')") is None
    assert hasty.warning() == f"gman_do_background: no Gearman server answers: {address}: Connection refused"
    assert hasty.value("select gman_do_background('f', '')") is None
    assert "(tried again in" in hasty.warning()


def test_a_server_that_never_accepts_ends_at_the_connect_timeout(hasty: Session) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        with socket.create_connection(address), socket.socket() as second, within(0.3):
            second.setblocking(False)
            second.connect_ex(address)  # fills the queue of those to be accepted
            hasty.value("select gman_servers_set(%s)", f"127.0.0.1:{address[1]}")
            assert hasty.value("select gman_do_background('f', '')") is None


def test_a_server_that_hangs_is_passed_over(hasty: Session, stock_gearmand: Gearmand) -> None:
    with BadServer(hang) as bad:
        hasty.value("select gman_servers_set(%s)", f"{bad.address}, {stock_gearmand.address}")
        hasty.value("select gman_option_set('background_timeout', 2)")
        with within(0.3):
            assert hasty.value("select gman_do_background('f', '')").startswith(b"H:")
        for _ in range(20):
            assert hasty.value("select gman_do_background('f', '')").startswith(b"H:")
        assert bad.connections == 1
        hasty.value("select gman_servers_set(%s)", bad.address)
        assert hasty.value("select gman_do_background('f', '')") is None
        assert bad.connections == 1
        assert "(tried again in" in hasty.warning()


def test_a_server_is_tried_again_after_the_back_off(hasty: Session) -> None:
    hasty.value("select gman_option_set('back_off', 0.05)")
    is_good = threading.Event()

    def treat(connection: socket.socket) -> None:
        if not is_good.is_set():
            return hang(connection)
        return answering(CREATED, wait_for_the_end)(connection)

    with BadServer(treat) as server:
        hasty.value("select gman_servers_set(%s)", server.address)
        assert hasty.value("select gman_do_background('f', '')") is None
        is_good.set()
        deadline = time.monotonic() + 5
        while hasty.value("select gman_do_background('f', '')") is None:
            assert time.monotonic() < deadline


def test_a_server_that_takes_a_job_and_hangs_is_passed_over(hasty: Session) -> None:
    hasty.value("select gman_option_set('background_timeout', 2)")
    hasty.value("select gman_option_set('timeout', 2)")
    with BadServer(answering(b"", wait_for_the_end)) as bad:
        hasty.value("select gman_servers_set(%s)", bad.address)
        with within(2):
            assert hasty.value("select gman_do_background('f', '')") is None
        assert hasty.warning().endswith("no answer in time; the job may run")
        with within(0.05):
            assert hasty.value("select gman_do_background('f', '')") is None
        assert "took a job and did not answer (tried again in" in hasty.warning()


def test_a_call_with_a_short_timeout_does_not_take_the_server_from_others(session: Session, stock_gearmand: Gearmand) -> None:
    session.value("select gman_servers_set(%s)", stock_gearmand.address)
    for _ in range(3):  # at first without a connection, then with one
        assert session.value("select gman_do('nobody', '', null, 0.000001)") is None
        assert session.value("select gman_do_background('f', '')").startswith(b"H:")


@pytest.mark.parametrize("call", ["gman_do('f', '')", "gman_do_background('f', '')", "gman_sum('f', '')"])
@pytest.mark.parametrize("answer", [b"", CREATED[:-1], b"noise " * 10], ids=["none", "half", "noise"])
def test_a_job_whose_submission_is_not_answered_is_sent_once(hasty: Session, call: str, answer: bytes) -> None:
    submitted = []

    def treat(connection: socket.socket) -> None:
        greeted(connection)
        submitted.append(read_packet(connection))
        connection.sendall(answer)

    with BadServer(treat) as one, BadServer(treat) as other:
        hasty.value("select gman_servers_set(%s)", f"{one.address},{other.address}")
        assert hasty.value(f"select {call}") is None
        if "sum" not in call:
            assert hasty.warning().endswith("; the job may run")
    assert len(submitted) == 1


def test_what_comes_late_of_a_failed_job_is_no_answer(session: Session) -> None:
    def treat(connection: socket.socket) -> None:
        greeted(connection)
        read_packet(connection)
        connection.sendall(CREATED + packet(25, b"H:x:1\0it failed"))
        read_packet(connection)
        late = packet(14, b"H:x:1") + packet(12, b"H:x:1\x001\x002") + packet(13, b"H:x:1\0late")
        connection.sendall(late + packet(8, b"H:x:2") + packet(13, b"H:x:2\0right"))
        read_packet(connection)
        connection.sendall(packet(14, b"H:x:2") + packet(20, b"H:x:2\x001\x001\x003\x007"))

    with BadServer(treat) as server:
        session.value("select gman_servers_set(%s)", server.address)
        assert session.value("select gman_do('f', '')") is None
        assert session.warning().endswith("job H:x:1 failed: it failed")
        assert session.value("select gman_do('f', '')") == b"right"
        assert json.loads(session.value("select gman_status('H:x:2')"))["numerator"] == 3
        assert server.connections == 1


GARBAGE = {
    "a web server": (b"HTTP/1.1 400 Bad Request\r\n\r\n", "no Gearman packet: HTTP/1.1 400"),
    "an ssh server": (b"SSH-2.0-OpenSSH_9.2\r\n", "no Gearman packet: SSH-2.0-OpenS"),
    "nothing": (b"", "the server closed the connection"),
    "half a header": (b"\0RES\0\0", "the server closed the connection"),
    "half a body": (packet(8, b"H:x", 10), "the server closed the connection"),
    "type 0": (packet(0, b""), "no Gearman packet"),
    "type 43": (packet(43, b""), "no Gearman packet"),
    "a request": (b"\0REQ" + CREATED[4:], "no Gearman packet"),
    "an answer to another question": (packet(17, b""), "type 17 that answers nothing"),
    "no handle": (packet(8, b""), "a handle of 0 bytes"),
    "a long handle": (packet(8, b"H" * 64), "a handle of 64 bytes"),
    "a huge answer": (packet(8, b"", 2**32 - 1), "type 8 with 4294967295 bytes"),
    "a refusal": (packet(19, b"QUEUE_ERROR\0Job queue is full"), "QUEUE_ERROR: Job queue is full"),
    "an odd refusal": (packet(19, b"\xff\n"), "? : "),
    "an empty refusal": (packet(19, b""), ": "),
}


@pytest.mark.parametrize(("data", "text"), GARBAGE.values(), ids=GARBAGE.keys())
@pytest.mark.parametrize("call", ["gman_do('f', '')", "gman_do_background('f', '')", "gman_sum('f', '')"])
def test_garbage_is_null_and_a_warning(hasty: Session, call: str, data: bytes, text: str) -> None:
    with BadServer(answering(data)) as bad:
        hasty.value("select gman_servers_set(%s)", bad.address)
        with within(0.6):
            assert hasty.value(f"select {call}") is None
        assert text in hasty.warning()


LATER = {
    "killed": (b"", "the server closed the connection"),
    "killed in a header": (b"\0RES\0", "the server closed the connection"),
    "killed in a result": (packet(13, b"H:x:1\0abc", 1000), "the server closed the connection"),
    "a second handle": (CREATED, "type 8 that answers nothing"),
    "a huge result": (packet(13, b"H:x:1\0", 2**32 - 1), "the result has more than 16777216 bytes"),
    "failed": (packet(14, b"H:x:1"), "job H:x:1 failed"),
    "failed as gearmand says it": (packet(14, b"H:x:1\0"), "job H:x:1 failed"),
    "noise": (b"\x80\x81\x82" * 20, "no Gearman packet: ????"),
}


@pytest.mark.parametrize(("data", "text"), LATER.values(), ids=LATER.keys())
@pytest.mark.parametrize("call", ["gman_do('f', '')", "gman_sum('f', '')"])
def test_a_result_that_does_not_come_is_null(hasty: Session, call: str, data: bytes, text: str) -> None:
    with BadServer(answering(CREATED + data)) as bad:
        hasty.value("select gman_servers_set(%s)", bad.address)
        with within(0.6):
            assert hasty.value(f"select {call}") is None
        assert text in hasty.warning()


def test_a_result_without_data_is_empty(hasty: Session) -> None:
    with BadServer(answering(CREATED + packet(13, b"H:x:1"))) as bad:
        hasty.value("select gman_servers_set(%s)", bad.address)
        assert hasty.value("select gman_do('f', '')") == b""


def test_results_of_other_jobs_are_not_taken(hasty: Session) -> None:
    others = packet(13, b"H:x:2\0wrong") + packet(14, b"H:x:3") + packet(25, b"H:x:11\0no") + packet(28, b"H:x\0no")
    with BadServer(answering(CREATED + others + packet(13, b"H:x:1\0right"))) as bad:
        hasty.value("select gman_servers_set(%s)", bad.address)
        assert hasty.value("select gman_do('f', '')") == b"right"


WAITS: dict[str, Callable[[socket.socket], None]] = {
    "silence": wait_for_the_end,
    "a drip": dripping(packet(13, b"H:x:1\0" + b"x" * 10_000)),
    "a flood of status": flooding(packet(12, b"H:x:1\x001\x002")),
    "a flood of warnings": flooding(packet(29, b"H:x:1\0look out")),
    "a flood for others": flooding(packet(13, b"H:x:2\0result")),
}


@pytest.mark.parametrize("then", WAITS.values(), ids=WAITS.keys())
@pytest.mark.parametrize("call", ["gman_do('f', '')", "gman_sum('f', '')"])
def test_a_wait_ends_at_the_timeout(
    hasty: Session, call: str, then: Callable[[socket.socket], None], request: pytest.FixtureRequest
) -> None:
    with BadServer(answering(CREATED, then)) as bad:
        hasty.value("select gman_servers_set(%s)", bad.address)
        with within(0.6):
            assert hasty.value(f"select {call}") is None
        if "warnings" not in request.node.name:  # the server keeps the first 64 conditions
            assert hasty.warning().endswith(("no answer in time", "no answer in time; the job may run"))


def test_a_flood_of_data_ends_at_the_limit(hasty: Session) -> None:
    hasty.value("select gman_option_set('timeout', 20)")
    with BadServer(answering(CREATED, flooding(packet(28, b"H:x:1\0" + b"x" * 1000)))) as bad:
        hasty.value("select gman_servers_set(%s)", bad.address)
        with within(10):
            assert hasty.value("select gman_do('f', '')") is None
        assert "the result has more than 16777216 bytes" in hasty.warning()


def test_a_name_that_is_unknown_is_null(hasty: Session) -> None:
    hasty.value("select gman_servers_set('nowhere.invalid')")
    with within(0.4):
        assert hasty.value("select gman_do_background('f', '')") is None
    assert "nowhere.invalid:4730" in hasty.warning()


def test_a_statement_can_be_killed(session: Session, loaded: MariaDB) -> None:
    with BadServer(answering(CREATED, wait_for_the_end)) as bad, loaded.connect() as other, other.cursor() as cursor:
        session.value("select gman_servers_set(%s)", bad.address)
        kill = threading.Timer(0.2, lambda: cursor.execute(f"kill query {session.connection.connection_id}"))
        kill.start()
        with within(0.4):
            assert session.error("select gman_do('f', '')").startswith("1317")
        kill.join()
        assert session.value("select 1") == 1


def test_a_statement_ends_at_max_statement_time(session: Session, loaded: MariaDB) -> None:
    with BadServer(answering(CREATED, wait_for_the_end)) as bad:
        session.value("select gman_servers_set(%s)", bad.address)
        limit = "select /*+ max_execution_time(200) */" if loaded.is_mysql else "set statement max_statement_time=0.2 for select"
        with within(0.4), pytest.raises(mysql.connector.Error):
            session.rows(f"{limit} gman_do('f', '')")


def test_settings_are_locked_and_the_server_shuts_down_during_a_wait(
    start_mariadb: Callable[..., MariaDB], library: Path
) -> None:
    server = start_mariadb()
    load(server, library)
    with BadServer(answering(CREATED, wait_for_the_end)) as bad, server.connect() as connection:
        session = Session(connection)
        session.value("select gman_servers_set(%s)", bad.address)
        assert session.value("select gman_option_set('locked', 1)") == b"1"
        for call in ("gman_servers_set('')", "gman_option_set('timeout', 1)", "gman_option_set('locked', 0)"):
            assert "servers and options are locked" in session.error(f"select {call}")
        waiting = threading.Thread(target=lambda: session.error("select gman_do('f', '')"))
        waiting.start()
        while bad.connections == 0:
            pass
        with within(10):
            assert server.stop() == 0
        waiting.join(10)


def test_fuzzed_answers_never_end_the_server(hasty: Session, loaded: MariaDB) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    for option in ("connect_timeout", "background_timeout", "timeout"):
        hasty.value("select gman_option_set(%s, 0.05)", option)
    hasty.value("select gman_option_set('back_off', 0)")
    calls = [
        "gman_do('f', 'x')",
        "gman_do_background('f', 'x')",
        "gman_sum('f', 1)",
        "gman_status('H:x:1')",
        "gman_servers_check()",
    ]
    for _ in range(10):
        with BadServer(bad_server.random_answers(dice.randrange(2**32))) as bad:
            hasty.value("select gman_servers_set(%s)", bad.address)
            for _ in range(10):
                with within(0.2):
                    hasty.rows(f"select {dice.choice(calls)}")
    assert loaded.is_running(), f"seed {seed}"


def test_fuzzed_arguments_never_end_the_server(session: Session, loaded: MariaDB, stock_gearmand: Gearmand) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    names = ["gman_do", "gman_do_background", "gman_do_epoch", "gman_status", "gman_sum", "gman_servers_check", "gman_option_set"]
    values = ["null", "''", "'f'", "0", "-1", "1e308", "9223372036854775807", "x'00'", "x'ff00ff'", "repeat('x', 70000)"]
    values += ["'timeout'", "'errors'", "date'2026-01-01'", "true", "1.5", "(select 1)", "(1, 2)", "json_object('a', 1)", "@no"]
    for _ in range(600):
        session.value("select gman_option_set('timeout', 0.001)")  # it may have been set to an hour
        session.value("select gman_servers_set(%s)", stock_gearmand.address)
        name = dice.choice([*names, "gman_servers_set"])
        call = f"{name}({', '.join(dice.choice(values) for _ in range(dice.randrange(6)))})"
        with suppress(mysql.connector.errors.DatabaseError):
            session.rows(f"select {call}")
    assert loaded.is_running(), f"seed {seed}"
    for function in values:
        with suppress(mysql.connector.errors.DatabaseError):
            session.rows(f"select gman_servers_set(null, {function})")


@pytest.mark.parametrize(
    "servers",
    [
        "a b",
        "a:",
        "a:0",
        "a:65536",
        "a:b",
        ":4730",
        "a:1:2",
        "[::1",
        "::1",
        "[]",
        "a:1,b:x",
        "a/b",
        "ü",
        "x" * 254,
        ",".join("abcdefg" * 10),
    ],
)
def test_a_list_of_servers_that_is_none_is_an_sql_error(session: Session, servers: str) -> None:
    assert session.error("select gman_servers_set(%s)", servers).startswith("1105")


def test_servers_can_be_set_for_one_function(hasty: Session, stock_gearmand: Gearmand) -> None:
    assert hasty.value("select gman_servers_set('127.0.0.1:1')") == b"127.0.0.1:1"
    assert hasty.value("select gman_servers_set(%s, 'here')", stock_gearmand.address) == stock_gearmand.address.encode()
    assert hasty.value("select gman_do_background('here', '')").startswith(b"H:")
    assert hasty.value("select gman_do_background('there', '')") is None
    assert [row["reachable"] for row in json.loads(hasty.value("select gman_servers_check('here')"))] == [True]
    hasty.value("select gman_servers_set(null, 'here')")
    assert hasty.value("select gman_do_background('here', '')") is None


def test_status_asks_the_servers_of_all_functions(session: Session, stock_gearmand: Gearmand) -> None:
    session.value("select gman_servers_set(%s, 'here')", stock_gearmand.address)
    handle = session.value("select gman_do_background('here', '')").decode()
    assert json.loads(session.value("select gman_status(%s)", handle))["known"] is True
    with BadServer(hang) as bad:
        session.value("select gman_option_set('connect_timeout', 0.3)")
        session.value("select gman_servers_set(%s)", f"{bad.address},{stock_gearmand.address}")
        session.value("select gman_servers_set(%s, 'there')", bad.address)
        assert json.loads(session.value("select gman_status(%s)", handle))["known"] is True
        assert session.value("select gman_status('H:nobody:1')") is None
        assert f"{bad.address}: no answer in time (tried again in" in session.warning()
        assert bad.connections == 1
    for function in ("here", "there"):
        session.value("select gman_servers_set(null, %s)", function)


def test_a_check_of_many_servers_ends_at_the_timeout(session: Session) -> None:
    for option in ("connect_timeout", "background_timeout"):
        session.value("select gman_option_set(%s, 1)", option)
    with ExitStack() as stack:
        silent = [stack.enter_context(BadServer(hang)).address for _ in range(4)]
        session.value("select gman_servers_set(%s)", ",".join(silent))
        with within(1):
            checked = json.loads(session.value("select gman_servers_check()"))
    assert [row["error"] for row in checked] == ["no answer in time"] * 4


def test_servers_are_checked(session: Session, stock_gearmand: Gearmand) -> None:
    session.value("select gman_option_set('connect_timeout', 1)")
    with BadServer(hang) as bad:
        session.value("select gman_servers_set(%s)", f"{stock_gearmand.address},{bad.address}, 127.0.0.1:1,[::1]:1")
        good, hanging, closed, sixth = json.loads(session.value("select gman_servers_check()"))
    assert good["server"] == stock_gearmand.address
    assert good["reachable"] is True
    assert good["version"].startswith("1.1")
    assert good["milliseconds"] > 0
    assert good["error"] is None
    assert hanging["error"] == "no answer in time"
    assert closed["error"] == "Connection refused"
    assert sixth["server"] == "[::1]:1"
    assert not any(row["reachable"] for row in (hanging, closed, sixth))


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("timeout", "2.5", b"2.5"),
        ("connect_timeout", 1, b"1"),
        ("errors", "error", b"error"),
        ("result_max", 1024, b"1024"),
        ("back_off", 0, b"0"),
    ],
)
def test_options_are_set_and_shown(session: Session, name: str, value: object, shown: bytes) -> None:
    assert session.value("select gman_option_set(%s, %s)", name, value) == shown
    assert session.value("select gman_option_set(%s)", name) == shown
    assert session.value("select gman_option_set(%s, null)", name) == session.value("select gman_option_set(%s)", name) != shown


@pytest.mark.parametrize(
    ("name", "value"),
    [("timeout", "0"), ("timeout", "-1"), ("timeout", "nan"), ("timeout", "inf"), ("timeout", ""), ("timeout", "1 s"),
     ("timeout", "9" * 100), ("errors", "none"), ("result_max", "0"), ("result_max", str(2**31)),
     ("locked", "2"), ("", "1"), (None, "1")],
)  # fmt: skip
def test_an_option_that_cannot_be_is_an_sql_error(session: Session, name: object, value: str) -> None:
    assert session.error("select gman_option_set(%s, %s)", name, value).startswith("1105")
