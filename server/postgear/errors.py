"""Every error postgear raises, in one tree.

::

    PostgearError
      ConfigError          a setting is missing, malformed or contradicts another
      SchemaError          the database has no postgear schema, or one of another version
      StoreError           the database did not do what was asked
        StoreUnavailable   it could not be reached; nothing is known to have changed
          StoreRefused     it does not let us in: no such database or role, a wrong password
        StoreInDoubt       a commit was sent and its outcome is not known; never an ack
      EnqueueError         a job could not be queued in an application's transaction
        InvalidJob         there can be no such job (a ValueError, too)
        UnsupportedConnection  the object is no connection that can be used (a TypeError, too)
        QueueFull          the function has as many jobs as it may
      EmbeddedError        the embedded PostgreSQL could not be set up or started
      StandbyError         a standby could not be set up, promoted or rejoined, or it refused
      ProtocolError        the peer sent bytes that are not Gearman; carries the ERROR code
      ServerError          a Gearman server answered with ERROR or could not be reached
        ServerUnreachable  there is no connection to any server; nothing was sent
        ServerTimeout      no answer came in time; what was sent may have been done
        ServerRefused      the server answered ERROR; carries its code
        UnknownJob         it knows no job of this handle
      PayloadError         a payload or result is not what its function says (a ValueError, too)
      JobFailed            the worker reported that the job failed; carries what it said
"""

from __future__ import annotations


class PostgearError(Exception):
    """The root of the tree."""

    exit_code = 1


class ConfigError(PostgearError):
    """A setting is missing, malformed or contradicts another."""

    exit_code = 2


class SchemaError(PostgearError):
    """The database has no postgear schema, or one of another version."""

    exit_code = 3


class StoreError(PostgearError):
    """The database did not do what was asked."""

    exit_code = 4


class StoreUnavailable(StoreError):
    """The database could not be reached; nothing is known to have changed."""


class StoreRefused(StoreUnavailable):
    """The database does not let us in: there is no such database or role, or the password is wrong."""


class StoreInDoubt(StoreError):
    """A commit was sent and its outcome is not known; it must not be acknowledged."""


class EnqueueError(PostgearError):
    """A job could not be queued in an application's transaction."""


class InvalidJob(EnqueueError, ValueError):
    """There can be no such job: a name too long, a payload that is not JSON, an unknown priority."""


class UnsupportedConnection(EnqueueError, TypeError):
    """The object is no connection, or one of a database other than PostgreSQL."""


class QueueFull(EnqueueError):
    """*function* has as many jobs as its limits allow; nothing was queued, and the transaction can go on."""

    def __init__(self, function: str) -> None:
        super().__init__(f"the queue of function {function!r} is full")
        self.function = function


class EmbeddedError(PostgearError):
    """The embedded PostgreSQL could not be set up or started."""

    exit_code = 5


class StandbyError(PostgearError):
    """A standby could not be set up, promoted or rejoined, or it refused because something might be lost."""

    exit_code = 8


class ProtocolError(PostgearError):
    """The peer sent bytes that are not Gearman.

    *code* is the word of the ERROR packet (libgearman's name without ``GEARMAN_``).
    """

    def __init__(self, code: str, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code
        self.text = text


class ServerError(PostgearError):
    """A Gearman server answered with ERROR, closed the connection or could not be reached."""

    exit_code = 6


class ServerUnreachable(ServerError):
    """There is no connection to any server; nothing was sent."""


class ServerTimeout(ServerError):
    """No answer came in time; what was sent may have been done."""


class ServerRefused(ServerError):
    """The server answered ERROR.

    *code* is the word of the packet (libgearman's name without ``GEARMAN_``), *text* what it says about it.
    """

    def __init__(self, code: str, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code
        self.text = text


class UnknownJob(ServerError):
    """A Gearman server knows no job of this handle: it has ended, or there never was one."""

    exit_code = 7


class PayloadError(PostgearError, ValueError):
    """A payload or result is not what its function says it is."""


class JobFailed(PostgearError):
    """The worker reported that the job failed.

    *exception* is what it said about it (WORK_EXCEPTION), empty if it only failed (WORK_FAIL).
    """

    def __init__(self, handle: bytes, exception: bytes) -> None:
        text = exception.decode("utf-8", "backslashreplace")
        super().__init__(f"job {handle.decode('ascii', 'backslashreplace')} failed" + (f": {text}" if text else ""))
        self.handle = handle
        self.exception = exception
