"""A worker straight on the database: ``python -m tests.failover.chaos.direct_worker NAME JOURNAL DSN``, until it is killed.

Each job has an effect, a row of ``chaos.effect`` in the transaction that ends the job: there must be one for each job done here.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import psycopg

from postgear import Job, Worker, logs
from tests.failover.chaos.records import ENDED, STARTED, Journal, milliseconds
from tests.failover.chaos.worker import FUNCTION, token_of


def main(name: str, journal_path: str, dsn: str) -> None:
    """Run jobs until killed."""
    logs.configure("INFO", "text", None)
    journal = Journal(journal_path)
    worker = Worker(dsn=dsn, concurrency=2, client_id=name)

    # A full disk makes the handler fail; without retries the job would leave the queue.
    @worker.function(FUNCTION.decode(), transactional=True, retries=100)
    def run(workload: bytes, job: Job) -> None:
        token = token_of(workload)
        journal.write(time.monotonic(), STARTED, token, job.handle, time.time())
        time.sleep(milliseconds(token) / 1000)
        connection: psycopg.Connection[Any] = job.connection  # type: ignore[assignment]
        connection.execute("insert into chaos.effect (handle) values (%s)", (job.handle,))
        journal.write(time.monotonic(), ENDED, token, job.handle)

    worker.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
