"""A job as the server sees it, its states, and the batches in which jobs travel to and from the store.

A job in memory is either a foreground job, which lives only here, or a background job that this server has claimed.
The durable states of background jobs are columns of ``postgear.job``: queued, scheduled (``run_at``), claimed (``lease``).
"""

from __future__ import annotations

import hashlib
from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from .dispatch.peer import Function, Peer


class Priority(IntEnum):
    """As stored; lower runs first."""

    HIGH = 0
    NORMAL = 1
    LOW = 2


class JobState(StrEnum):
    """Where a job in memory is."""

    READY = "ready"  # waits for a worker to grab it
    RUNNING = "running"  # a worker has it
    ENDED = "ended"  # completed, failed, cancelled, given back or abandoned; may still stand in a ready queue, to be passed over


class JobEvent(StrEnum):
    """What moves a job from state to state."""

    ASSIGN = "assign"
    LOSE = "lose"  # its worker went away, timed out or dropped the ability
    END = "end"


TRANSITIONS: Final = {
    (JobState.READY, JobEvent.ASSIGN): JobState.RUNNING,
    (JobState.READY, JobEvent.END): JobState.ENDED,
    (JobState.RUNNING, JobEvent.LOSE): JobState.READY,
    (JobState.RUNNING, JobEvent.END): JobState.ENDED,
}
"""Every legal move; an absent pair is a bug of ours."""


class Job:
    """A job in this server's memory.

    id: the row in ``postgear.job``; 0 for a foreground job.
    handle: what workers are told; durable_handle: what background clients are told (the same but for a foreground job
    that became durable).
    unique_key: the coalescing key, empty for none; see ``coalescing_key``.
    listeners: the client connections that get the results, each as often as it submitted.
    attempt: 1 for the first delivery.
    """

    __slots__ = (
        "attempt",
        "cancelled",
        "denominator",
        "durable_handle",
        "ending",
        "function",
        "handle",
        "has_outcome",
        "id",
        "listeners",
        "numerator",
        "owner",
        "pending_joins",
        "priority",
        "reducer",
        "state",
        "unique_key",
        "was_given_out",
        "workload",
    )

    def __init__(
        self,
        handle: bytes,
        function: Function,
        priority: int,
        unique_key: bytes,
        workload: bytes,
        reducer: bytes | None,
        job_id: int = 0,
        attempt: int = 0,
    ) -> None:
        self.id = job_id
        self.handle = handle
        self.durable_handle = handle
        self.function = function
        self.priority = priority
        self.unique_key = unique_key
        self.workload = workload
        self.reducer = reducer
        self.attempt = attempt
        self.listeners: list[Peer] = []
        self.owner: Peer | None = None
        self.numerator = 0
        self.denominator = 0
        self.cancelled = False
        self.has_outcome = False  # completed, failed or cancelled; not lost with its worker or the lease
        self.ending: Ending | None = None  # how it has ended, if its function keeps that
        self.was_given_out = False  # since it came into this memory
        self.pending_joins = 0  # background submits that joined this foreground job and are not committed yet
        self.state = JobState.READY

    def move(self, event: JobEvent) -> None:
        """Change the state; KeyError is a bug of ours."""
        self.state = TRANSITIONS[self.state, event]

    @property
    def unique(self) -> bytes:
        """The unique as its client gave it."""
        return b"-" if len(self.unique_key) == PAYLOAD_KEY_BYTES else self.unique_key


PAYLOAD_KEY_BYTES: Final = 65
"""One more than a client's unique may have, so that the two can never meet."""


def coalescing_key(unique: bytes, workload: bytes) -> bytes:
    """Return the key under which jobs of one function coalesce; empty: never.

    The unique ``-`` stands for the payload itself (gearmand 1.1.x, job.cc); an empty payload then never coalesces.
    """
    if unique != b"-":
        return unique
    return b"-" + hashlib.sha512(workload).digest() if workload else b""


class Durability(IntEnum):
    """What an acknowledgement promises, from least to most; ``postgear.function.durability``."""

    RELAXED = 0
    """On the disk soon: a crash of the database loses the last half second."""
    LOCAL = 1
    """On the disk of the primary."""
    REPLICATED = 2
    """There, and where there is a synchronous standby, on its disk, too."""


LOCKED: Final = -(2**63)
"""In the place of a job's number: it was not stored, for a transaction that is not over queues one with the same unique."""


class SubmitBatch:
    """Background jobs on their way into the database, as columns: one commit for all of them.

    The lists have one element a job. The dicts are sparse, by position: few jobs have a start time or a reducer.
    sent_as: the lease and number under which the store has sent it last; (0, 0): never.
    """

    __slots__ = (
        "after_finishes",
        "claims",
        "durability",
        "functions",
        "joins",
        "opened_at",
        "peers",
        "priorities",
        "reducers",
        "run_ats",
        "sent_as",
        "size_bytes",
        "unique_keys",
        "workloads",
    )

    def __init__(self, opened_at: float = 0.0) -> None:
        self.peers: list[Peer] = []
        self.functions: list[Function] = []
        self.priorities: list[int] = []
        self.unique_keys: list[bytes] = []
        self.workloads: list[bytes] = []
        self.claims: list[bool] = []
        self.run_ats: dict[int, int] = {}
        self.reducers: dict[int, bytes] = {}
        self.joins: dict[int, Job] = {}
        self.size_bytes = 0
        self.opened_at = opened_at
        self.durability = Durability.REPLICATED
        self.sent_as = (0, 0)
        self.after_finishes = False  # a key in it belongs to a job whose deletion is under way: delete first

    def __len__(self) -> int:
        return len(self.peers)


RESULT_MAX_BYTES: Final = 256 * 1024 * 1024
"""Of longer results only the outcome is kept: PostgreSQL has no values of 1 GB, and what it refused would be sent for ever."""


class Ending(NamedTuple):
    """How a job has ended. data: the result, or what was said about the failure; None: nothing was."""

    is_completed: bool
    data: bytes | None

    @property
    def kept_data(self) -> bytes | None:
        """What of the data is stored."""
        return None if self.data is not None and len(self.data) > RESULT_MAX_BYTES else self.data


class Lane(NamedTuple):
    """A demand for queued jobs of one function and priority."""

    function_id: int
    priority: int
    wanted: int


class ClaimedJob(NamedTuple):
    """A job as ``claim_jobs`` returns it."""

    id: int
    function_id: int
    priority: int
    attempt: int
    unique_key: bytes | None
    reducer: bytes | None
    workload: bytes


class JoinedJob(NamedTuple):
    """A background job that a foreground client wants to join; without the last four when another holds it."""

    id: int
    is_claimed: bool
    priority: int
    attempt: int
    reducer: bytes | None
    workload: bytes


class StoredStatus(NamedTuple):
    """What the database knows of one job."""

    id: int
    running: bool
    numerator: int
    denominator: int


class FunctionRow(NamedTuple):
    """A function's id and queue limits (high, normal, low; None: no limit).

    has_uniques: it has jobs with a unique. keeps_results: how its background jobs end is to be stored.
    """

    name: bytes
    id: int
    limits: tuple[int | None, int | None, int | None]
    has_uniques: bool
    durability: Durability = Durability.REPLICATED
    keeps_results: bool = False


class FunctionCount(NamedTuple):
    """How many durable jobs a function has: queued or scheduled by priority, held by servers, and of these by the asking one."""

    name: bytes
    high: int
    normal: int
    low: int
    held: int
    own: int


class ListedJob(NamedTuple):
    """A line of ``show jobs``."""

    id: int
    attempt: int
    running: bool
    unique_key: bytes | None
