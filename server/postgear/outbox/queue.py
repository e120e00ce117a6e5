"""The relay's side of the queue in PostgreSQL: a session that calls ``register_relay``, ``relay_jobs`` and ``report_relay``."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

import psycopg
from psycopg import generators, pq
from psycopg.pq import ExecStatus

from postgear.connecting import failed_connection, options
from postgear.errors import SchemaError, StoreError, StoreInDoubt, StoreUnavailable
from postgear.store import arrays
from postgear.store.session import SETTINGS

from .rows import Row

_TAKEN_OVER: Final = "55000"
_WRONG_DATA: Final = ("22", "23", "54", "P0")
"""Classes of errors that come from the values: the same call would meet them again."""
_AGAIN: Final = ("08", "25006", "40", "53", "55P03", "57")
_BOOL_ARRAY, _BYTEA_ARRAY, _INT2_ARRAY, _INT8_ARRAY = 1000, 1001, 1005, 1016
_RELAY_JOBS: Final = b"select batch_number, refused from postgear.relay_jobs($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11)"
_TYPES: Final = (
    *(23, 20, 20),
    *(_INT8_ARRAY, _INT8_ARRAY, _BYTEA_ARRAY, _BYTEA_ARRAY, _BYTEA_ARRAY, _INT2_ARRAY, _INT8_ARRAY, _BOOL_ARRAY),
)


class TakenOver(Exception):
    """Another relay works on the outbox: this one has been silent for too long."""


class WrongData(StoreError):
    """PostgreSQL does not take the values of some row; nothing was stored."""


class Stored(NamedTuple):
    """What became of a batch. *refused*: the ids of rows whose function's queue is full."""

    batch: int
    refused: list[int]


class Queue:
    """A session with PostgreSQL for one outbox; ``take_over`` first."""

    def __init__(self, connection: psycopg.Connection[tuple[Any, ...]]) -> None:
        self._connection = connection
        self._relay = 0
        self._generation = 0
        self._settled = 0
        self._is_warned = False
        connection.add_notice_handler(self._notice)
        self._connection.execute(SETTINGS)

    def take_over(self, source: str, outbox: str, holder: str, lease_seconds: float) -> bool:
        """Become the one relay of the outbox *source*; False: another is. Raises StoreError and its kin."""
        row = self._one("select * from postgear.register_relay(%s, %s, %s, %s)", source, outbox, holder, lease_seconds)
        self._check_durable()
        if row[1] is None:
            return False
        self._relay, self._generation, self._settled = row
        return True

    def unsettled(self) -> Iterator[tuple[int, list[tuple[int, int]]]]:
        """Yield the batches whose rows may still be in the outbox: number, and id and time of each row."""
        query = "select batch, row_ids, row_times from postgear.relayed where relay_id = %s and batch > %s order by batch"
        with _translated():
            found = self._connection.execute(query, (self._relay, self._settled)).fetchall()
        for batch, ids, times in found:
            yield batch, list(zip(ids, times, strict=True))

    def settle(self, batch: int) -> None:
        """Say that the rows of all batches up to this one are deleted; stored with the next call."""
        self._settled = max(self._settled, batch)

    def store(self, rows: Sequence[Row]) -> Stored:
        """Store rows as jobs in one transaction, but those that are stored already; returns after commit.

        Raises TakenOver, WrongData (then nothing is stored), StoreInDoubt (it may be stored: connect anew), StoreUnavailable.
        """
        columns = list(zip(*rows, strict=True))
        ids, times, functions, keys, priorities, run_ats, until_claimed, workloads = columns
        parameters = [
            struct.pack(">i", self._relay),
            struct.pack(">q", self._generation),
            struct.pack(">q", self._settled),
            arrays.int8_array(ids),
            arrays.int8_array(times),
            arrays.bytea_array(functions),
            arrays.bytea_array(workloads),
            arrays.bytea_array(keys, empty_is_null=True),
            arrays.int2_array(priorities),
            arrays.sparse_int8_array({place: at for place, at in enumerate(run_ats) if at is not None}, len(rows)),
            arrays.bool_array(until_claimed),
        ]
        connection = self._connection
        try:
            connection.pgconn.send_query_params(_RELAY_JOBS, parameters, _TYPES, [1] * len(parameters), 1)
            (result,) = connection.wait(generators.execute(connection.pgconn))
        except psycopg.Error as error:
            raise StoreInDoubt(f"the connection broke while rows were stored: {str(error).strip()}") from error
        if result.status != ExecStatus.TUPLES_OK:
            raise self._refusal(result)
        self._check_durable()
        batch = result.get_value(0, 0)
        assert batch is not None
        return Stored(struct.unpack(">q", batch)[0], arrays.read_int8_array(result.get_value(0, 1)))

    def report(self, waiting: int | None, failed: int, oldest_seconds: float | None, rate: float, error: str | None) -> None:
        """Renew the hold on the outbox and say how it goes; *waiting*: None: it could not be read, or rows not stored.

        Raises TakenOver; else as ``take_over``.
        """
        (is_ours,) = self._one(
            "select postgear.report_relay(%s, %s, %s, %s, %s, %s, %s, %s)",
            *(self._relay, self._generation, self._settled, waiting, failed, oldest_seconds, rate, error),
        )
        if not is_ours:
            raise TakenOver

    def hand_back(self) -> None:
        """Say that nobody works on the outbox any more; another relay may when this session ends. Raises as ``take_over``."""
        with _translated():
            self._connection.execute(
                "update postgear.relay set holder = null where id = %s and generation = %s", (self._relay, self._generation)
            )

    def _one(self, query: str, *parameters: object) -> tuple[Any, ...]:
        with _translated():
            row = self._connection.execute(query.encode(), parameters).fetchone()
        assert row is not None
        return row

    def _refusal(self, result: pq.abc.PGresult) -> Exception:
        state = (result.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode()
        text = (result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or b"").decode("utf-8", "replace")
        if state == _TAKEN_OVER:
            return TakenOver()
        if state.startswith(_WRONG_DATA):
            return WrongData(text)
        if state.startswith(_AGAIN):
            return StoreUnavailable(text)
        return StoreError(text)

    def _notice(self, notice: psycopg.errors.Diagnostic) -> None:
        if "canceling wait for synchronous replication" in (notice.message_primary or ""):
            self._is_warned = True

    def _check_durable(self) -> None:
        if self._is_warned:
            # The next commit that does not say so proves that the standby has this one, too.
            self._is_warned = False
            raise StoreInDoubt("PostgreSQL gave up waiting for its standby")


@contextmanager
def connected(dsn: str) -> Iterator[Queue]:
    """Open a session, each statement a transaction. Raises StoreUnavailable and its kin, SchemaError."""
    with (
        _translated(),
        psycopg.connect(
            **options(
                dsn,
                autocommit=True,
                client_encoding="utf8",
                application_name="postgear relay",
                target_session_attrs="read-write",
            )
        ) as session,
    ):
        yield Queue(session)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except psycopg.OperationalError as error:
        raise failed_connection(error) from error
    except (psycopg.errors.InvalidSchemaName, psycopg.errors.UndefinedTable, psycopg.errors.UndefinedFunction) as error:
        raise SchemaError(
            "the database has no schema postgear of this version; `postgear init` creates or upgrades it"
        ) from error
    except psycopg.errors.InsufficientPrivilege as error:
        raise StoreError(f"{error.diag.message_primary} (run: grant postgear_worker to the relay's role)") from error
    except psycopg.Error as error:
        raise StoreError(str(error).strip()) from error
