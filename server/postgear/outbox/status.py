"""``postgear mysql status|retry``, and the relays as the queue's database knows them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from . import rows, schema
from .connecting import Address, connection


class Status(NamedTuple):
    """What an outbox holds. *waiting*, *set_aside*: counted up to 100,000. *last_error*: of the row set aside last."""

    outbox: str
    version: int
    waiting: int
    oldest_seconds: int
    set_aside: int
    last_error: str


def status(address: Address) -> Status:
    """Return what the outbox holds. Raises OutboxRefused where there is none, OutboxError."""
    with connection(address) as session:
        version = schema.check(session, address).version
        waiting = rows.waiting(session)
        with session.cursor() as cursor:
            cursor.execute("select concat(id, ': ', error) from postgear_outbox_failed order by number desc limit 1")
            last = cursor.fetchone()
    oldest = 0 if waiting.oldest is None else int(waiting.oldest.total_seconds())
    return Status(str(address), version, waiting.rows, oldest, waiting.failed, "" if last is None else str(last[0]))


def retry(address: Address, ids: Sequence[int] | None) -> int:
    """Put rows that were set aside back, None: all; return their number. Raises as ``status`` does."""
    with connection(address) as session:
        schema.check(session, address)
        return rows.put_back(session, ids)
