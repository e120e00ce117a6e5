"""postgear: a Gearman job server whose queue lives in PostgreSQL tables.

Not a client library for other servers' queues and not an ORM: it takes Gearman packets and rows, and gives jobs to workers.
The names for applications are loaded when they are first used, so that importing postgear costs nothing.
"""

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from .application.enqueue import enqueue, enqueue_async, enqueue_many, enqueue_many_async
    from .functions import Function
    from .newjob import NewJob

__all__ = ["Function", "NewJob", "enqueue", "enqueue_async", "enqueue_many", "enqueue_many_async"]
__version__ = "0.1.0"

_MODULES: Final = {
    "Function": "postgear.functions",
    "NewJob": "postgear.newjob",
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
