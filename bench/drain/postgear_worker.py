"""postgear's worker straight on the database. Usage: postgear_worker DSN"""

from __future__ import annotations

import sys

from bench.drain.progress import Progress
from postgear import Worker

_CONCURRENCY = 100


def main() -> None:
    """Run until killed."""
    progress = Progress()
    worker = Worker(dsn=sys.argv[1], concurrency=_CONCURRENCY)

    @worker.function("index")
    async def index(payload: bytes) -> None:
        progress.tick()

    worker.run()


if __name__ == "__main__":
    main()
