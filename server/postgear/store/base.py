"""What a store does: every durable operation, one line of meaning each.

Each method returns after its commit. All raise ``StoreUnavailable`` when nothing is known to have changed, and those that write
``StoreInDoubt`` when a commit was sent and its outcome is unknown.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from postgear.job import (
    ClaimedJob,
    Ending,
    FunctionCount,
    FunctionRow,
    JoinedJob,
    Lane,
    ListedJob,
    StoredStatus,
    SubmitBatch,
)


class Store(Protocol):
    """One queue. SQL functions of the same names hold the rules; see sql/functions."""

    lease: int
    queue_name: str

    async def ensure_functions(self, names: Sequence[bytes]) -> list[FunctionRow]:
        """Return what is known of each function, adding unknown ones."""

    async def submit_jobs(self, batch: SubmitBatch) -> Sequence[int]:
        """Add a batch in one commit: an id for each job, negated if it coalesced, 0 if its queue is full."""

    async def settle_batch(self, batch: SubmitBatch) -> Sequence[int] | None:
        """Return what ``submit_jobs`` would have for a batch that was in doubt; None: it is not stored, and never will be so."""

    async def claim_jobs(self, lanes: Sequence[Lane], max_bytes: int, max_jobs: int | None = None) -> list[ClaimedJob]:
        """Claim queued jobs for this lease: by priority, within one as the lanes stand; at most *max_jobs* altogether."""

    async def claim_unique(self, function_id: int, key: bytes) -> JoinedJob | None:
        """Find the job with this key; claim it if it is queued."""

    async def is_full(self, function_id: int, limit: int) -> bool:
        """Say whether a function has *limit* jobs or more."""

    async def finish_jobs(self, ids: Sequence[int]) -> list[int]:
        """Delete finished jobs; returns the ids that this lease did not hold."""

    async def finish_with_results(self, results: dict[int, Ending]) -> list[int]:
        """Do the same and keep how those jobs have ended, by id, where their function still wants it."""

    async def expire_results(self) -> bool:
        """Delete some results whose time is over; True: there may be more of them."""

    async def release_jobs(self, ids: Sequence[int], *, given_out: bool) -> None:
        """Put claimed jobs back."""

    async def postpone_jobs(self, seconds: dict[int, float]) -> None:
        """Put jobs back that somebody had, to be run again not before so many seconds from now, by id; below 0: at once."""

    async def release_others(self, held: Sequence[int]) -> list[int]:
        """Release what carries this lease but is not in *held*; returns those of *held* that are lost."""

    async def cancel_job(self, job_id: int) -> bool:
        """Remove a job; False: there is none."""

    async def promote_jobs(self) -> float | None:
        """Queue due scheduled jobs; returns seconds until the next, None: none is scheduled."""

    async def record_attempts(self, attempts: dict[int, int]) -> None:
        """Store how often jobs of this lease were given out, by id; a smaller number changes nothing."""

    async def record_progress(self, progress: dict[int, tuple[int, int]]) -> None:
        """Store numerator and denominator by id."""

    async def job_status(self, job_id: int | None, key: bytes | None) -> StoredStatus | None:
        """Return what is known of a job, by id or by unique key."""

    async def count_jobs(self) -> list[FunctionCount]:
        """Count the jobs of each function, sorted by name."""

    async def list_jobs(self, after_id: int, limit: int) -> list[ListedJob]:
        """Return a page of jobs above *after_id*, by id."""

    async def set_limits(self, name: bytes, high: int, normal: int, low: int) -> bool:
        """Set queue limits (below 1: none); False: no such function."""

    async def drop_function(self, name: bytes) -> str:
        """Hide a function: 'dropped', 'missing' or 'in use'."""

    async def register_server(self, name: str, address: str, pid: int, version: str, lease_seconds: float) -> None:
        """Start a lease; sets ``lease`` and ``queue_name``."""

    async def register_worker(
        self, name: str, host: str, pid: int, version: str, lease_seconds: float, functions: Sequence[bytes]
    ) -> None:
        """Start a lease of a worker that claims for itself; sets ``lease`` and ``queue_name``."""

    async def set_functions(self, functions: Sequence[bytes]) -> None:
        """Show what this lease's worker can do; nothing else depends on it."""

    async def renew_lease(self, *, sleeping: bool, duties_seconds: float | None = None) -> bool:
        """Renew the lease; False: it was reaped. *duties_seconds*: how long ago its duties were done, for people to see."""

    async def end_lease(self) -> None:
        """End the lease and release what it holds."""

    async def reap_leases(self) -> list[tuple[int, int]]:
        """End dead leases; returns (lease, released jobs) of each."""
