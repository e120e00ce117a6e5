"""procrastinate's worker. Usage: procrastinate_worker DSN"""

from __future__ import annotations

import asyncio
import sys

import procrastinate

from bench.drain.progress import Progress

_CONCURRENCY = 30


def main() -> None:
    """Run until killed. Done jobs are deleted, as the others do."""
    progress = Progress()
    app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=sys.argv[1]))

    @app.task(name="index")
    async def index(body: str) -> None:
        progress.tick()

    async def run() -> None:
        async with app.open_async():
            await app.run_worker_async(concurrency=_CONCURRENCY, delete_jobs="always", install_signal_handlers=False)

    asyncio.run(run())


if __name__ == "__main__":
    main()
