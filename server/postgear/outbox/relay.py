"""``postgear relay``: moves the rows of an outbox in MariaDB or MySQL into the queue, in order, in batches, each row once.

A batch takes three steps, each a transaction: the oldest rows are read; PostgreSQL stores them as jobs and records in the same
transaction which they were; they are deleted from the outbox. Whatever dies in between, the next relay finds the rows again, and
PostgreSQL leaves out those that are recorded. Of several relays one works and the others wait (``register_relay``).
"""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from postgear import schema as queue_schema
from postgear.errors import OutboxError, OutboxUnavailable, SchemaError, StoreError, StoreInDoubt, StoreUnavailable
from postgear.logs import event

from . import rows as outbox_rows
from . import schema
from .connecting import Address, connection
from .queue import Queue, TakenOver, WrongData, connected

log = logging.getLogger("postgear.relay")

STAND_BY_SECONDS: Final = 0.5
_REPORT_SECONDS: Final = 1.0
_FULL_SECONDS: Final = 1.0
"""How long a function's rows are left where they are when its queue was full."""
_GATHER_SECONDS: Final = 0.01
"""The pause after a batch that was not full, so that the next is worth its commits."""
_RETRY_SECONDS: Final = (0.1, 5.0)
_REFUSED_IN_A_ROW: Final = 100
"""When PostgreSQL has refused so many rows and stored none in between, it is not the rows: no more are set aside."""


class Settings(NamedTuple):
    """*lease_seconds*: how long a relay may be silent until another takes over though its session lives."""

    batch_rows: int = 5000
    poll_seconds: float = 0.1
    lease_seconds: float = 15.0
    once: bool = False


def run(address: Address, dsn: str, settings: Settings) -> int:
    """Relay until SIGTERM or SIGINT, with ``once`` until the outbox is empty; return the number of rows moved.

    What refuses it at its start is raised (OutboxRefused, StoreRefused, SchemaError, …); once it has worked it tries for ever.
    """
    queue_schema.check(queue_schema.current(dsn)) if settings.once else _check_when_there(dsn)
    with _until_signal() as wait:
        relay = Relay(address, dsn, settings, wait)
        relay.run()
    if not settings.once:
        event(log, logging.INFO, "stopped", outbox=str(address), rows_moved=relay.moved)
    return relay.moved


def _check_when_there(dsn: str) -> None:
    from postgear.errors import StoreRefused

    try:
        queue_schema.check(queue_schema.current(dsn))
    except StoreRefused:
        raise
    except StoreUnavailable:
        return  # it may come yet


class Relay:
    """One relay. *wait* takes seconds and returns true when it is to end."""

    def __init__(self, address: Address, dsn: str, settings: Settings, wait: Callable[[float], bool]) -> None:
        self.moved = 0
        self._address, self._dsn, self._settings, self._wait = address, dsn, settings, wait
        self._holder = f"{socket.gethostname()}:{os.getpid()}"
        self._source: str | None = None
        self._full: dict[bytes, float] = {}
        self._failed = 0
        self._error: str | None = None
        self._is_failing = False
        self._reported_at = time.monotonic()
        self._reported_moved = 0
        self._told_state = ""
        self._told_error = ""
        self._pause = _RETRY_SECONDS[0]
        self._refused = 0

    def run(self) -> None:
        """Connect, work, and after an error connect again."""
        while not self._wait(0):
            try:
                self._work()
                return
            except TakenOver:
                self._tell_state("taken_over", logging.WARNING)
            except (OutboxError, StoreError, SchemaError) as error:
                is_passing = isinstance(error, OutboxUnavailable | StoreInDoubt) or type(error) is StoreUnavailable
                if self._settings.once or not (is_passing or self._source):
                    raise
                self._error = str(error)
                self._told_state = ""
                if self._told_error != str(error):
                    event(log, logging.WARNING, "retry", error=str(error))
                self._told_error = str(error)
            if self._wait(self._pause):
                return
            self._pause = min(2 * self._pause, _RETRY_SECONDS[1])

    def _work(self) -> None:
        with connected(self._dsn) as queue:
            try:
                while self._work_on(queue):
                    pass
            except (OutboxError, StoreError) as error:
                self._tell_failure(queue, error)
                raise

    def _tell_failure(self, queue: Queue, error: OutboxError | StoreError) -> None:
        """Say in the queue that nothing is moved, and why, if PostgreSQL takes at least this."""
        try:
            if self._source is not None and self._take_over(queue):
                self._error, self._is_failing = str(error), True
                self._report(queue, None)
        except StoreError as other:
            raise error from other

    def _work_on(self, queue: Queue) -> bool:
        """Work over one connection to the outbox; true: it is spent, another is wanted."""
        with connection(self._address) as session:
            self._source = schema.check(session, self._address).source
            while not self._take_over(queue):
                if self._settings.once:
                    raise StoreError("another relay is at work on this outbox")
                self._tell_state("standing_by")
                if self._wait(STAND_BY_SECONDS):
                    return False
            for number, rows in queue.unsettled():
                outbox_rows.delete(session, outbox_rows.present(session, rows))
                queue.settle(number)
            # Rows that PostgreSQL refused are tried again after this; until they are stored nothing is as it should be.
            self._report(queue, None if self._is_failing else session)
            while True:
                batch = outbox_rows.read(session, self._settings.batch_rows, self._full_functions())
                if batch.is_cut:
                    with connection(self._address) as other:
                        self._move(queue, other, batch)
                    self._is_failing = False
                    return True
                self._move(queue, session, batch)
                self._tell_state("working")
                # Not before: what fails in each batch would be told, and tried, again and again.
                self._told_error, self._pause = "", _RETRY_SECONDS[0]
                if self._is_failing or time.monotonic() >= self._reported_at + _REPORT_SECONDS:
                    self._is_failing = False
                    self._report(queue, session)
                size = len(batch.rows) + len(batch.wrong)
                if not size and self._settings.once:
                    return self._end(queue, session)
                pause = 0.0 if size == self._settings.batch_rows else _GATHER_SECONDS if size else self._settings.poll_seconds
                if self._wait(pause):
                    return self._end(queue, session)

    def _end(self, queue: Queue, session: Any) -> bool:
        self._report(queue, session)
        queue.hand_back()
        return False

    def _take_over(self, queue: Queue) -> bool:
        assert self._source is not None
        return queue.take_over(self._source, str(self._address), self._holder, self._settings.lease_seconds)

    def _tell_state(self, state: str, level: int = logging.INFO) -> None:
        if state != self._told_state:
            event(log, level, state, outbox=str(self._address))
        self._told_state = state

    def _move(self, queue: Queue, session: Any, batch: outbox_rows.Batch) -> None:
        self._set_aside(session, batch.wrong)
        if batch.rows:
            self._store(queue, session, batch.rows)

    def _store(self, queue: Queue, session: Any, rows: Sequence[outbox_rows.Row]) -> None:
        """Store and delete rows; those that PostgreSQL does not take are found by halves and set aside."""
        try:
            stored = queue.store(rows)
        except WrongData as error:
            if len(rows) == 1:
                self._refused += 1
                if self._refused > _REFUSED_IN_A_ROW:
                    raise StoreError(
                        f"PostgreSQL refused {_REFUSED_IN_A_ROW} rows in a row, now {rows[0].id}: {error}"
                    ) from error
                self._set_aside(session, {rows[0].id: str(error)})
            else:
                middle = len(rows) // 2
                self._store(queue, session, rows[:middle])
                self._store(queue, session, rows[middle:])
            return
        self._refused = 0
        refused = set(stored.refused)
        if refused:
            until = time.monotonic() + _FULL_SECONDS
            self._full |= {row.function: until for row in rows if row.id in refused}
        ids = [row.id for row in rows if row.id not in refused]
        outbox_rows.delete(session, ids)
        queue.settle(stored.batch)
        self.moved += len(ids)

    def _set_aside(self, session: Any, wrong: dict[int, str]) -> None:
        outbox_rows.set_aside(session, wrong)
        for row_id, error in wrong.items():
            self._error = f"row {row_id} set aside: {error}"
            event(log, logging.ERROR, "set_aside", row=row_id, error=error)
        self._failed += len(wrong)

    def _full_functions(self) -> list[bytes]:
        now = time.monotonic()
        if self._full and not self._settings.once:
            self._full = {name: until for name, until in self._full.items() if until > now}
        return list(self._full)

    def _report(self, queue: Queue, session: Any) -> None:
        now = time.monotonic()
        rate = (self.moved - self._reported_moved) / max(now - self._reported_at, 0.001)
        waiting = None if session is None else outbox_rows.waiting(session)
        oldest = None if waiting is None or waiting.oldest is None else waiting.oldest.total_seconds()
        queue.report(None if waiting is None else waiting.rows, self._failed, oldest, rate, self._error)
        self._failed, self._error = 0, None
        self._reported_at, self._reported_moved = now, self.moved


@contextmanager
def _until_signal() -> Iterator[Callable[[float], bool]]:
    """Yield what waits some seconds and tells whether SIGTERM or SIGINT has come; a second one ends at once."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    is_ended = False

    def end(number: int, frame: object) -> None:
        nonlocal is_ended
        if is_ended:
            raise KeyboardInterrupt
        is_ended = True
        os.write(writer, b"\0")

    def wait(seconds: float) -> bool:
        if seconds and not is_ended:
            select.select([reader], [], [], seconds)
        return is_ended

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield wait
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(reader)
        os.close(writer)
