"""What goes between the Dispatcher and its shell besides bytes."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from postgear.dispatch.peer import Function, Peer


class Settings(NamedTuple):
    """What the configuration says to the Dispatcher; see ``config.Config`` for meaning and reasons."""

    server_name: str = "localhost"
    handle_prefix: str | None = None
    round_robin: bool = False
    worker_wakeup: int = 0
    job_retries: int = -1
    exceptions: bool = False


class RequestKind(Enum):
    """What a connection is waiting for; nothing more of it is read until it is answered."""

    STATUS = "status"  # of a handle: arguments handle, job id
    STATUS_UNIQUE = "status unique"  # arguments unique
    JOIN = "join"  # a foreground submit may join a durable job; arguments priority, function name, unique, workload, reducer
    ADMIN = "admin"  # an admin line that needs the database; arguments its words


class Request(NamedTuple):
    """Something only the store can answer; the answer goes to the Dispatcher method named for the kind."""

    kind: RequestKind
    peer: Peer
    function: Function | None
    arguments: tuple[bytes, ...]
    number: int = 0
