"""Every error postgear raises, in one tree.

What concerns a server or a job names them: *server*, *function*, *handle*.

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
      OutboxError          MariaDB or MySQL did not do what was asked
        OutboxUnavailable  it could not be reached, or the connection broke
        OutboxRefused      it does not let us in, or lacks what is needed; the text has the statement to run
      ProtocolError        the peer sent bytes that are not Gearman; carries the ERROR code
      ServerError          a Gearman server answered with ERROR or could not be reached
        ServerUnreachable  there is no connection to any server; nothing was sent
        ServerTimeout      no answer came in time; what was sent may have been done
        ServerRefused      the server answered ERROR; carries its code
        UnknownJob         it knows no job of this handle
        NotAllSubmitted    of many jobs some were not submitted; carries the handles of the others
      PayloadError         a payload or result is not what its function says (a ValueError, too)
      JobFailed            the worker reported that the job failed; carries what it said
      JobLost              the job that a worker runs is another's now; its result does not count
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


class OutboxError(PostgearError):
    """MariaDB or MySQL, which has an outbox, did not do what was asked."""

    exit_code = 9


class OutboxUnavailable(OutboxError):
    """MariaDB or MySQL could not be reached, or the connection broke; what was under way may have been done."""


class OutboxRefused(OutboxError):
    """MariaDB or MySQL does not let us in or lacks what is needed; the text says what to do about it."""


class ProtocolError(PostgearError):
    """The peer sent bytes that are not Gearman.

    *code* is the word of the ERROR packet (libgearman's name without ``GEARMAN_``).
    """

    def __init__(self, code: str, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code
        self.text = text


class _Place:
    """What an error is about, as far as it is known: *server* (host:port), *function*, *handle*; empty where it is not."""

    server = ""
    function = ""
    handle = ""

    def fill(self, server: str = "", function: str = "", handle: str = "") -> None:
        """Say what the error is about, where that is not known yet."""
        self.server = self.server or server
        self.function = self.function or function
        self.handle = self.handle or handle

    def __str__(self) -> str:
        text = super().__str__()
        if self.server:
            text = f"server {self.server}: {text}"
        about = [f"{kind} {name}" for kind, name in (("function", self.function), ("job", self.handle)) if name]
        return f"{text} ({', '.join(about)})" if about else text


class ServerError(_Place, PostgearError):
    """A Gearman server answered with ERROR, closed the connection or could not be reached.

    *server*, *function* and *handle* name what was asked of whom, as far as it is known.
    """

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


class NotAllSubmitted(ServerError):
    """Of many jobs some were not submitted, or may not have been; the others are.

    *handles*: by position, None for those. *errors*: by position; ServerUnreachable was not sent, ServerRefused is not queued,
    of any other it is not known. *raised*: the exception that ended the jobs, which are those before it; else None.
    """

    def __init__(self, handles: list[str | None], errors: dict[int, ServerError], raised: Exception | None = None) -> None:
        told = []
        if errors:
            first = min(errors)
            told.append(f"{len(errors)} of {len(handles)} jobs were not submitted; the first is number {first}: {errors[first]}")
        if raised is not None:
            told.append(
                f"there are no more than {len(handles)} jobs, for number {len(handles)} raised {type(raised).__name__}: {raised}"
            )
        super().__init__("; ".join(told))
        self.handles = handles
        self.errors = errors
        self.raised = raised


class PayloadError(_Place, PostgearError, ValueError):
    """A payload or result is not what its function says it is. Of a result *server*, *function* and *handle* are known."""


class JobFailed(_Place, PostgearError):
    """The worker reported that the job failed.

    *exception* is what it said about it (WORK_EXCEPTION), empty if it only failed (WORK_FAIL). *server*, *function* and *handle*
    name the job.
    """

    def __init__(self, handle: str, exception: bytes, function: str = "", server: str = "") -> None:
        super().__init__(exception.decode("utf-8", "backslashreplace"))
        self.handle = handle
        self.exception = exception
        self.function = function
        self.server = server

    def __str__(self) -> str:
        place = " at ".join(filter(None, (f"function {self.function}" if self.function else "", self.server)))
        text = str(self.args[0])
        return f"job {self.handle} failed" + (f" ({place})" if place else "") + (f": {text}" if text else "")


class JobLost(PostgearError):
    """The job that a worker runs is another's now: it was given out again, cancelled or has ended. Its result does not count."""
