"""What docs and examples say about commands can be run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from postgear import cli
from tests.commands.test_worker_restart import do
from tests.commands.worker_process import WorkerProcess
from tests.server.bytes import Peer

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")


def commands() -> list[str]:
    """The commands of postgear in the page and in the unit."""
    lines = re.findall(r"^\$ (.*)$", PAGE, re.MULTILINE)
    found = [part for line in lines for part in re.findall(r"\bpostgear (?:'[^']*'|[^'|#>&])*", line)]
    unit = (ROOT / "examples" / "systemd" / "postgear-worker.service").read_text(encoding="utf-8")
    return found + re.findall(r"^ExecStart=\S*/(postgear .*)$", unit, re.MULTILINE)


@pytest.mark.parametrize("command", commands())
def test_commands_in_documents_have_words_that_there_are(command: str) -> None:
    assert cli._parser().parse_args(shlex.split(command)[1:]).run


def test_there_are_commands_in_documents() -> None:
    assert len(commands()) > 10


def test_the_worker_of_the_page_runs(start_worker: Callable[..., WorkerProcess], client: Peer, folder: Path) -> None:
    (code,) = re.findall(r"```python\n# jobs.py\n(.*?)```", PAGE, re.DOTALL)
    (folder / "jobs.py").write_text(code)
    start_worker("jobs:worker")
    assert do(client, b"reverse", b"hello") == b"olleh"
