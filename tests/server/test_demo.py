"""The demo refuses what would spoil it. What it shows when nothing does is for `./dev demo`."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from examples import demo
from tests.server_process import ServerProcess


def test_a_server_of_an_earlier_demo_is_named(server: ServerProcess) -> None:
    with pytest.raises(demo.DemoError, match=rf"at {server.address}, .* kill {server.process.pid}$"):
        demo.refuse_other_servers(server.dsn, Path("data"))
    server.process.send_signal(signal.SIGKILL)
    server.process.wait()
    demo.refuse_other_servers(server.dsn, Path("data"))


def test_a_database_without_the_schema_is_no_obstacle(empty_dsn: str) -> None:
    demo.refuse_other_servers(empty_dsn, Path("data"))
