"""A worker straight on the database, in a process of its own: ``program.py DSN CONCURRENCY``."""

from __future__ import annotations

import logging
import sys
import threading
from typing import Any

import psycopg

from postgear.worker.job import Job
from postgear.worker.runner import Worker

logging.basicConfig(level=logging.INFO, stream=sys.stderr)
worker = Worker(dsn=sys.argv[1], concurrency=int(sys.argv[2]))
ADD = "insert into effect (payload) values (%s)"


@worker.function("effect", transactional=True)
def add_effect(payload: str, job: Job) -> None:
    """Write a row, in the job's own transaction."""
    connection: psycopg.Connection[Any] = job.connection  # type: ignore[assignment]
    connection.execute(ADD, [payload])


@worker.function("effect_async", transactional=True)
async def add_effect_async(payload: str, job: Job) -> None:
    """Do the same in the loop."""
    connection: psycopg.AsyncConnection[Any] = job.connection  # type: ignore[assignment]
    await connection.execute(ADD, [payload])


@worker.function("seen")
def note_seen(payload: str) -> None:
    """Write a row outside of any transaction of the job's."""
    with psycopg.connect(sys.argv[1], autocommit=True) as connection:
        connection.execute(ADD, [payload])


@worker.function("hang")
def hang(payload: str) -> None:
    """Write a row and never end."""
    note_seen.call(payload)
    threading.Event().wait()


if __name__ == "__main__":
    worker.run()
