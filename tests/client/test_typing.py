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
from typing import Any
import psycopg
from postgear import AsyncClient, AsyncTaskSet, Client, Function, NewJob, Task, TaskSet, connect
from postgear import enqueue, enqueue_async, enqueue_many, enqueue_many_async

@dataclass
class Article:
    id: int

index = Function("index", Article, str)
raw = Function("raw")
client = Client()
article = Article(1)
connection = psycopg.connect()
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
k: Function[str | None, str] = Function("k", str | None, str)
l: str = client.do(k, None)
m: str = enqueue(connection, index, article, unique="a:1")
n: str = enqueue(connection, "index", {"id": 1})
o: list[str] = enqueue_many(connection, [NewJob(index, article), ("index", {"id": 1}, "unique"), (b"other",)])
p: list[str] = enqueue_many(connection, (NewJob(index, Article(number), priority="high") for number in range(9)))
q: list[str] = client.submit_many([(index, article, "a:1", "low"), (index, Article(2), "a:2", "low")])
r: list[str] = client.submit_many((index, Article(number)) for number in range(9))
s: list[str] = client.submit_many([NewJob(index, article), NewJob(raw, b""), NewJob(k, None), NewJob("index")])
t: list[tuple[Function[Article, str], Article]] = [(index, article)]
u: list[str] = connect("").submit_many(t)
v: str = connect("").enqueue(connection, index, article)
w: tuple[object, ...] = NewJob(index, payload=article)._replace(unique="u")

def either(function: str | Function[Article, str], any_jobs: list[tuple[Any, ...]]) -> None:
    enqueue(connection, function, article)
    client.submit_many([NewJob(function, article)])
    client.submit_many(any_jobs)

async def main(client: AsyncClient) -> None:
    a: str = await client.do(index, article)
    b: bytes = await client.do("index", b"")
    c: AsyncIterator[str] = client.map(index, [article])
    async for text in client.map(index, [article]):
        text.upper()
    d: Task[str] = AsyncTaskSet(client).add(index, article)
    e: str = await client.submit(index, article)
    f: list[str] = await client.submit_many([(index, article)])
    connection = await psycopg.AsyncConnection.connect()
    g: str = await enqueue_async(connection, index, article)
    h: list[str] = await enqueue_many_async(connection, [("index", 1), NewJob(index, article)])
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
    "client.do(k, 5)",
    "client.do(5, b'')",
    "client.do(index, article, priorty='high')",
    "enqueue(connection, index, 'no article')",
    "enqueue(connection, index)",
    "enqueue_async(connection, index, article)",
    "async def one(a: psycopg.AsyncConnection) -> None: await enqueue_async(a, index, 5)",
    "async def many(a: psycopg.AsyncConnection) -> None: await enqueue_many_async(a, [(index, 5)])",
    "async def sent(a: AsyncClient) -> None: await a.submit_many([(index, 5)])",
    "enqueue_many(connection, [(index, 'no article')])",
    "enqueue_many(connection, [NewJob(index, 'no article')])",
    "NewJob(index, {'id': 1})",
    "NewJob(index)",
    "NewJob(index, article, priorty='high')",
    "client.submit_many([NewJob(raw, article)])",
    "client.submit_many([NewJob(index, article), NewJob(index, 5)])",
    "client.submit_many([(index, 5)])",
    "client.submit_many([(index,)])",
    "client.submit_many([('index', 5), (index, 5)])",
    "client.submit_many((index, number) for number in range(9))",
    "client.submit_many([(5, article)])",
    "connect('').submit_many([(index, 5)])",
    "connect('').enqueue(connection, index, 5)",
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
