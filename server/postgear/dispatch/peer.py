"""Connections and functions as the Dispatcher knows them."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from postgear.job import Durability

if TYPE_CHECKING:
    from postgear.job import Job
    from postgear.wire.connection import Message

WINDOW_MAX_JOBS: Final = 2000
"""Most jobs claimed ahead for a function and priority: a second's work of the fastest workers seen, and 0.2 MB of small jobs."""
CLAIM_AHEAD_SECONDS: Final = 0.25
"""A window holds what its workers drain in this time: far above a round trip to the database, far below RELEASE_SECONDS."""


class Peer:
    """One connection: a client, a worker, or both.

    out: bytes to send, drained by the shell once a loop turn.
    pending: submits and requests under way whose replies must come before any other reply.
    held: messages that wait until nothing is pending; None: none wait and messages are taken as they come.
    """

    __slots__ = (
        "abilities",
        "address",
        "client_id",
        "closed",
        "closing",
        "dirty",
        "exceptions",
        "fd",
        "held",
        "is_late",
        "is_local",
        "is_waiting_client",
        "jobs",
        "listening",
        "out",
        "pending",
        "pending_requests",
        "sleeping",
    )

    def __init__(self, fd: int = 0, address: str = "-", *, is_local: bool = True, exceptions: bool = False) -> None:
        self.fd = fd
        self.address = address
        self.is_local = is_local
        self.exceptions = exceptions
        self.client_id = b"-"
        self.abilities: dict[Function, float] = {}  # in order of registration; value: timeout in seconds, 0 for none
        self.jobs: dict[bytes, Job] = {}  # running here, by handle
        self.listening: dict[Job, None] = {}
        self.sleeping = False
        self.out: list[bytes] = []
        self.dirty = False
        self.is_late = False  # it has something in out that may wait a moment; see State.send_late
        self.is_waiting_client = False  # it submits one foreground job at a time and waits for each
        self.pending = 0
        self.pending_requests = 0
        self.held: list[Message] | None = None
        self.closing = False  # close when out is sent
        self.closed = False


class Function:
    """A function name: its workers, its jobs in memory, and its claim-ahead window.

    ready: jobs to be grabbed, by priority, oldest first. held: how many of them are claimed background jobs.
    backlog: by priority, whether the database may have more queued jobs.
    """

    __slots__ = (
        "assigned",
        "assigned_since_claim",
        "assigned_since_review",
        "backlog",
        "claiming",
        "durability",
        "foreground",
        "held",
        "id",
        "limits",
        "has_uniques",
        "is_submitted_to",
        "keeps_results",
        "missed",
        "name",
        "rate",
        "ready",
        "returned",
        "uncommitted",
        "running",
        "running_foreground",
        "sleepers",
        "stored_since_claim",
        "waiting",
        "workers",
    )

    def __init__(self, name: bytes) -> None:
        self.name = name
        self.id = 0  # 0: the database has not been asked yet
        self.limits: tuple[int | None, int | None, int | None] = (None, None, None)
        self.durability = Durability.REPLICATED
        self.keeps_results = False  # of its background jobs
        self.workers: dict[Peer, None] = {}
        self.sleepers: dict[Peer, None] = {}
        self.ready: tuple[deque[Job], deque[Job], deque[Job]] = (deque(), deque(), deque())
        self.held = [0, 0, 0]
        self.foreground = [0, 0, 0]  # foreground jobs waiting, by priority
        self.running = 0
        self.running_foreground = 0
        self.backlog = [True, True, True]
        self.claiming = [0, 0, 0]  # asked for in claims under way
        self.uncommitted = [0, 0, 0]  # background jobs being stored that were not born claimed: older than any to come
        self.stored_since_claim = [False, False, False]  # such a job was stored since the last claim was sent
        self.returned = [0, 0, 0]  # the oldest job that went back since the last claim, by its id; 0: none
        self.has_uniques = True  # the database may have jobs with a unique, so a foreground submit with one looks there
        self.is_submitted_to = False  # in the foreground, since has_uniques was last asked
        self.missed = False  # a worker found nothing since the last claim, and may not sleep but ask again
        self.waiting = 0  # workers whose grab waits for a claim
        self.assigned = 0  # background jobs given out since the last tick
        self.assigned_since_claim = 0
        self.assigned_since_review = 0
        self.rate = 0.0  # background jobs given out, per second

    def foreground_jobs(self) -> int:
        """Return how many foreground jobs this server has, waiting and running."""
        return sum(self.foreground) + self.running_foreground

    def window(self) -> int:
        """Return how many jobs of each priority are worth holding: by the workers that wait and by what they drain.

        The second term doubles the window with each claim while the workers keep up, until the rate is known.
        """
        drained = max(int(self.rate * CLAIM_AHEAD_SECONDS), 2 * self.assigned_since_claim)
        return min(len(self.sleepers) + self.waiting + self.missed + drained, WINDOW_MAX_JOBS)
