"""G5 order: high, normal, low, also when the jobs are in the database and claimed a few at a time."""

from __future__ import annotations

from collections.abc import Callable

from tests.server.bytes import Peer
from tests.server.load import query
from tests.server_process import ServerProcess

JOBS = 30


def test_g5_no_job_is_given_out_while_one_of_higher_priority_is_queued(
    server: ServerProcess, connect_to: Callable[[ServerProcess], Peer], dsn: str
) -> None:
    for _ in range(JOBS):
        for name in ("low_", "", "high_"):
            query(dsn, f"select gman_do_{name}background('f', {name or 'normal'!r})")
    worker = connect_to(server)
    worker.can_do(b"f")
    order = []
    for _ in range(3 * JOBS):
        handle, _function, workload = worker.grab()
        order.append(workload)
        worker.send("WORK_COMPLETE", handle, b"")

    assert order == [b"high_"] * JOBS + [b"normal"] * JOBS + [b"low_"] * JOBS
