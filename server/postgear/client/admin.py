"""What the admin commands of a Gearman server answer, as values.

Takes the lines that ``operations.admin_command`` returns; reads those of gearmand and of postgear, which are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from postgear.errors import ServerError


class FunctionStatus(NamedTuple):
    """Jobs and workers of a function; the three priorities count queued jobs only, *total* all of them."""

    function: str
    high: int
    normal: int
    low: int
    running: int
    workers: int
    total: int


class WorkerStatus(NamedTuple):
    """A connection and its abilities; *client_id* is ``-`` until it says another."""

    fd: int
    address: str
    client_id: str
    functions: list[str]


class JobStatus(NamedTuple):
    """A job the server holds; *ignored*: cancelled or abandoned, it will not run."""

    handle: str
    retries: int
    ignored: bool
    queued: bool


def parse_status(status: Sequence[str], priorities: Sequence[str]) -> list[FunctionStatus]:
    """Merge the answers of ``status`` and ``prioritystatus``, by function, sorted by name.

    The two are taken one after the other, so that their counts may differ by the jobs that came between.
    """
    queued = {}
    for line in priorities:
        function, high, normal, low, _workers = _columns(line, 5)
        queued[function] = (int(high), int(normal), int(low))
    rows = []
    for line in status:
        function, total, running, workers = _columns(line, 4)
        high_normal_low = queued.get(function, (0, 0, 0))
        rows.append(FunctionStatus(function, *high_normal_low, int(running), int(workers), int(total)))
    return sorted(rows)


def parse_workers(lines: Sequence[str]) -> list[WorkerStatus]:
    """Read ``workers``: ``fd address id : functions``. An id may hold spaces, an address colons."""
    rows = []
    for line in lines:
        about, colon, functions = (line + " ").partition(" : ")
        fd, _, rest = about.partition(" ")
        address, _, client_id = rest.partition(" ")
        if not colon or not fd.isdigit():
            raise ServerError(f"not a line of workers: {line!r}")
        rows.append(WorkerStatus(int(fd), address, client_id, functions.split()))
    return rows


def parse_jobs(lines: Sequence[str]) -> list[JobStatus]:
    """Read ``show jobs``."""
    rows = []
    for line in lines:
        handle, retries, ignored, queued = _columns(line, 4)
        rows.append(JobStatus(handle, int(retries), ignored != "0", queued != "0"))
    return rows


def _columns(line: str, count: int) -> list[str]:
    columns = line.rsplit("\t", count - 1)
    if len(columns) != count or not all(column.isdigit() for column in columns[1:]):
        raise ServerError(f"not a line of {count} columns: {line!r}")
    return columns
