"""A producer by SQL: ``python -m tests.failover.chaos.sql_producer NAME SEED JOURNAL DSN``, until SIGTERM.

Each transaction writes a row of its own and queues the job of that row: by ``gman_do_background``, or by a trigger of the
row's table.
Some are rolled back; some jobs share a unique with the producers over the wire.
"""

from __future__ import annotations

import random
import signal
import sys
import time

import psycopg

from tests.failover.chaos.producer import UNIQUES
from tests.failover.chaos.records import ACKED, ASKED, REFUSED, ROLLED_BACK, Journal

PAUSE_SECONDS = 0.02


class RollBack(Exception):
    """The transaction is not wanted."""


class SqlProducer:
    """Makes rows and jobs."""

    def __init__(self, name: str, seed: str, journal: Journal, dsn: str) -> None:
        self._name = name
        self._random = random.Random(seed)
        self._round = name.partition("-")[0]
        self._journal = journal
        self._dsn = dsn
        self._number = 0
        self._has_warned = False
        self.is_stopping = False

    def run(self) -> None:
        """Produce until told to stop."""
        while not self.is_stopping:
            try:
                # PgBouncer knows prepared statements from 1.21 on.
                with psycopg.connect(self._dsn, autocommit=True, prepare_threshold=None, connect_timeout=5) as connection:
                    connection.add_notice_handler(self._notice)
                    while not self.is_stopping:
                        self._produce(connection)
                        time.sleep(PAUSE_SECONDS)
            except psycopg.Error:
                time.sleep(0.1)

    def _notice(self, notice: psycopg.errors.Diagnostic) -> None:
        self._has_warned |= notice.severity_nonlocalized == "WARNING"

    def _produce(self, connection: psycopg.Connection[tuple[str]]) -> None:
        self._number += 1
        token = f"{self._name}.{self._number}.{self._random.randint(0, 3)}"
        kind = self._random.choice(["call", "call", "trigger"])
        unique = f"{self._round}-u{self._random.randrange(UNIQUES)}" if kind == "call" and self._random.random() < 0.1 else None
        is_unwanted = self._random.random() < 0.1
        self._has_warned = False
        self._journal.write(time.monotonic(), ASKED, token, unique or "-", 0)
        handle = "-"
        try:
            with connection.transaction():
                if kind == "trigger":
                    connection.execute("insert into chaos.article (token) values (%s)", (token,))
                else:
                    if unique is None:
                        connection.execute("insert into chaos.produced (token) values (%s)", (token,))
                    row = connection.execute("select gman_do_background('chaos', %s::text, %s::text)", (token, unique)).fetchone()
                    assert row is not None
                    handle = row[0]
                if is_unwanted:
                    raise RollBack
        except RollBack:
            self._journal.write(time.monotonic(), ROLLED_BACK, token)
        except psycopg.Error:
            self._journal.write(time.monotonic(), REFUSED, token)
            if connection.broken:
                raise
        else:
            if self._has_warned:  # committed here, but not known to be at the standby
                self._journal.write(time.monotonic(), REFUSED, token)
            else:
                self._journal.write(time.monotonic(), ACKED, token, handle)


def main(name: str, seed: str, journal: str, dsn: str) -> None:
    """Produce until SIGTERM."""
    producer = SqlProducer(name, seed, Journal(journal), dsn)

    def stop(*_: object) -> None:
        producer.is_stopping = True

    signal.signal(signal.SIGTERM, stop)
    producer.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
