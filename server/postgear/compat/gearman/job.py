"""``GearmanJob`` and ``GearmanJobRequest``, as in ``gearman.job``."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from .constants import JOB_COMPLETE, JOB_CREATED, JOB_FAILED, JOB_UNKNOWN, PRIORITY_NONE

if TYPE_CHECKING:
    from .connection_manager import GearmanConnection


class GearmanJob:
    """A job, at a client or at a worker. data: as it was before it was encoded. handle: None until a server has said it."""

    def __init__(self, connection: GearmanConnection | None, handle: Any, task: Any, unique: Any, data: Any) -> None:
        self.connection = connection
        self.handle = handle
        self.task = task
        self.unique = unique
        self.data = data

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(connection={self.connection!r}, handle={self.handle!r}, task={self.task!r},"
            f" unique={self.unique!r}, data={self.data!r})"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return what can be written down of it."""
        return {"task": self.task, "job_handle": self.handle, "unique": self.unique, "data": self.data}


class GearmanJobRequest:
    """A job and what a client knows of it.

    result: the data of WORK_COMPLETE, None before. exception: the data of WORK_EXCEPTION. warning_updates, data_updates: deques.
    status: empty, or handle, known, running, numerator, denominator and time_received. timed_out: whether the last wait for it
    was too short.
    """

    def __init__(
        self,
        gearman_job: GearmanJob,
        initial_priority: str | None = PRIORITY_NONE,
        background: bool = False,
        max_attempts: int = 1,
    ) -> None:
        self.gearman_job = gearman_job
        self.priority = initial_priority
        self.background = background
        self.connection_attempts = 0
        self.max_connection_attempts = max_attempts
        self.initialize_request()

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(gearman_job={self.gearman_job!r}, initial_priority={self.priority!r},"
            f" background={self.background!r}, max_attempts={self.max_connection_attempts!r})"
        )

    def initialize_request(self) -> None:
        """Forget what is known of the job."""
        self.result: Any = None
        self.exception: Any = None
        self.warning_updates: deque[Any] = deque()
        self.data_updates: deque[Any] = deque()
        self.status: dict[str, Any] = {}
        self.state = JOB_UNKNOWN
        self.timed_out = False

    def reset(self) -> None:
        """Forget what is known of the job, and where it is, so that it can be submitted again."""
        self.initialize_request()
        self.gearman_job.connection = None
        self.gearman_job.handle = None

    @property
    def job(self) -> GearmanJob:
        """The job."""
        return self.gearman_job

    @property
    def complete(self) -> bool:
        """Whether there is nothing more to wait for."""
        if self.background:
            return self.state == JOB_CREATED
        return self.state in (JOB_FAILED, JOB_COMPLETE)
