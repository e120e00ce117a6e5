"""What PostgreSQL tells of itself and of those that work with it, for people and for failover."""

from __future__ import annotations

from typing import NamedTuple


class Cluster(NamedTuple):
    """Which PostgreSQL it is. timeline: eight hexadecimal digits, another after each promotion."""

    system: str
    timeline: str
    started_at: str


class Standby(NamedTuple):
    """A standby that streams. What this role may not see is None."""

    name: str
    state: str | None
    sync_state: str | None
    lag_bytes: int | None
    lag_seconds: float | None


class Relay(NamedTuple):
    """An outbox in MariaDB or MySQL, as its relay told last; what it has not told is None.

    oldest_seconds: how far the queue is, or may be, behind; None: not at all.
    """

    outbox: str
    is_working: bool
    waiting: int | None
    oldest_seconds: float | None
    rows_per_second: float | None
    moved: int
    failed: int
