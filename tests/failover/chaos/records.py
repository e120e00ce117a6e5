"""What producers and workers write down while they run, and how it is read: one short line an event, by one write(2).

A line is in the kernel before the next step is taken, so a process killed by SIGKILL has told all that it did. Times are
CLOCK_MONOTONIC, which all processes of a machine share.

A token names one wish for a job: ``PRODUCER.NUMBER.MILLISECONDS``, the last being how long a worker shall take for it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ASKED = "asked"  # token, unique or -, time of day before which it must not start or 0
ACKED = "acked"  # token, handle
REFUSED = "refused"  # token: an ERROR came, or the commit failed or warned; it may be stored or not
ROLLED_BACK = "rolled-back"  # token
STARTED = "started"  # token, handle, time of day
ENDED = "ended"  # token, handle: the completion was sent


class Record(NamedTuple):
    """One event."""

    at: float
    kind: str
    fields: list[str]


class Journal:
    """A file that one process appends to."""

    def __init__(self, path: str) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def write(self, at: float, kind: str, *fields: object) -> None:
        """Append one event."""
        os.write(self._descriptor, " ".join(map(str, (at, kind, *fields))).encode() + b"\n")


def read(path: Path) -> Iterator[Record]:
    """Yield the events of a file."""
    with path.open() as lines:
        for line in lines:
            at, kind, *fields = line.split()
            yield Record(float(at), kind, fields)


def milliseconds(token: str) -> int:
    """Return how long the job shall take."""
    return int(token.rpartition(".")[2])
