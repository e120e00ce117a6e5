"""Python clients that run foreground jobs, so many at a time. Prints {"jobs", "seconds"}.

Usage: map LIBRARY PORT JOBS IN_FLIGHT; LIBRARY: postgear (``Client.map``), pygearman (``submit_multiple_jobs``).
"""

from __future__ import annotations

import json
import sys
import time

FUNCTION = "bench"
WORKLOAD = b"x" * 100
_TIMEOUT_SECONDS = 120.0


def _postgear(address: str, jobs: int, in_flight: int) -> int:
    from postgear import Client

    with Client(address) as client:
        return sum(
            1 for _ in client.map(FUNCTION, (WORKLOAD for _ in range(jobs)), in_flight=in_flight, timeout=_TIMEOUT_SECONDS)
        )


def _pygearman(address: str, jobs: int, in_flight: int) -> int:
    import gearman  # type: ignore[import-untyped]

    client = gearman.GearmanClient([address])
    completed = 0
    for sent in range(0, jobs, in_flight):
        batch = [{"task": FUNCTION, "data": WORKLOAD} for _ in range(min(in_flight, jobs - sent))]
        requests = client.submit_multiple_jobs(batch, poll_timeout=_TIMEOUT_SECONDS)
        completed += sum(request.state == gearman.JOB_COMPLETE for request in requests)
    return completed


def main() -> None:
    """Run the jobs."""
    library, port, jobs, in_flight = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    run = {"postgear": _postgear, "pygearman": _pygearman}[library]
    started = time.monotonic()
    completed = run(f"127.0.0.1:{port}", jobs, in_flight)
    seconds = time.monotonic() - started
    if completed != jobs:
        sys.exit(f"{completed} of {jobs} jobs completed")
    print(json.dumps({"jobs": jobs, "seconds": seconds}))


if __name__ == "__main__":
    main()
