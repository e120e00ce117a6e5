"""Between the slots of a worker and where its jobs come from: a server (``wire_source``), the database (``database_source``).

All of it happens in one event loop. A source takes jobs only for slots that it has reserved, so that several sources never
bring more jobs than there are slots.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from postgear.functions import Handler
from postgear.wire.packet import PacketType

from .job import Job

Handlers = Mapping[str, Handler[Any, Any, Any, Any]]


class Slots(Protocol):
    """What a worker has for its sources."""

    handlers: Handlers

    def reserve(self, wanted: int) -> int:
        """Reserve up to *wanted* free slots and return how many; 0 while the worker drains."""

    def release(self, count: int) -> None:
        """Give reserved slots back unused."""

    def assign(self, job: Job) -> None:
        """Run a job in a reserved slot; the slot is free again when the job has ended."""


class Source(Protocol):
    """Where jobs come from."""

    name: str
    """For messages: ``host:port``, or ``database``."""

    async def run(self) -> None:
        """Bring jobs until ``close``: connects, and connects again after a loss. Returns only when closed."""

    def pull(self) -> None:
        """Learn that slots have become free: reserve as many as there is use for."""

    def abilities_changed(self) -> None:
        """Learn that the worker's handlers are others now."""

    def stop_taking(self) -> None:
        """Take no more jobs; those assigned, or that a server is assigning at this moment, still run."""

    @property
    def is_settled(self) -> bool:
        """Whether nothing is on its way any more: no reservation is held, and every end of a job has been sent or stored."""

    async def close(self) -> None:
        """End; jobs that have not ended go back to the queue."""

    def report(self, job: Job, kind: PacketType, arguments: tuple[bytes, ...]) -> None:
        """Pass on WORK_STATUS, WORK_DATA or WORK_WARNING of a job."""

    def complete(self, job: Job, result: bytes) -> None:
        """End a job as done."""

    def fail(self, job: Job, exception: bytes) -> None:
        """End a job as failed, with what is to be said about it; empty: nothing."""

    def retry(self, job: Job, delay_seconds: float) -> bool:
        """Put a job that failed back into the queue, not before a time; False: this source cannot, run it again here."""
