"""A job as its handler sees it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from postgear.newjob import encode_payload
from postgear.wire.packet import PacketType

if TYPE_CHECKING:
    import psycopg

    from postgear.functions import Handler

    from .sources import Origin


class Job:
    """One delivery of a job. Its methods may be called from the handler's thread or its coroutine, until the handler returns.

    attempt: 1 for the first run, None where it is not known (Gearman does not tell it). connection: with
    ``transactional=True`` the connection whose transaction completes the job.
    """

    __slots__ = (
        "_report",
        "attempt",
        "connection",
        "function",
        "handle",
        "handler",
        "id",
        "is_ended",
        "origin",
        "reducer",
        "unique",
        "workload",
    )

    def __init__(
        self,
        handler: Handler[Any, Any, Any, Any],
        handle: str,
        workload: bytes,
        report: Callable[[Job, PacketType, tuple[bytes, ...]], None],
        origin: Origin,
        *,
        unique: str = "",
        reducer: str = "",
        attempt: int | None = None,
        job_id: int = 0,
    ) -> None:
        self.handler = handler
        self.function = handler.name
        self.handle = handle
        self.workload = workload
        self.unique = unique
        self.reducer = reducer
        self.attempt = attempt
        self.origin = origin
        self.id = job_id  # of the row, where the worker is on the database
        self.connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any] | None = None
        self.is_ended = False
        self._report = report

    def __repr__(self) -> str:
        return f"<Job {self.handle} of {self.function} from {self.server}>"

    @property
    def server(self) -> str:
        """Where it came from: ``host:port``, or ``database``."""
        return self.origin.name

    @property
    def possible_duplicate(self) -> bool:
        """Whether it is known that the job may have run before."""
        return self.attempt is not None and self.attempt > 1

    def status(self, numerator: int, denominator: int) -> None:
        """Say how far the job is, for clients that wait and for those that ask."""
        self._report(self, PacketType.WORK_STATUS, (b"%d" % numerator, b"%d" % denominator))

    def data(self, data: object) -> None:
        """Send a part of the result now; bytes, str or anything that can be JSON.

        In a thread it waits while the server is slow to take it; an async handler that sends much awaits ``drain`` in between.
        """
        self._report(self, PacketType.WORK_DATA, (encode_payload(data),))

    def warning(self, text: str | bytes) -> None:
        """Tell waiting clients that something is not as it should be."""
        self._report(self, PacketType.WORK_WARNING, (encode_payload(text),))

    def exception(self, text: str | bytes) -> None:
        """End the job as failed with this text; what the handler returns or raises afterwards does not count."""
        self._report(self, PacketType.WORK_EXCEPTION, (encode_payload(text),))

    async def drain(self) -> None:
        """Wait, in an async handler, until the server has taken most of what was sent; at once where it keeps up."""
        if self.origin.is_congested:
            await self.origin.drained()
