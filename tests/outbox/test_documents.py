"""What docs/mysql.md says can be done."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import psycopg
import pytest

from postgear import cli
from postgear.outbox.connecting import Address
from postgear.outbox.relay import Settings, run
from tests.outbox.conftest import ask, jobs

PAGE = (Path(__file__).parents[2] / "docs" / "mysql.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("command", re.findall(r"^\$ (postgear .*)$", PAGE, re.MULTILINE))
def test_commands_have_words_that_there_are(command: str) -> None:
    assert cli._parser().parse_args(shlex.split(command)[1:]).run


def test_the_trigger_of_the_page(outbox: Address, session: Any, dsn: str, queue: psycopg.Connection[Any]) -> None:
    """The classic one with the one change, and the command's."""
    (classic,) = re.findall(r"create trigger .*?;", PAGE)[:1] or re.findall(r"(create trigger.*?);", PAGE, re.DOTALL)[:1]
    (change,) = re.findall(r"^ +set @job = .*, null\);$", PAGE, re.MULTILINE)
    ask(session, "create table article (id int primary key, title text, body text)")
    ask(session, classic.partition("set @job")[0] + change.strip().rstrip(";"))
    (command,) = re.findall(r"^\$ (postgear mysql trigger .*)$", PAGE, re.MULTILINE)
    url = f"mysql://root@localhost/{outbox.database}?unix_socket={outbox.options['unix_socket']}"
    assert cli.main([*shlex.split(command)[1:], "--mysql", url]) == 0
    ask(session, "insert into article values (7, 'a', 'b')")
    run(outbox, dsn, Settings(once=True))
    assert sorted(jobs(queue)) == [("index", b'{"id": 7, "title": "a"}'), ("index", b'{"id": 7}')]
