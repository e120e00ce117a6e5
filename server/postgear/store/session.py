"""One database connection that runs prepared statements with as little between it and libpq as can be.

psycopg opens the connection and wraps libpq; but its cursors cost about 0.1 ms a statement, half as much as a commit, so
the calls here go through ``psycopg.pq``: binary parameters in, one result out, the socket watched by the event loop.
One call at a time; a second one waits for its turn.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import NoReturn

import psycopg
from psycopg import pq
from psycopg.pq import DiagnosticField, ExecStatus

from postgear.errors import SchemaError, StoreError, StoreInDoubt, StoreUnavailable

log = logging.getLogger("postgear.store")

CONNECT_SECONDS = 5
_OK = (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK)
_RETRY = ("40001", "40P01")  # serialization failure, deadlock: the same call again
_READ_ONLY = "25006"
_GONE = ("08", "57P", _READ_ONLY)  # the connection is of no use any more: broken, shut down, or a standby now
_NO_SCHEMA = ("3F000", "42P01", "42883")
_BINARY = [pq.Format.BINARY]
_SETTINGS = (
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
    """A connection. ``on_notify`` gets the payload of each NOTIFY; ``on_lost`` is called once when the connection breaks."""

    def __init__(
        self,
        dsn: str,
        application_name: str,
        statements: dict[bytes, bytes],
        on_lost: Callable[[], None],
        on_notify: Callable[[str], None] | None = None,
    ) -> None:
        self._dsn = dsn
        self._application_name = application_name
        self._statements = statements
        self._on_lost = on_lost
        self._on_notify = on_notify
        self._connection: psycopg.AsyncConnection[tuple[object, ...]] | None = None
        self._pgconn: pq.abc.PGconn | None = None
        self._fd = -1
        self._waiter: asyncio.Future[list[pq.abc.PGresult]] | None = None
        self._results: list[pq.abc.PGresult] = []
        self._turn = asyncio.Lock()
        self._warned = ""
        self._loop = asyncio.get_running_loop()

    @property
    def is_open(self) -> bool:
        """Whether calls can be made."""
        return self._pgconn is not None

    async def connect(self) -> None:
        """Open the connection to a server that takes writes, and prepare the statements. Raises StoreUnavailable, SchemaError."""
        try:
            # The time limit is ours as well as libpq's: a name look-up that hangs is not under connect_timeout.
            connection = await asyncio.wait_for(
                psycopg.AsyncConnection.connect(
                    self._dsn,
                    autocommit=True,
                    connect_timeout=CONNECT_SECONDS,
                    application_name=self._application_name,
                    target_session_attrs="read-write",
                    tcp_user_timeout=10_000,
                    keepalives_idle=5,
                    keepalives_interval=2,
                    keepalives_count=3,
                ),
                CONNECT_SECONDS * 2,
            )
        except (psycopg.Error, TimeoutError, OSError) as error:
            raise StoreUnavailable(f"cannot connect to the database: {str(error).strip() or type(error).__name__}") from error
        self._connection = connection  # kept, for it would close the socket when collected
        self._pgconn = connection.pgconn
        self._pgconn.nonblocking = 1
        self._pgconn.notice_handler = self._notice
        self._fd = self._pgconn.socket
        self._watch()
        await self.run(_SETTINGS)
        for name, sql in self._statements.items():
            await self._exchange(lambda pgconn, name=name, sql=sql: pgconn.send_prepare(name, sql), writes=False)  # type: ignore[misc]

    def close(self) -> None:
        """Close the connection; a call under way fails."""
        self._lose("closed", quiet=True)

    async def call(self, statement: bytes, *parameters: bytes | None, writes: bool = True) -> pq.abc.PGresult:
        """Run a prepared statement with binary parameters. *writes*: a lost answer means an unknown outcome."""
        values: Sequence[bytes | None] = parameters
        formats = _BINARY * len(values)
        while True:
            try:
                return await self._exchange(
                    lambda pgconn: pgconn.send_query_prepared(statement, values, formats, pq.Format.BINARY), writes=writes
                )
            except SchemaError as error:
                raise StoreUnavailable(str(error)) from error  # it was there when we connected: it may come back
            except _RetryCall:
                log.info("statement retried after a deadlock statement=%s", statement.decode())

    async def run(self, sql: bytes) -> pq.abc.PGresult:
        """Run one statement without parameters."""
        return await self._exchange(lambda pgconn: pgconn.send_query_params(sql, None), writes=True)

    async def _exchange(self, send: Callable[[pq.abc.PGconn], None], *, writes: bool) -> pq.abc.PGresult:
        async with self._turn:
            pgconn = self._pgconn
            if pgconn is None:
                raise StoreUnavailable("the database connection is down")
            self._warned = ""
            try:
                send(pgconn)
                if pgconn.flush():
                    self._loop.add_writer(self._fd, self._writable)
            except psycopg.Error as error:
                self._lose(str(error))
                raise StoreUnavailable(f"the database connection broke: {str(error).strip()}") from error
            self._waiter = self._loop.create_future()
            try:
                results = await self._waiter
            except _ConnectionLost as error:
                kind = StoreInDoubt if writes else StoreUnavailable
                raise kind(f"the database connection broke: {error}") from error
            finally:
                self._waiter = None
        result = results[-1]
        if result.status not in _OK:
            self._fail(result, writes)
        if self._warned:
            # As after a lost answer: the caller must settle with the database what this commit may have changed.
            self._lose(self._warned)
            raise StoreInDoubt(f"the commit came with a warning: {self._warned}")
        return result

    def _fail(self, result: pq.abc.PGresult, writes: bool) -> NoReturn:
        state = (result.error_field(DiagnosticField.SQLSTATE) or b"").decode()
        primary = result.error_field(DiagnosticField.MESSAGE_PRIMARY) or result.error_message
        message = primary.decode("utf-8", "replace").strip()
        if state in _RETRY:
            raise _RetryCall
        if state.startswith(_GONE):
            self._lose(message)
            # A session ended by the administrator while its commit waits for a standby is told so after the commit.
            kind = StoreInDoubt if writes and state != _READ_ONLY else StoreUnavailable
            raise kind(f"the database went away: {message}")
        if state in _NO_SCHEMA:
            self._lose(message)
            raise SchemaError(f"the database has no postgear schema, or an old one ({message})")
        raise StoreError(f"{message} (SQLSTATE {state})")

    def _notice(self, notice: pq.abc.PGresult) -> None:
        # None of our statements warns, so a warning is the server's own: the wait for the synchronous standby was cancelled
        # and the commit is only local (PG source, syncrep.c). The text may be translated; the severity here is not.
        if notice.error_field(DiagnosticField.SEVERITY_NONLOCALIZED) == b"WARNING":
            self._warned = (notice.error_field(DiagnosticField.MESSAGE_PRIMARY) or b"?").decode("utf-8", "replace")

    def _readable(self) -> None:
        pgconn = self._pgconn
        if pgconn is None:
            return
        try:
            pgconn.consume_input()
            while self._waiter is not None and not pgconn.is_busy():
                result = pgconn.get_result()
                if result is None:
                    if not self._waiter.done():
                        self._waiter.set_result(self._results)
                    self._results = []
                    break
                self._results.append(result)
            if self._on_notify is not None:
                while (notify := pgconn.notifies()) is not None:
                    self._on_notify(notify.extra.decode("utf-8", "replace"))
        except psycopg.Error as error:
            self._lose(str(error))
        if self._waiter is None or not self._waiter.done():
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
        self._results = []
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(_ConnectionLost(reason.strip()))
        if not quiet:
            self._on_lost()


class _ConnectionLost(Exception):
    """The connection broke while a call was under way."""


class _RetryCall(Exception):
    """The database asks for the same call again."""
