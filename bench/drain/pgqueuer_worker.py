"""pgqueuer's worker. Usage: pgqueuer_worker DSN"""

from __future__ import annotations

import sys

import asyncpg
import uvloop
from pgqueuer import AsyncpgDriver, PgQueuer
from pgqueuer.models import Job
from psycopg.conninfo import conninfo_to_dict

from bench.drain.progress import Progress

_BATCH_SIZE = 500


def main() -> None:
    """Run until killed."""
    progress = Progress()

    async def run() -> None:
        found = conninfo_to_dict(sys.argv[1])
        connection = await asyncpg.connect(
            host=found["host"], port=int(str(found["port"])), user=found["user"], database=found["dbname"]
        )
        queue = PgQueuer(AsyncpgDriver(connection))

        @queue.entrypoint("index")
        async def index(job: Job) -> None:
            progress.tick()

        await queue.run(batch_size=_BATCH_SIZE, max_concurrent_tasks=4 * _BATCH_SIZE)

    uvloop.run(run())


if __name__ == "__main__":
    main()
