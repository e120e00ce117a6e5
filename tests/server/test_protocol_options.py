"""Connection options."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.server.bytes import Peer

Start = Callable[..., Any]
ConnectTo = Callable[[Any], Peer]


@pytest.mark.parametrize("name", [b"exceptions", b"Exceptions", b"EXCEPTIONS"])
def test_the_option_exceptions_is_echoed_as_sent(name: bytes, client: Peer) -> None:
    client.send("OPTION_REQ", name)
    client.expect("OPTION_RES", name)


@pytest.mark.parametrize("name", [b"", b"exception", b"exceptions ", b"speed", b"x" * 63, b"x" * 64, b"x" * 5000])
def test_any_other_option_is_refused_and_the_connection_stays(name: bytes, client: Peer) -> None:
    client.send("OPTION_REQ", name)
    client.expect("ERROR", b"UNKNOWN_OPTION", b"Server does not recognize given option")
    client.silent()


def test_the_option_belongs_to_one_connection(connect: Callable[[], Peer], worker: Peer, function: bytes) -> None:
    wants, wants_not = connect(), connect()
    wants.send("OPTION_REQ", b"exceptions")
    wants.expect("OPTION_RES", b"exceptions")
    handle = wants.submit("SUBMIT_JOB", function, function, b"")
    assert wants_not.submit("SUBMIT_JOB", function, function, b"") == handle
    worker.can_do(function)
    worker.grab()
    worker.send("WORK_EXCEPTION", handle, b"why")

    wants.expect("WORK_EXCEPTION", handle, b"why")
    assert wants_not.packet().name == "WORK_FAIL"


def test_the_server_s_option_exceptions_is_every_connection_s(
    start_server: Start, connect_to: ConnectTo, function: bytes
) -> None:
    server = start_server("--exceptions")
    client, worker = connect_to(server), connect_to(server)
    worker.can_do(function)
    handle = client.submit("SUBMIT_JOB", function, b"", b"")
    worker.grab()
    worker.send("WORK_EXCEPTION", handle, b"why")

    client.expect("WORK_EXCEPTION", handle, b"why")
