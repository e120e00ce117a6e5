"""What mypy says about handlers: they keep their types, for whoever calls them and for clients that give them as a function."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PROGRAM = """
from dataclasses import dataclass
import psycopg
from postgear import AsyncWorker, Client, Job, Worker

@dataclass
class Article:
    id: int

worker = Worker()
client = Client()
article = Article(1)

@worker.function("plain", timeout=30, retries=3)
def plain(article: Article) -> str:
    return ""

@worker.function("with_job")
def with_job(article: Article, job: Job) -> str:
    return job.handle

@worker.function()
async def in_loop(article: Article) -> str:
    return ""

@AsyncWorker().function("in_loop_with_job")
async def in_loop_with_job(article: Article, job: Job) -> str:
    await job.drain()
    return ""

@worker.function("in_transaction")
def in_transaction(article: Article, job: Job) -> None:
    connection: psycopg.Connection[tuple[object, ...]] = job.connection
    connection.execute("select 1")

@worker.before
def before(job: Job) -> None: ...

@worker.after
async def after(job: Job, error: BaseException | None) -> None: ...

async def main(job: Job) -> None:
    called: str = plain(article)
    called = with_job(article, job)
    called = await in_loop(article)
    called = await in_loop_with_job(article, job)
    done: str = client.do(plain, article)
    done = client.do(with_job, article)
    done = client.do(in_loop, article)
    done = client.do(in_loop_with_job, article)
"""

WRONG = [
    "client.do(plain, 1)",
    "client.do(with_job, b'')",
    "client.do(in_loop, 'no article')",
    "client.do(in_loop_with_job, None)",
    "plain(1)",
    "x: int = client.do(in_loop, article)",
    "worker.function(5)",
    "worker.function('f', retrys=1)",
    "Worker(concurrency='2')",
]


@pytest.mark.timeout(180)
def test_mypy_keeps_the_types_of_handlers(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM + "\n".join(WRONG) + "\n")
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", f"--cache-dir={tmp_path}", str(program)]
    run = subprocess.run(command, cwd=ROOT, env={"MYPYPATH": "server"}, capture_output=True, text=True, check=False)
    lines = {int(line.split(":")[1]) for line in run.stdout.splitlines() if ": error:" in line}
    first = PROGRAM.count("\n") + 1
    assert lines == set(range(first, first + len(WRONG))), run.stdout + run.stderr
