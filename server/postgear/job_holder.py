"""What the loops of ``exchange`` ask of whoever holds claimed jobs in memory: a server's Dispatcher, or a direct worker's Desk.

The loops carry jobs from the store to the holder and their ends back; which job goes where is the holder's own affair. All calls
come from one thread, between two turns of its event loop, and none of them waits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Protocol

from .job import ClaimedJob, Ending, FunctionRow, Lane

TICK_SECONDS: Final = 0.1
"""How often ``tick`` is called."""


class JobHolder(Protocol):
    """Who holds the jobs of one lease.

    The loops take what is in the lists and dicts, and put new ones in their place:

    finishes: ended jobs, to be deleted. results: those whose results are kept, and how they have ended.
    releases: jobs that go back after somebody had them; unused: those that nobody had.
    postponed: jobs that go back to be run later, and when, in seconds of ``now``.
    attempts: how often a job was given out by now, where that happened again from memory; it is stored before a release.
    progress: the newest report of running jobs, numerator and denominator. All by the id of the row.
    """

    now: float
    """The event loop's clock, set before each ``tick``."""
    finishes: list[int]
    results: dict[int, Ending]
    releases: list[int]
    unused: list[int]
    postponed: dict[int, float]
    attempts: dict[int, int]
    progress: dict[int, tuple[int, int]]
    claim_wanted: bool
    """Something changed that makes a claim worth while; ``demands`` says which."""
    claim_limit: int | None
    """How many jobs the lanes that ``demands`` returned last are to bring altogether; None: as many as the lanes say."""
    is_behind: bool
    """More results wait to be stored than should be in memory: no jobs are taken from the database meanwhile."""
    suspended: bool
    """The lease is in doubt: jobs of the database are not given out."""
    is_lease_in_doubt: Callable[[], bool]
    """Asked before each job of the database is given out: after the process was stopped for a while, ``suspended`` comes late."""
    store_is_up: bool
    unresolved: list[Any]
    """Functions (anything with a ``name`` in bytes) whose id in the database is to be asked for, once more for known ones."""

    @property
    def functions(self) -> Mapping[bytes, Any]:
        """All functions, by name; the values are of the kind that is in ``unresolved``."""

    @property
    def has_workers(self) -> bool:
        """Whether there is anybody who could run a job: else nothing is looked for."""

    def set_queue_name(self, queue_name: str) -> None:
        """Learn the name that is in the handles of background jobs."""

    def resolved(self, rows: Iterable[FunctionRow]) -> None:
        """Learn ids and limits of functions."""

    def demands(self, *, poll: bool) -> Sequence[Lane]:
        """Return what is worth claiming; *poll*: also where the database was empty at the last look."""

    def claimed(self, lanes: Sequence[Lane], jobs: Sequence[ClaimedJob], *, cut: bool = False) -> None:
        """Take what a claim of *lanes* brought. *cut*: at its limit of bytes, so a lane that is short says nothing."""

    def claim_failed(self, lanes: Sequence[Lane]) -> None:
        """Learn that a claim brought nothing, or that what it brought was lost on its way."""

    def reopen_backlogs(self) -> None:
        """Take it that the database has jobs of every function: something was queued by others."""

    def serve_waiting(self) -> None:
        """Settle with those who wait for the database, after it came or went (``store_is_up``)."""

    def held_ids(self) -> list[int]:
        """Return the ids of all jobs of this lease in memory, those that run included."""

    def drop_held(self, ids: Iterable[int]) -> None:
        """Forget jobs that the database no longer counts as this lease's. What comes of those that run changes nothing."""

    def forget_lease(self) -> None:
        """Forget every job of the database, and all that was to be stored about them: the lease was lost."""

    def cancel(self, handle: bytes, job_id: int = 0) -> bool:
        """Drop a job by its handle or its row's id; False: it is not here."""

    def finished(self, ids: Iterable[int]) -> None:
        """Learn that jobs which were in ``finishes`` or ``results`` are gone from the database."""

    def tick(self) -> None:
        """Do what time asks for; called every TICK_SECONDS."""
