"""``postgear doctor``: look at everything that a queue stands on, and say of each whether it is right and what to do.

Each check is a generator of findings; ``CHECKS`` is their order. Nothing is changed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import Any, Final, NamedTuple

import psycopg

from postgear import __version__, cluster, schema
from postgear.errors import PostgearError, SchemaError
from postgear.listening import ADVICE, HEARD_SECONDS

OLD_SNAPSHOT_SECONDS: Final = 600
"""A transaction that is older keeps the dead rows of every finished job since; claims do not walk them, vacuum cannot clean."""
SLOT_MAX_BYTES: Final = 1 << 30
OLDEST_VERSION: Final = 140_000


class Level(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


class Finding(NamedTuple):
    """A line. advice: what to do; empty where all is well."""

    level: Level
    name: str
    text: str
    advice: str = ""


Connection = psycopg.Connection[Any]
Check = Callable[[Connection], Iterator[Finding]]


def examine(dsn: str) -> Iterator[Finding]:
    """Yield what is found, in reading order; ends early where the rest cannot be asked."""
    try:
        with cluster.session(dsn) as connection:
            info = connection.info
            text = f"{info.host}:{info.port}/{info.dbname} as {info.user}, PostgreSQL {info.parameter_status('server_version')}"
            old = info.server_version < OLDEST_VERSION
            yield (
                Finding(Level.WARN, "connection", text, "PostgreSQL 14 is the oldest that is tested")
                if old
                else Finding(Level.OK, "connection", text)
            )
            for check in CHECKS:
                for finding in check(connection):
                    yield finding
                    if finding.level is Level.FAIL and check in (_role, _schema):
                        return
    except PostgearError as error:
        name = "schema" if isinstance(error, SchemaError) else "connection"
        yield Finding(
            Level.FAIL, name, str(error), "check that PostgreSQL runs and that the DSN is right; see also `postgear init`"
        )


def _role(connection: Connection) -> Iterator[Finding]:
    found = cluster.database(connection)
    text = f"{found.role}, system {found.system}, timeline {found.timeline or '-'}, at {found.lsn}"
    if found.role == "primary":
        yield Finding(Level.OK, "role", text)
    else:
        yield Finding(
            Level.FAIL, "role", text, "name the primary, or all hosts with commas: libpq finds the one that takes writes"
        )


def _schema(connection: Connection) -> Iterator[Finding]:
    found = None
    if _one(connection, "select to_regclass('postgear.alembic_version') is not null"):
        found = str(_one(connection, "select version_num from postgear.alembic_version"))
    try:
        schema.check(found)
    except SchemaError as error:
        yield Finding(Level.FAIL, "schema", str(error), "run `postgear init`")
        return
    if found != schema.VERSION:
        yield Finding(Level.WARN, "schema", f"version {found}, newer than this program's {schema.VERSION}", "upgrade the servers")
    else:
        yield Finding(Level.OK, "schema", f"version {found}, queue {_one(connection, 'select name from postgear.queue')}")


def _rights(connection: Connection) -> Iterator[Finding]:
    missing = [
        name
        for (name,) in connection.execute(
            "select name from unnest(array['postgear_producer', 'postgear_worker', 'postgear_admin', 'postgear_trigger'])"
            " as name where to_regrole(name) is null"
        )
    ]
    if missing:
        advice = "let an administrator create them, then run `postgear init` again"
        yield Finding(Level.WARN, "roles", f"missing: {', '.join(missing)}", advice)
    if not _one(
        connection,
        "select has_table_privilege('postgear.job', 'select, insert') and has_table_privilege('postgear.batch', 'update')",
    ):
        yield Finding(Level.FAIL, "roles", f"{connection.info.user} may not serve", "grant it postgear_worker")
    elif not missing:
        yield Finding(Level.OK, "roles", f"all four are there, and {connection.info.user} may serve")


def _durability(connection: Connection) -> Iterator[Finding]:
    for name in ("fsync", "full_page_writes"):
        if _one(connection, "select current_setting(%s)", name) != "on":
            yield Finding(Level.FAIL, "durability", f"{name} is off", f"set {name} = on: a crash of the machine loses the queue")
    level = _one(connection, "select current_setting('synchronous_commit')")
    if level == "off":
        text = "synchronous_commit is off: what SQL queues is durable half a second later (servers set it on for themselves)"
        yield Finding(Level.WARN, "durability", text, "alter role ... set synchronous_commit = on")
    else:
        yield Finding(Level.OK, "durability", f"synchronous_commit is {level}")
    tiers = connection.execute(
        "select durability, count(*) from postgear.function where durability <> 'replicated' and not dropped"
        " group by 1 order by 1"
    ).fetchall()
    if tiers:
        yield Finding(Level.OK, "durability", "functions that promise less: " + ", ".join(f"{n} {tier}" for tier, n in tiers))


def _replication(connection: Connection) -> Iterator[Finding]:
    names = _one(connection, "select current_setting('synchronous_standby_names')")
    standbys = cluster.standbys(connection)
    for each in standbys:
        lag = "unknown" if each.lag_bytes is None else f"{each.lag_bytes} bytes"
        yield Finding(
            Level.OK, "standby", f"{each.name}: {each.state or 'state not shown'}, {each.sync_state or '?'}, behind by {lag}"
        )
    if _one(connection, "select postgear.has_sync_standby()"):
        yield Finding(Level.OK, "replication", "synchronous: what is acknowledged is on a standby")
    elif names:
        yield Finding(
            Level.FAIL,
            "replication",
            f"synchronous_standby_names is {names!r}, and none of them is connected: every commit waits",
            "see first whether the standby has taken over (postgear cluster --dsn of it says primary): then stop this one and run"
            " `postgear rejoin`; if not: start it, or, if the queue must go on without it, empty synchronous_standby_names",
        )
    elif standbys:
        yield Finding(
            Level.WARN,
            "replication",
            "asynchronous: a failover loses what was acknowledged last",
            "name the standby in synchronous_standby_names, and serve with --require-sync",
        )
    else:
        yield Finding(Level.OK, "replication", "no standby: the queue is as safe as this machine's disk")


def _slots(connection: Connection) -> Iterator[Finding]:
    rows = connection.execute(
        "select slot_name, active, wal_status, coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn), 0)::bigint"
        " from pg_replication_slots order by 1"
    ).fetchall()
    for name, active, status, kept in rows:
        text = f"{name}: {'in use' if active else 'not in use'}, keeps {kept >> 20} MB of WAL"
        if status == "lost":
            yield Finding(Level.FAIL, "slot", f"{name}: its WAL is gone", "make its standby anew from a base backup")
        elif not active and kept > SLOT_MAX_BYTES:
            yield Finding(Level.WARN, "slot", text, "bring its standby back, or drop the slot before the disk is full")
        else:
            yield Finding(Level.OK, "slot", text)


def _snapshots(connection: Connection) -> Iterator[Finding]:
    rows = connection.execute(
        "select pid::text, coalesce(usename, '?'), extract(epoch from clock_timestamp() - xact_start)::bigint as seconds"
        " from pg_stat_activity where xact_start is not null and (backend_xmin is not null or backend_xid is not null)"
        " and pid <> pg_backend_pid() and xact_start < clock_timestamp() - make_interval(secs => %(limit)s)"
        " union all select gid, owner, extract(epoch from clock_timestamp() - prepared)::bigint from pg_prepared_xacts"
        " where prepared < clock_timestamp() - make_interval(secs => %(limit)s) order by 3 desc",
        {"limit": OLD_SNAPSHOT_SECONDS},
    ).fetchall()
    for what, owner, seconds in rows:
        text = f"{what} of {owner} is open for {seconds} s"
        yield Finding(Level.WARN, "transaction", text, "end it: while it is open the rows of finished jobs stay in the table")
    if not rows:
        yield Finding(Level.OK, "transactions", f"none is older than {OLD_SNAPSHOT_SECONDS} s")


def _leases(connection: Connection) -> Iterator[Finding]:
    members = cluster.members(connection)
    if not any(member.kind == "server" for member in members):
        yield Finding(Level.WARN, "servers", "none runs on this database", "start one with `postgear serve`")
    for member in members:
        text = f"{member.name} at {member.address}, lease {member.lease}, renewed {member.renewed_seconds_ago:.1f} s ago"
        if member.state in ("late", "dead"):
            advice = "it hangs or is cut off; others take its jobs when its lease ends"
            yield Finding(Level.WARN, member.kind, f"{text}: {member.state}", advice)
        elif not member.has_session:
            advice = "connect servers to PostgreSQL itself, or through a pooler in session mode"
            yield Finding(Level.WARN, member.kind, f"{text}: its advisory lock is not seen", advice)
        else:
            yield Finding(Level.OK, member.kind, text)
    versions = sorted({member.version for member in members} - {__version__})
    if versions:
        text = f"{', '.join(versions)} run, this program is {__version__}"
        yield Finding(Level.WARN, "versions", text, "fine for the time of an upgrade; then restart those that are left")


def _notify(connection: Connection) -> Iterator[Finding]:
    """Try the way from here; each server tries its own (``listening``), and tells its log and its metrics."""
    usage = float(_one(connection, "select pg_notification_queue_usage()"))
    if usage > 0.1:
        advice = "a session that listens is in a long transaction: end it"
        yield Finding(Level.WARN, "notify", f"the queue of notifications is {usage:.0%} full", advice)
    channel = f"postgear_doctor_{connection.info.backend_pid}"
    connection.execute(f"listen {channel}")
    started = time.monotonic()
    connection.execute(f"notify {channel}")
    if next(connection.notifies(timeout=HEARD_SECONDS, stop_after=1), None) is None:
        yield Finding(Level.FAIL, "notify", f"a NOTIFY did not come back within {HEARD_SECONDS:g} s", ADVICE)
        connection.execute(f"unlisten {channel}")
        return
    seconds = time.monotonic() - started
    if seconds > HEARD_SECONDS:
        text = f"a NOTIFY came back after {seconds:.1f} s: its commit had to wait"
        yield Finding(Level.WARN, "notify", text, "see what commits wait for: a synchronous standby that is away, a slow disk")
    else:
        yield Finding(Level.OK, "notify", f"came back within {seconds * 1000:.0f} ms")
    connection.execute(f"unlisten {channel}")


CHECKS: Final[tuple[Check, ...]] = (
    _role,
    _schema,
    _rights,
    _durability,
    _replication,
    _slots,
    _snapshots,
    _leases,
    _notify,
)


def _one(connection: Connection, sql: str, *parameters: object) -> Any:
    row = connection.execute(sql, parameters or None).fetchone()
    assert row is not None
    return row[0]
