"""postgear: a Gearman job server whose queue lives in PostgreSQL tables.

Not a client library for other servers' queues and not an ORM: it takes Gearman packets and rows, and gives jobs to workers.
The names for applications are loaded when they are first used, so that importing postgear costs nothing.
"""

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from .application.enqueue import enqueue, enqueue_async, enqueue_many, enqueue_many_async
    from .client.admin_client import AdminClient, AsyncAdminClient
    from .client.client import AsyncClient, Client
    from .client.database import AsyncDatabaseClient, DatabaseClient, JobResult, connect, connect_async
    from .client.task_set import AsyncTaskSet, Task, TaskSet
    from .functions import Function, Handler
    from .newjob import NewJob
    from .worker.core import AsyncWorker
    from .worker.job import Job
    from .worker.runner import Worker

__all__ = [
    "AdminClient",
    "AsyncAdminClient",
    "AsyncClient",
    "AsyncDatabaseClient",
    "AsyncTaskSet",
    "AsyncWorker",
    "Client",
    "DatabaseClient",
    "Function",
    "Handler",
    "Job",
    "JobResult",
    "NewJob",
    "Task",
    "TaskSet",
    "Worker",
    "connect",
    "connect_async",
    "enqueue",
    "enqueue_async",
    "enqueue_many",
    "enqueue_many_async",
]
__version__ = "0.1.0"

_MODULES: Final = {
    "AdminClient": "postgear.client.admin_client",
    "AsyncAdminClient": "postgear.client.admin_client",
    "AsyncClient": "postgear.client.client",
    "AsyncDatabaseClient": "postgear.client.database",
    "AsyncTaskSet": "postgear.client.task_set",
    "AsyncWorker": "postgear.worker.core",
    "Client": "postgear.client.client",
    "DatabaseClient": "postgear.client.database",
    "Function": "postgear.functions",
    "Handler": "postgear.functions",
    "Job": "postgear.worker.job",
    "JobResult": "postgear.client.database",
    "NewJob": "postgear.newjob",
    "Task": "postgear.client.task_set",
    "TaskSet": "postgear.client.task_set",
    "Worker": "postgear.worker.runner",
    "connect": "postgear.client.database",
    "connect_async": "postgear.client.database",
    "enqueue": "postgear.application.enqueue",
    "enqueue_async": "postgear.application.enqueue",
    "enqueue_many": "postgear.application.enqueue",
    "enqueue_many_async": "postgear.application.enqueue",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(_MODULES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
