"""The code of docs/clients.md runs as it stands there."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.server.bytes import Peer
from tests.server_process import ServerProcess

PAGE = Path(__file__).parents[2] / "docs" / "clients.md"


@pytest.fixture
def address(server: ServerProcess) -> Iterator[str]:
    """A server with a worker for the functions of the page."""
    with Peer(server.host, server.port) as peer:
        peer.socket.settimeout(None)
        peer.can_do(b"wc", b"title_of")

        def work() -> None:
            try:
                while True:
                    handle, _, workload = peer.grab()
                    peer.send("WORK_STATUS", handle, b"1", b"2")
                    peer.send("WORK_COMPLETE", handle, b"%d" % len(workload.split()))
            except (OSError, AssertionError):
                pass  # the end of the test

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        yield server.address
        peer.socket.shutdown(2)
        thread.join(10)


def test_the_page_runs(address: str, dsn: str, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {"__name__": __name__, "DSN": dsn, "psycopg": psycopg}
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 6
    for number, block in enumerate(blocks, 1):
        code = block.replace("127.0.0.1:4730", address)
        exec(compile(code, f"{PAGE.name}, block {number}", "exec", dont_inherit=True), names)
    names["client"].close()
    out = capsys.readouterr().out
    assert "1/2\nb'2'\n" in out
    assert "not all have ended" not in out
    assert len(names["handles"]) == 1000
    with psycopg.connect(dsn) as connection:
        assert connection.execute("select workload from postgear.job order by id desc limit 1").fetchone() == (b'{"id":2}',)
