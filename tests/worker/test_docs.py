"""The code of docs/workers.md runs as it stands there."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from pathlib import Path
from typing import Any

import pytest

from postgear.worker.runner import Worker
from tests.server.bytes import Packet
from tests.worker.conftest import Client, running

PAGE = Path(__file__).parents[2] / "docs" / "workers.md"


def run(heading: str, server: Any, **names: Any) -> dict[str, Any]:
    """Run the Python blocks of a section against a server and return their names."""
    sections = re.split(r"^#+ (.*)\n", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    blocks = re.findall(r"```python\n(.*?)```", sections[sections.index(heading) + 1], re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block.replace("localhost:4730", server.address), f"{PAGE.name}, {heading}", "exec"), names)
    return names


def test_the_first_lines(shared_server: Any, client: Client) -> None:
    names = run("Workers", shared_server)
    with running(names["worker"]):
        assert client.do("index", b'{"id":1,"title":"one"}') == Packet("WORK_COMPLETE", b"ONE")


def test_functions(shared_server: Any, client: Client) -> None:
    names = run("Functions", shared_server)
    with running(names["worker"]):
        said = client.end(client.start("thumbnails", b"a"))
    assert said[:-1] == [Packet("WORK_STATUS", b"%d\x003" % number) for number in (1, 2, 3)]
    assert json.loads(said[-1].body) == ["a#0", "a#1", "a#2"]


def test_hooks(shared_server: Any, client: Client, name: str, caplog: pytest.LogCaptureFixture) -> None:
    worker: Worker = run("Hooks", shared_server)["worker"]
    worker.function(name)(lambda payload: payload)
    with caplog.at_level(logging.INFO), running(worker):
        handle = client.start(name)
        client.end(handle)
    lines = [record.getMessage() for record in caplog.records if record.name == "root"]
    assert lines == [f"begin {handle.decode()}", f"end {handle.decode()} None"]


def test_the_worker(shared_server: Any, client: Client) -> None:
    ended = []

    async def rest_of_the_program() -> None:
        ended.append(await asyncio.to_thread(client.do, "reverse", b"abc"))

    names = run("The worker", shared_server, rest_of_the_program=rest_of_the_program)
    assert ended == [Packet("WORK_COMPLETE", b"cba")]
    assert [str(address) for address in names["worker"].servers] == ["queue1:4730", "queue2:4730"]
