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

    STATUS = "status"  # GET_STATUS of a job that is not in memory: arguments handle; number the job's id
    STATUS_UNIQUE = "status unique"  # GET_STATUS_UNIQUE of one that is not in memory: arguments unique
    JOIN = "join"  # a foreground submit that the database may join or refuse: arguments function name, coalescing key,
    # workload, reducer or empty; number its priority
    ADMIN = "admin"  # a text line: arguments its words, the first empty where the line is or begins with a blank


class Request(NamedTuple):
    """Something that the shell answers, asking the store where it must; see ``RequestKind`` for arguments and number.

    The answer goes to the Dispatcher's ``send_status``, ``send_status_unique`` or ``joined``; that to an admin line is sent
    to the peer. Then ``answered`` is called, whatever came of it.
    """

    kind: RequestKind
    peer: Peer
    function: Function | None
    arguments: tuple[bytes, ...]
    number: int = 0
