"""Between the slots of a worker and where its jobs come from: servers (``wire_source``), the database (``database_source``).

All of it happens in one event loop, unless a method says otherwise. A source takes jobs only for slots that it has reserved, so
that several sources never bring more jobs than there are slots.

A job's way: ``Slots.reserve``, then ``Slots.assign``; at its end one of ``Origin.complete``, ``fail``, ``retry`` or one of the
``run_transaction`` methods; or ``Slots.lose``, after which nothing more is said about it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from postgear.functions import Handler
from postgear.wire.packet import PacketType

from .job import Job

Handlers = Mapping[str, Handler[Any, Any, Any, Any]]


class Slots(Protocol):
    """What a worker has for its sources."""

    @property
    def handlers(self) -> Handlers:
        """What this worker can do; replaced as a whole, never changed in place."""

    def reserve(self, wanted: int) -> int:
        """Reserve up to *wanted* free slots and return how many; 0 while the worker drains."""

    def release(self, count: int) -> None:
        """Give reserved slots back unused."""

    def assign(self, job: Job) -> None:
        """Run a job in a reserved slot; the slot is free again when the job has ended."""

    def lose(self, job: Job) -> None:
        """Learn that an assigned job is another's now: an async handler is cancelled, a thread goes on, the result is dropped."""

    def ready(self) -> None:
        """Learn that a source can bring jobs: it is connected and has said what the worker can do."""

    def report(self, job: Job, kind: PacketType, arguments: tuple[bytes, ...]) -> None:
        """What a source gives to ``Job`` for its reports; from any thread."""


class Origin(Protocol):
    """Where one job came from and where its end is told: one connection to a server, or the database.

    What is said of a job that is not held any more, because it was lost, is dropped.
    """

    name: str
    """For messages: ``host:port``, or ``database``."""

    is_congested: bool
    """Whether so much waits to be sent that whoever reports should wait for ``drained``. May be read from any thread."""

    async def drained(self) -> None:
        """Wait until ``is_congested`` is over."""

    def report(self, job: Job, kind: PacketType, arguments: tuple[bytes, ...]) -> None:
        """Pass on WORK_STATUS, WORK_DATA or WORK_WARNING."""

    def complete(self, job: Job, result: bytes) -> None:
        """End a job as done."""

    def fail(self, job: Job, exception: bytes) -> None:
        """End a job as failed, with what is to be said about it; empty: nothing."""

    def retry(self, job: Job, delay_seconds: float) -> bool:
        """Put a job that failed back into the queue, not before a time; False: this origin cannot, run it again here."""

    def run_transaction(self, job: Job, call: Callable[[], bytes]) -> None:
        """Run *call*, in the handler's thread, with ``job.connection`` in a transaction that also ends the job as done.

        call: the handler; returns the encoded result. What it raises rolls back and comes out: the job fails like any other.
        Raises JobLost, with everything rolled back, where the job is another's now, and StoreInDoubt where the commit was
        sent and its outcome is not known: in both cases nothing more is said about the job.
        """

    async def run_transaction_async(self, job: Job, call: Callable[[], Awaitable[bytes]]) -> None:
        """Do the same in the loop, for an async handler."""


class Source(Protocol):
    """Where jobs come from."""

    name: str
    """For messages: ``host:port``, or ``database``."""

    async def run(self) -> None:
        """Bring jobs until ``close``: connects, and connects again after a loss. Returns only when closed."""

    def pull(self) -> None:
        """Learn that slots have become free: reserve as many as there is use for."""

    def abilities_changed(self) -> None:
        """Learn that ``Slots.handlers`` is another now."""

    def stop_taking(self) -> None:
        """Take no more jobs; those assigned, or that a server is assigning at this moment, still run."""

    async def settle(self) -> None:
        """Wait until every end of a job has arrived where it belongs; called after ``stop_taking``, when no slot is in use."""

    async def close(self) -> None:
        """End; jobs that have not ended go back to the queue."""
