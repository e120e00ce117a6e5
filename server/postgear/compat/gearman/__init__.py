"""python-gearman 2.0.2's names over postgear's clients and workers: ``from postgear.compat import gearman``.

What a program sees is what it saw: requests and jobs with their states, encoders, callbacks in the thread that called ``work``.
Handles, tasks and data that come from a server are bytes, as in pygearman, its fork for Python 3. What is different on purpose
is in docs/python-gearman.md. Not a second protocol: everything goes through ``postgear.client`` and ``postgear.worker``.
"""

from .admin_client import GearmanAdminClient
from .client import GearmanClient
from .connection_manager import DataEncoder
from .constants import (
    JOB_COMPLETE,
    JOB_CREATED,
    JOB_FAILED,
    JOB_PENDING,
    JOB_UNKNOWN,
    PRIORITY_HIGH,
    PRIORITY_LOW,
    PRIORITY_NONE,
)
from .job import GearmanJob, GearmanJobRequest
from .worker import GearmanWorker

__all__ = [
    "GearmanClient",
    "GearmanWorker",
    "GearmanAdminClient",
    "GearmanJob",
    "GearmanJobRequest",
    "DataEncoder",
    "PRIORITY_NONE",
    "PRIORITY_LOW",
    "PRIORITY_HIGH",
    "JOB_UNKNOWN",
    "JOB_PENDING",
    "JOB_CREATED",
    "JOB_FAILED",
    "JOB_COMPLETE",
]
