"""The rows of workers straight on a database: how fast queued jobs are run by those of each queue, in one process or several."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import selectors
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from . import peers
from .contestants import ROOT, Place
from .process import BenchError, child, tail, wait_until
from .programs import Figures
from .queues import DIRECT, GRAPHILE, PGQUEUER, PROCRASTINATE, Queue
from .row import Figure, Loads, Row, Target

_DRAIN_TIMEOUT_SECONDS: Final = 120.0
_EMPTY_TIMEOUT_SECONDS: Final = 30.0
_FEWER: Final = {PROCRASTINATE: 3_000, PGQUEUER: 50_000}
"""Jobs of those for whom the usual number would take minutes; their rates do not grow with it."""


def _drain(place: Place, loads: Loads, processes: int) -> Figures:
    """From the first call of the function to the empty table, or to the last call, whichever is later."""
    queue = place.contestant
    assert isinstance(queue, Queue)
    jobs = min(loads.jobs, _FEWER.get(queue, loads.jobs))
    with place.connect() as connection:
        connection.execute(queue.fill.encode(), (jobs,))
        connection.execute("analyze")
    if (stored := place.stored_jobs()) != jobs:
        raise BenchError(f"{jobs} jobs were queued, {stored} are there")
    log = place.folder / "drain.log"
    log.unlink(missing_ok=True)
    command, environment = _program(place, queue)
    with contextlib.ExitStack() as stack:
        started = [stack.enter_context(child(command, log, pipes=True, environment=environment)) for _ in range(processes)]
        first, last = _watch(started, jobs, log)
        wait_until(
            lambda: place.stored_jobs() == 0,
            "the queue's getting empty",
            timeout_seconds=_EMPTY_TIMEOUT_SECONDS,
            interval_seconds=0.005,
        )
        empty = time.monotonic()
    return {"jobs": jobs, "seconds": empty - first, "called_seconds": last - first, "jobs_per_second": jobs / (empty - first)}


def _program(place: Place, queue: Queue) -> tuple[list[str], dict[str, str]]:
    """Return the command of a worker and what its environment has more."""
    if queue is GRAPHILE:
        program = ROOT / "bench" / "drain" / "graphile_worker.cjs"
        return ["node", str(program), str(peers.graphile_folder())], peers.libpq_environment(place.dsn)
    path = [str(ROOT)] if queue is DIRECT else [str(peers.python_folder()), str(ROOT)]
    return [sys.executable, "-m", f"bench.drain.{queue.drain}", place.dsn], {"PYTHONPATH": os.pathsep.join(path)}


def _watch(processes: list[subprocess.Popen[bytes]], jobs: int, log: Path) -> tuple[float, float]:
    """Read what the workers tell until all jobs have run; return the times of the first and the last."""
    told: dict[int, dict[str, float]] = {}
    deadline = time.monotonic() + _DRAIN_TIMEOUT_SECONDS
    with selectors.DefaultSelector() as selector:
        for process in processes:
            assert process.stdout is not None
            selector.register(process.stdout, selectors.EVENT_READ, process)
        while sum(each["jobs"] for each in told.values()) < jobs:
            ready = selector.select(max(0.0, deadline - time.monotonic()))
            if not ready:
                raise BenchError(f"the jobs are not done in {_DRAIN_TIMEOUT_SECONDS:g} s: {list(told.values())}")
            for key, _ in ready:
                line = key.data.stdout.readline()
                if not line:
                    raise BenchError(f"a worker ended: {tail(log)}")
                told[key.data.pid] = json.loads(line)
    return min(each["first"] for each in told.values()), max(each["last"] for each in told.values())


def _row(processes: int, title: str) -> Row:
    targets = (Target(2, PROCRASTINATE), Target(2, PGQUEUER), Target(1, GRAPHILE))
    return Row(
        f"drain-direct-{processes}",
        functools.partial(_drain, processes=processes),
        (Figure("jobs_per_second", title, "jobs/s", targets),),
        100_000,
        contestants=(DIRECT, PROCRASTINATE, PGQUEUER, GRAPHILE),
        subject=DIRECT,
    )


DIRECT_ROWS: Final = (_row(1, "drain straight from the database, 1 process"), _row(4, "… 4 processes"))
