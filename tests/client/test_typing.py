"""What mypy says about code that uses the clients: typed use is accepted, a wrong payload is not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PROLOGUE = """
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from postgear import AsyncClient, AsyncTaskSet, Client, Function, NewJob, Task, TaskSet, connect

@dataclass
class Article:
    id: int

index = Function("index", Article, str)
raw = Function("raw")
client = Client()
article = Article(1)
"""

RIGHT = """
a: str = client.do(index, article)
b: bytes = client.do("index", {"any": "thing"})
c: bytes = client.do(raw, b"bytes")
d: str = client.submit(index, article, unique="a:1", priority="high", delay=5)
e: Iterator[str] = client.map(index, [article], in_flight=5)
f: Iterator[bytes] = client.map("index", [1, "two", None])
g: list[str] = client.submit_many([NewJob(index, article), ("index", {"id": 1})])
h: Task[str] = TaskSet(client).add(index, article)
i: bool = client.status("H:x:1").running
j: str = connect("").submit(index, article)

async def main(client: AsyncClient) -> None:
    a: str = await client.do(index, article)
    b: bytes = await client.do("index", b"")
    c: AsyncIterator[str] = client.map(index, [article])
    async for text in client.map(index, [article]):
        text.upper()
    d: Task[str] = AsyncTaskSet(client).add(index, article)
    e: str = await client.submit(index, article)
"""

WRONG = [
    'client.do(index, "no article")',
    "client.do(index)",
    "client.do(raw, article)",
    'client.submit(index, {"id": 1})',
    "client.map(index, [1])",
    'TaskSet(client).add(index, b"bytes")',
    'connect("").submit(index, 5)',
    "x: bytes = client.do(index, article)",
    "client.do(5, b'')",
    "client.do(index, article, priorty='high')",
]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mypy")


def mypy(folder: Path, cache: Path, code: str) -> subprocess.CompletedProcess[str]:
    program = folder / "program.py"
    program.write_text(PROLOGUE + code)
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", f"--cache-dir={cache}", str(program)]
    return subprocess.run(command, cwd=ROOT, env={"MYPYPATH": "server"}, capture_output=True, text=True, check=False)


@pytest.mark.timeout(180)
def test_mypy_accepts_right_and_rejects_wrong_types(tmp_path: Path, cache: Path) -> None:
    accepted = mypy(tmp_path, cache, RIGHT)
    assert accepted.returncode == 0, accepted.stdout + accepted.stderr
    lines = (PROLOGUE + "\n".join(WRONG)).count("\n") + 1
    first = lines - len(WRONG) + 1
    rejected = mypy(tmp_path, cache, "\n".join(WRONG))
    wrong = {int(line.split(":")[1]) for line in rejected.stdout.splitlines() if ": error: " in line}
    assert wrong == set(range(first, lines + 1)), rejected.stdout
