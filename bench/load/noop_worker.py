"""postgear's worker of a function that does nothing, until it is killed. Usage: noop_worker PORT"""

from __future__ import annotations

import sys

from postgear import Worker

_CONCURRENCY = 100


def main() -> None:
    """Work."""
    worker = Worker(f"127.0.0.1:{sys.argv[1]}", concurrency=_CONCURRENCY)

    @worker.function("bench")
    async def bench(payload: bytes) -> None:
        pass

    worker.run()


if __name__ == "__main__":
    main()
