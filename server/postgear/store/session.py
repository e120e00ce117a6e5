"""One database connection that runs prepared statements with as little between it and libpq as can be.

psycopg opens the connection and wraps libpq; but its cursors cost about 0.1 ms a statement, half as much as a commit, so
the calls here go through ``psycopg.pq``: binary parameters in, one result out, the socket watched by the event loop.
One call at a time; others wait for their turn.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, NamedTuple, TypeAlias, cast

import psycopg
from psycopg import pq
from psycopg.pq import DiagnosticField, ExecStatus

from postgear import schema
from postgear.connecting import ANSWER_SECONDS, CONNECT_SECONDS, failed_connection, limit_seconds, options, put_last
from postgear.errors import SchemaError, StoreError, StoreInDoubt, StoreRefused, StoreUnavailable

log = logging.getLogger("postgear.store")

Outcome: TypeAlias = pq.abc.PGresult | StoreError
Done: TypeAlias = Callable[[Outcome], None]

_OK = (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK)
_RETRY = ("40001", "40P01")  # serialization failure, deadlock: the same call again
_READ_ONLY = "25006"
_GONE = ("08", "57P", _READ_ONLY)  # the connection is of no use any more: broken, shut down, or a standby now
_NO_SCHEMA = ("3F000", "42P01", "42883")
_DENIED = "42501"
_LOCKED = "55P03"
_ENDED = "55000"  # submit_jobs: others ended the lease, and it is to be looked after; nothing was stored
_BINARY = [pq.Format.BINARY]
SETTINGS: Final = (
    # Our statements have one good plan each, by index, whatever the statistics of a table that is empty one moment and has
    # millions of rows the next. Planning anew for each call took a fifth of a submit.
    b"select set_config('plan_cache_mode', 'force_generic_plan', false), set_config('enable_seqscan', 'off', false),"
    b" set_config('enable_bitmapscan', 'off', false), set_config('jit', 'off', false),"
    # What a role may carry and the functions must not meet: other names first, limits, other isolation, unsafe commits.
    b" set_config('search_path', 'pg_catalog, pg_temp', false), set_config('statement_timeout', '0', false),"
    b" set_config('lock_timeout', '0', false), set_config('default_transaction_isolation', 'read committed', false),"
    b" set_config('synchronous_commit', case current_setting('synchronous_commit') when 'off' then 'on'"
    b" else current_setting('synchronous_commit') end, false)"
)


class Session:
    """A connection. ``on_notify`` gets the payload of each NOTIFY; ``on_lost`` gets the reason when it breaks, once.

    lock_seconds: how long a statement may wait for a lock; then it ends with StoreLocked. 0: as long as it takes.
    """

    def __init__(
        self,
        dsn: str,
        application_name: str,
        statements: dict[bytes, bytes],
        on_lost: Callable[[str], None],
        on_notify: Callable[[str], None] | None = None,
        *,
        lock_seconds: int = 0,
    ) -> None:
        self._dsn = dsn
        self._application_name = application_name
        self._statements = statements
        self._on_lost = on_lost
        self._on_notify = on_notify
        self._lock_seconds = lock_seconds
        self._connection: psycopg.AsyncConnection[tuple[object, ...]] | None = None
        self._pgconn: pq.abc.PGconn | None = None
        self._fd = -1
        self.backend_pid = 0
        self.host = ("", "")
        """Host and port of the connection, as the DSN has them."""
        self._current: _Call | None = None
        self._result: pq.abc.PGresult | None = None  # of the current call, until the server is ready for the next
        self._queue: deque[_Call] = deque()
        self._warned = ""
        self._loop = asyncio.get_running_loop()

    @property
    def is_open(self) -> bool:
        """Whether calls can be made."""
        return self._pgconn is not None

    async def connect(self, last: Sequence[tuple[str, str]] = ()) -> None:
        """Open the connection to a server that takes writes, and prepare the statements. Raises StoreUnavailable, SchemaError.

        last: hosts and their ports to try after the others.
        """
        try:
            parameters = options(
                self._dsn,
                autocommit=True,
                application_name=self._application_name,
                target_session_attrs="read-write",
                connect_timeout=CONNECT_SECONDS,
            )
            # The time limit is ours as well as libpq's: a name look-up that hangs is not under connect_timeout.
            connection = await asyncio.wait_for(
                psycopg.AsyncConnection.connect(**put_last(parameters, last)), limit_seconds(parameters)
            )
        except (psycopg.Error, TimeoutError, OSError) as error:
            raise failed_connection(error) from error
        self._connection = connection  # kept, for it would close the socket when collected
        self._pgconn = connection.pgconn
        self._pgconn.nonblocking = 1
        self._pgconn.notice_handler = self._notice
        self._fd = self._pgconn.socket
        self.backend_pid = self._pgconn.backend_pid
        self.host = (self._pgconn.host.decode(), self._pgconn.port.decode())
        self._watch()
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await self._begin_session()
        except TimeoutError:
            self.close()
            raise StoreUnavailable("the database took a connection, but does not answer") from None

    async def _begin_session(self) -> None:
        await self.run(SETTINGS)
        if self._lock_seconds:
            await self.run(b"set lock_timeout = %d" % (self._lock_seconds * 1000))
        try:
            version = (await self.run(b"select version_num::text from postgear.alembic_version")).get_value(0, 0)
            schema.check(None if version is None else version.decode())
            for name, sql in self._statements.items():
                await self._run(lambda pgconn, name=name, sql=sql: pgconn.send_prepare(name, sql))  # type: ignore[misc]
        except _NoSchema as error:
            raise SchemaError(str(error)) from None
        except _Denied as error:
            raise StoreRefused(f"{error}: whoever takes jobs from the queue needs the rights of role postgear_worker") from None

    def close(self) -> None:
        """Close the connection; a call under way fails."""
        self._lose("closed", quiet=True)

    def address(self) -> dict[str, str]:
        """Return the parameters to connect to the very host that this is connected to."""
        assert self._connection is not None
        info = self._connection.info
        return {"host": info.host, "hostaddr": info.hostaddr, "port": str(info.port)}

    async def call(self, statement: bytes, *parameters: bytes | None, writes: bool = True) -> pq.abc.PGresult:
        """Run a prepared statement with binary parameters. *writes*: a lost answer means an unknown outcome."""
        ended = self._loop.create_future()
        self.start(statement, parameters, partial(_resolve, ended), writes=writes)
        return cast(pq.abc.PGresult, await ended)

    def start(self, statement: bytes, parameters: Sequence[bytes | None], done: Done, *, writes: bool = True) -> None:
        """Run a prepared statement, after those begun before; *done* is called as soon as its result is read.

        That saves two turns of the event loop against ``call``, which counts where one waits for each commit.
        """
        formats = _BINARY * len(parameters)
        self._enqueue(
            _Call(lambda pgconn: pgconn.send_query_prepared(statement, parameters, formats, pq.Format.BINARY), writes, done)
        )

    async def run(self, sql: bytes) -> pq.abc.PGresult:
        """Run one statement without parameters."""
        return await self._run(lambda pgconn: pgconn.send_query_params(sql, None))

    async def _run(self, send: Callable[[pq.abc.PGconn], None]) -> pq.abc.PGresult:
        ended = self._loop.create_future()
        self._enqueue(_Call(send, True, partial(_resolve, ended)))
        return cast(pq.abc.PGresult, await ended)

    def _enqueue(self, call: _Call) -> None:
        if self._current is None:
            self._begin(call)
        else:
            self._queue.append(call)

    def _begin(self, call: _Call) -> None:
        pgconn = self._pgconn
        if pgconn is None:
            call.done(StoreUnavailable("the database connection is down"))
            return
        self._warned = ""
        try:
            call.send(pgconn)
            if pgconn.flush():
                self._loop.add_writer(self._fd, self._writable)
        except psycopg.Error as error:
            self._lose(str(error))
            call.done(StoreUnavailable(f"the database connection broke: {str(error).strip()}"))
        else:
            self._current = call

    def _complete(self, result: pq.abc.PGresult) -> None:
        call, self._current = self._current, None
        assert call is not None
        outcome: Outcome = result
        if result.status not in _OK:
            error = self._error_of(result, call.writes)
            if error is None:
                log.info("statement retried after a deadlock")
                self._begin(call)
                return
            outcome = error
        elif self._warned:
            # As after a lost answer: the caller must settle with the database what this commit may have changed.
            self._lose(self._warned)
            outcome = StoreInDoubt(f"the commit came with a warning: {self._warned}")
        if self._queue:
            self._begin(self._queue.popleft())
        call.done(outcome)

    def _error_of(self, result: pq.abc.PGresult, writes: bool) -> StoreError | None:
        """Say what a refusal means; None: the same call again."""
        state = (result.error_field(DiagnosticField.SQLSTATE) or b"").decode()
        primary = result.error_field(DiagnosticField.MESSAGE_PRIMARY) or result.error_message
        message = primary.decode("utf-8", "replace").strip()
        if state in _RETRY:
            return None
        if state.startswith(_GONE):
            self._lose(message)
            # A session ended by the administrator while its commit waits for a standby is told so after the commit.
            kind = StoreInDoubt if writes and state != _READ_ONLY else StoreUnavailable
            return kind(f"the database went away: {message}")
        if state in _NO_SCHEMA:
            self._lose(message)
            return _NoSchema(f"the database has no postgear schema, or an old one ({message})")
        if state == _LOCKED:
            return StoreLocked("an open transaction in the database queues a job with the same unique, or locks the tables")
        if state == _ENDED:
            self._lose(message)
            return StoreUnavailable(message)
        return (_Denied if state == _DENIED else StoreError)(f"{message} (SQLSTATE {state})")

    def _notice(self, notice: pq.abc.PGresult) -> None:
        # None of our statements warns, so a warning is the server's own: the wait for the synchronous standby was cancelled
        # and the commit is only local (PG source, syncrep.c). The text may be translated; the severity here is not.
        if notice.error_field(DiagnosticField.SEVERITY_NONLOCALIZED) == b"WARNING":
            self._warned = (notice.error_field(DiagnosticField.MESSAGE_PRIMARY) or b"?").decode("utf-8", "replace")

    def _readable(self) -> None:
        pgconn = self._pgconn
        if pgconn is None:
            return
        is_complete = False
        try:
            pgconn.consume_input()
            while self._current is not None and not is_complete and not pgconn.is_busy():
                result = pgconn.get_result()
                if result is None:
                    is_complete = self._result is not None
                else:
                    self._result = result
            if self._on_notify is not None:
                while (notify := pgconn.notifies()) is not None:
                    self._on_notify(notify.extra.decode("utf-8", "replace"))
        except psycopg.Error as error:
            self._lose(str(error))
            return
        if is_complete and self._result is not None:
            result, self._result = self._result, None
            self._complete(result)
        else:
            # libuv stops watching a socket that has an error after one call (uv__poll_io), though its end is still to be read.
            self._loop.call_soon(self._watch)

    def _watch(self) -> None:
        if self._pgconn is not None:
            self._loop.remove_reader(self._fd)  # uvloop does not know that libuv stopped: adding alone would do nothing
            self._loop.add_reader(self._fd, self._readable)

    def _writable(self) -> None:
        try:
            if self._pgconn is not None and not self._pgconn.flush():
                self._loop.remove_writer(self._fd)
        except psycopg.Error as error:
            self._lose(str(error))

    def _lose(self, reason: str, *, quiet: bool = False) -> None:
        if self._pgconn is None:
            return
        self._loop.remove_reader(self._fd)
        self._loop.remove_writer(self._fd)
        self._pgconn.finish()
        self._pgconn = None
        self._result = None
        current, self._current = self._current, None
        waiting, self._queue = self._queue, deque()
        if not quiet:
            self._on_lost(reason)  # first: whoever is told of a failed call finds the database known to be away
        if current is not None:
            kind = StoreInDoubt if current.writes else StoreUnavailable
            current.done(kind(f"the database connection broke: {reason.strip()}"))
        for call in waiting:
            call.done(StoreUnavailable("the database connection is down"))


class StoreLocked(StoreUnavailable):
    """A lock was waited for too long: nothing was changed."""


class _NoSchema(StoreUnavailable):
    """The schema was there when we connected: it may come back, as a database may. (At once, it is a SchemaError.)"""


class _Denied(StoreError):
    """The role lacks a right. (At once, when connecting, it is StoreRefused.)"""


class _Call(NamedTuple):
    """A statement to send and who is told of its end."""

    send: Callable[[pq.abc.PGconn], None]
    writes: bool
    done: Done


def _resolve(ended: asyncio.Future[pq.abc.PGresult], outcome: Outcome) -> None:
    if ended.done():
        return  # cancelled
    if isinstance(outcome, Exception):
        ended.set_exception(outcome)
    else:
        ended.set_result(outcome)
