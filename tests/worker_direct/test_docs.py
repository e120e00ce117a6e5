"""The code of docs/direct-workers.md runs as it stands there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.worker.conftest import running
from tests.worker_direct.conftest import Database

PAGE = Path(__file__).parents[2] / "docs" / "direct-workers.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def run(block: str, database: Database) -> Any:
    """Run a block of the page on the test's database and return its worker, which is not started."""
    names: dict[str, Any] = {}
    exec(compile(block.replace("host=db dbname=shop", database.dsn).replace("worker.run()", ""), PAGE.name, "exec"), names)
    return names["worker"]


def test_the_first_lines(database: Database, capsys: pytest.CaptureFixture[str]) -> None:
    first, _ = BLOCKS
    database.queue("index", '{"title": "one"}')
    with running(run(first, database)):
        database.wait_empty()
    assert capsys.readouterr().out == "one\n"


def test_exactly_once(database: Database) -> None:
    _, second = BLOCKS
    database.rows("create table account (id integer, balance integer)")
    database.rows("insert into account values (1, 10), (2, 10)")
    database.queue("charge", '{"account": 1, "total": 3}')
    with running(run(second, database)):
        database.wait_empty()
    assert database.rows("select balance from account order by id") == [(7,), (10,)]
