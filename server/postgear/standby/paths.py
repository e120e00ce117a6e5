"""The ways to hear of the primary, each in a loop of its own so that none waits for another.

They write what they heard into plain attributes, with its time; what that means is for ``decision``.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, Final

import psycopg

from postgear.connecting import first_line
from postgear.standby.decision import Witnessed
from postgear.standby.replica import KEEPALIVE
from postgear.standby.state import boot_seconds
from postgear.standby.synchrony import Sighting

POLL_SECONDS: Final = 0.4
ANSWER_SECONDS: Final = 1.5
CONNECT_SECONDS: Final = 2
WITNESS_SECONDS: Final = 1.0
"""How long a witness may take to answer."""
_ALIVE: Final = re.compile(
    r"too many (?:connections|clients)|connection slots are reserved|authentication failed|no pg_hba\.conf entry"
)
"""A refusal that only a primary at work gives. Others, such as "is starting up", say that it does not work at present."""

_PRIMARY: Final = """
select pg_is_in_recovery(), (pg_control_system()).system_identifier::text,
    case when pg_is_in_recovery() then 0 else ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int end,
    current_setting('synchronous_standby_names'), current_setting('synchronous_commit'),
    concat_ws(' ', pg_conf_load_time(), (select backend_start from pg_stat_activity where backend_type = 'checkpointer')),
    case when pg_is_in_recovery() then 0 else (pg_current_wal_insert_lsn() - '0/0')::bigint end,
    (select count(*) from pg_stat_replication where lower(application_name) = lower(%(name)s))::int,
    sender.state, sender.sync_state, coalesce((sender.flush_lsn - '0/0')::bigint, 0),
    coalesce((sender.replay_lsn - '0/0')::bigint, 0)
from (select) one
    left join (select * from pg_stat_replication where lower(application_name) = lower(%(name)s) limit 1) sender on true"""

_REPLICA: Final = """
select pg_is_in_recovery(), coalesce((pg_last_wal_replay_lsn() - '0/0')::bigint, 0), receiver.status,
    receiver.last_msg_receipt_time::text, receiver.flushed_lsn::text
from (select) one left join pg_stat_wal_receiver receiver on true"""


class Question:
    """One question asked again and again over one connection, that is made anew when it breaks.

    answer_seconds: how long an answer may take; None: as long as the other machine is there.
    """

    def __init__(
        self,
        dsn: str,
        sql: str,
        parameters: dict[str, Any],
        application_name: str,
        answer_seconds: float | None = ANSWER_SECONDS,
    ) -> None:
        self._dsn = dsn
        self._sql = sql
        self._parameters = parameters
        self._application_name = application_name
        self._answer_seconds = answer_seconds
        self._connection: psycopg.AsyncConnection | None = None

    async def ask(self) -> tuple[Any, ...]:
        """Return the answer's row, empty for a command. Raises psycopg.Error or OSError, within a few seconds whatever the other
        side does."""
        try:
            if self._connection is None:
                self._connection = await self._connect()
            # Cancelling would ask the server to cancel, and wait for that: ours may be frozen. An end of the socket is certain.
            with _time_limit(self._answer_seconds, self._connection.pgconn.socket):
                cursor = await self._connection.execute(self._sql.encode(), self._parameters)
                row = await cursor.fetchone() if cursor.description else ()
            assert row is not None
            return row
        except BaseException:
            await self.close()
            raise

    async def _connect(self) -> psycopg.AsyncConnection:
        connecting = psycopg.AsyncConnection.connect(
            self._dsn,
            autocommit=True,
            **KEEPALIVE | {"connect_timeout": CONNECT_SECONDS},
            application_name=self._application_name,
            client_encoding="utf8",
        )
        try:
            # The time limit is ours as well as libpq's: a name look-up that hangs is not under connect_timeout.
            connection = await asyncio.wait_for(connecting, CONNECT_SECONDS + 1)
        except TimeoutError:
            raise OSError("no connection in time") from None
        connection.prepare_threshold = None
        return connection

    def cut(self) -> None:
        """Let a question under way fail at once."""
        if self._connection is not None and not self._connection.closed:
            _cut(self._connection.pgconn.socket)

    async def close(self) -> None:
        """End the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(psycopg.Error, OSError):
                await connection.close()


@contextlib.contextmanager
def _time_limit(seconds: float | None, descriptor: int) -> Iterator[None]:
    """Shut the socket *descriptor* down after *seconds*."""
    timer = None if seconds is None else asyncio.get_running_loop().call_later(seconds, _cut, descriptor)
    try:
        yield
    finally:
        if timer is not None:
            timer.cancel()


def _cut(descriptor: int) -> None:
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as end:
        end.shutdown(socket.SHUT_RDWR)


class _Path(ABC):
    """A session that is asked again and again. reason: why it does not answer; empty: it does."""

    def __init__(self, question: Question) -> None:
        self._question = question
        self._is_stopped = False
        self.reason = ""

    async def run(self) -> None:
        """Ask until ``stop``."""
        while not self._is_stopped:
            await self.ask()
            await asyncio.sleep(POLL_SECONDS)

    @abstractmethod
    async def ask(self) -> None:
        """Ask once."""

    def stop(self) -> None:
        """Let ``run`` end; it must not be cancelled while it asks, for that would wait for the other side."""
        self._is_stopped = True
        self._question.cut()

    async def close(self) -> None:
        """End the session."""
        await self._question.close()


class PrimaryPath(_Path):
    """A session on the primary. ``heard`` is called with the time of asking whenever it answers."""

    def __init__(self, dsn: str, name: str, heard: Callable[[float], None], saw: Callable[[Sighting, float], None]) -> None:
        super().__init__(Question(dsn, _PRIMARY, {"name": name}, f"{name} watch"))
        self._heard = heard
        self._saw = saw
        self._settings_loaded = ""
        self.is_demoted = False

    async def ask(self) -> None:
        """Ask once."""
        asked_at = boot_seconds()
        try:
            sighting = Sighting(*await self._question.ask())
            if sighting.settings_loaded != self._settings_loaded:
                # A session that lives through a reload tells its own time of it, new ones that of the server: ask for that one.
                await self._question.close()
                sighting = Sighting(*await self._question.ask())
                self._settings_loaded = sighting.settings_loaded
        except (psycopg.Error, OSError) as error:
            self.reason = first_line(str(error)) or type(error).__name__
            self.is_demoted = False
            if _ALIVE.search(self.reason):
                self._heard(asked_at)
            return
        self.reason = ""
        self.is_demoted = sighting.is_in_recovery
        if not sighting.is_in_recovery:
            self._heard(asked_at)
        self._saw(sighting, asked_at)


class ReplicaPath(_Path):
    """A session on the replica here: how it is, and what its replication connection hears of the primary."""

    def __init__(self, dsn: str, name: str, heard: Callable[[float], None]) -> None:
        super().__init__(Question(dsn, _REPLICA, {}, f"{name} watch"))
        self._heard = heard
        self._last: tuple[Any, ...] | None = None
        self.is_up = False
        self.is_in_recovery = True
        self.is_streaming = False
        self.replayed_lsn = 0

    async def ask(self) -> None:
        """Ask once."""
        asked_at = boot_seconds()
        try:
            self.is_in_recovery, self.replayed_lsn, status, *received = await self._question.ask()
        except (psycopg.Error, OSError) as error:
            self.reason = first_line(str(error)) or type(error).__name__
            self.is_up = self.is_streaming = False
            return
        self.reason = ""
        self.is_up = True
        self.is_streaming = status == "streaming"
        # What is new since the last time was said by a primary that lives; no clock of another machine or of a person is asked.
        if self.is_streaming and self._last is not None and tuple(received) != self._last:
            self._heard(asked_at)
        self._last = tuple(received)


class WitnessPath:
    """A third place: a server of this queue, which also tells whether it reaches the database, or any TCP address."""

    def __init__(self, host: str, port: int) -> None:
        self.address = f"{host}:{port}"
        self._host = host
        self._port = port
        self._testimony = Witnessed.UNREACHABLE
        self._asked_at = float("-inf")

    def testimony(self, since: float) -> Witnessed:
        """Return what it last said, if it was asked after *since*: what it said of another hour helps nobody.

        With minus infinity whatever it last said.
        """
        return self._testimony if self._asked_at > since else Witnessed.UNREACHABLE

    async def run(self) -> None:
        """Ask for ever."""
        while True:
            asked_at = boot_seconds()
            self._testimony = await self.ask()
            self._asked_at = asked_at
            await asyncio.sleep(POLL_SECONDS)

    async def ask(self) -> Witnessed:
        """Ask once: ``status`` is not answered without the database."""
        try:
            reader, writer = await asyncio.wait_for(asyncio.open_connection(self._host, self._port), WITNESS_SECONDS)
        except (OSError, TimeoutError):
            return Witnessed.UNREACHABLE
        try:
            writer.write(b"status\n")
            async with asyncio.timeout(WITNESS_SECONDS):
                while line := await reader.readline():
                    if line.startswith(b"ERR"):
                        return Witnessed.REACHABLE
                    if line in (b".\n", b".\r\n"):
                        return Witnessed.REACHES_DATABASE
                    if line.count(b"\t") != 3:
                        return Witnessed.REACHABLE  # it does not speak Gearman
            return Witnessed.REACHABLE
        except (OSError, TimeoutError, ValueError):
            return Witnessed.REACHABLE
        finally:
            writer.transport.abort()
