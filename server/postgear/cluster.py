"""What a database knows of its servers, workers, standbys and itself: for ``postgear cluster`` and ``postgear doctor``.

One look, over a connection of its own, without a server's help. There is no leader to be shown: what must be done once (requeue a
dead server's jobs, queue those that are due) every one does, and the database sees to it that each is done once. Who did
it last is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import psycopg

from postgear.connecting import failed_connection, options
from postgear.errors import SchemaError, StoreError
from postgear.store.told import Standby

_DATABASE = """
select current_database() as name, current_setting('server_version') as version,
    (select system_identifier::text from pg_control_system()) as system,
    case when not pg_is_in_recovery() then left(pg_walfile_name(pg_current_wal_lsn()), 8) end as timeline,
    case when pg_is_in_recovery() then 'standby' when current_setting('transaction_read_only') = 'on' then 'read-only'
        else 'primary' end as role,
    case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_lsn() end::text as lsn,
    current_setting('synchronous_standby_names') as synchronous_standby_names,
    current_setting('synchronous_commit') as synchronous_commit
"""
_MEMBERS = """
select lease, kind, name, coalesce(nullif(address, ''), host, '') as address, pid, version,
    extract(epoch from clock_timestamp() - renewed_at)::float8 as renewed_seconds_ago,
    extract(epoch from clock_timestamp() - duties_at)::float8 as duties_seconds_ago,
    case
        when renewed_at < clock_timestamp() - make_interval(secs => lease_seconds) then 'dead'
        when renewed_at < clock_timestamp() - interval '5 seconds' then 'late'
        when sleeping then 'sleeping'
        else 'awake'
    end as state,
    exists (
        select from pg_locks where locktype = 'advisory' and granted and objsubid = 2
            and database = (select oid from pg_database where datname = current_database())
            and classid = postgear.lease_lock_class()::oid and objid = (lease % 2147483647)::integer::oid
    ) as has_session,
    (select count(*) from postgear.job where job.lease = server.lease) as jobs,
    extract(epoch from clock_timestamp() - started_at)::bigint as up_seconds
from postgear.server
order by kind, lease
"""
_NO_SCHEMA = (
    psycopg.errors.UndefinedTable,
    psycopg.errors.UndefinedColumn,
    psycopg.errors.UndefinedFunction,
    psycopg.errors.InvalidSchemaName,
)
_STANDBYS = "select name, state, sync_state, lag_bytes, lag_seconds from postgear.standbys()"


class Database(NamedTuple):
    """PostgreSQL itself. timeline: eight hexadecimal digits, another after each promotion; None on a standby."""

    name: str
    version: str
    system: str
    timeline: str | None
    role: str
    lsn: str
    synchronous_standby_names: str
    synchronous_commit: str


class Member(NamedTuple):
    """A lease: a server, or a worker straight on the database. has_session: its advisory lock is seen. jobs: those it holds.

    duties_seconds_ago: when it had last done what each does for all (end dead leases, queue due jobs); None: it has not told.
    """

    lease: int
    kind: str
    name: str
    address: str
    pid: int
    version: str
    renewed_seconds_ago: float
    duties_seconds_ago: float | None
    state: str
    has_session: bool
    jobs: int
    up_seconds: int


class Cluster(NamedTuple):
    """All of it."""

    database: Database
    members: list[Member]
    standbys: list[Standby]

    @property
    def last_at_duties(self) -> Member | None:
        """Who did last what each does for all; None: nobody has told."""
        told = [member for member in self.members if member.duties_seconds_ago is not None]
        return min(told, key=lambda member: member.duties_seconds_ago or 0.0, default=None)


def look(dsn: str) -> Cluster:
    """Return what *dsn* knows. Raises StoreUnavailable, SchemaError, StoreError."""
    with session(dsn) as connection:
        return Cluster(database(connection), members(connection), standbys(connection))


@contextmanager
def session(dsn: str) -> Iterator[psycopg.Connection[Any]]:
    """Give a connection that commits each statement; errors of psycopg become ours."""
    try:
        with psycopg.connect(**options(dsn, autocommit=True, client_encoding="utf8")) as connection:
            yield connection
    except _NO_SCHEMA as error:
        raise SchemaError(
            "the database has no schema postgear of this version; `postgear init` creates or upgrades it"
        ) from error
    except psycopg.OperationalError as error:
        raise failed_connection(error) from error
    except psycopg.Error as error:
        raise StoreError(str(error).strip()) from error


def database(connection: psycopg.Connection[Any]) -> Database:
    """Return what PostgreSQL says of itself; it needs no schema."""
    row = connection.execute(_DATABASE).fetchone()
    assert row is not None
    return Database(*row)


def members(connection: psycopg.Connection[Any]) -> list[Member]:
    """Return the leases, servers first."""
    return [Member(*row) for row in connection.execute(_MEMBERS)]


def standbys(connection: psycopg.Connection[Any]) -> list[Standby]:
    """Return the standbys, by name."""
    return [Standby(*row) for row in connection.execute(_STANDBYS)]
