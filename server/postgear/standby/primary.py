"""Questions to the primary, and what is set there for a standby. Blocking; for set-up and by hand.

What watches the primary all the time is in ``paths``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import psycopg
from psycopg import sql

from postgear.connecting import failed_connection
from postgear.errors import StandbyError
from postgear.standby.replica import CONNECT_SECONDS, quoted
from postgear.standby.synchrony import parse_names

_IDENTITY: Final = """
select pg_is_in_recovery(), (pg_control_system()).system_identifier::text,
    case when pg_is_in_recovery() then (pg_control_checkpoint()).timeline_id
        else ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int end,
    (select rolname::text from pg_roles where oid = 10), current_database()::text,
    current_setting('server_version_num')::int / 10000, current_setting('wal_log_hints') = 'on'
        or current_setting('data_checksums') = 'on'"""
_NOT_COPIED: Final = (
    "archive_cleanup_command", "archive_command", "archive_library", "archive_mode", "cluster_name", "config_file",
    "data_directory", "event_source", "external_pid_file", "hba_file", "ident_file", "listen_addresses",
    "log_destination", "log_directory", "log_filename", "logging_collector", "port", "primary_conninfo",
    "primary_slot_name", "promote_trigger_file", "restore_command", "ssl", "stats_temp_directory",
    "synchronous_standby_names", "syslog_facility", "unix_socket_directories", "unix_socket_group",
    "unix_socket_permissions",
)  # fmt: skip
"""Settings of the primary's machine, not of its data; those of ssl_* are left out, too."""


@dataclass(frozen=True)
class Identity:
    """Which PostgreSQL answers."""

    is_in_recovery: bool
    system_identifier: str
    timeline: int
    superuser: str
    database: str
    major_version: int
    can_be_rewound: bool
    """Whether pg_rewind can bring it back one day."""


@contextmanager
def connected(dsn: str) -> Iterator[psycopg.Connection]:
    """Connect to the primary, each statement a transaction of its own. Raises StandbyError with what it said."""
    try:
        connection = psycopg.connect(dsn, autocommit=True, connect_timeout=CONNECT_SECONDS, client_encoding="utf8")
    except psycopg.Error as error:
        raise StandbyError(f"the primary: {failed_connection(error)}") from error
    with contextlib.closing(connection):
        try:
            yield connection
        except psycopg.Error as error:
            raise StandbyError(f"the primary refused: {str(error).strip()}") from error


def identify(connection: psycopg.Connection) -> Identity:
    """Ask which PostgreSQL this is."""
    row = connection.execute(_IDENTITY).fetchone()
    assert row is not None
    return Identity(*row)


def create_slot(connection: psycopg.Connection, name: str) -> None:
    """Make the physical slot *name* unless it is there, so that the primary keeps the WAL that the standby needs."""
    row = connection.execute(
        "select active, slot_type, coalesce(wal_status, '') = 'lost' from pg_replication_slots where slot_name = %s", (name,)
    ).fetchone()
    if row is not None and row[1] != "physical":
        raise StandbyError(f"the primary's slot {name} is not a physical one; name another with --standby-name")
    if row is not None and row[2]:
        connection.execute("select pg_drop_replication_slot(%s)", (name,))
        row = None
    if row is None:
        connection.execute("select pg_create_physical_replication_slot(%s, true)", (name,))


def is_slot_active(connection: psycopg.Connection, name: str) -> bool:
    """Whether a standby uses the slot *name*."""
    row = connection.execute("select active from pg_replication_slots where slot_name = %s", (name,)).fetchone()
    return bool(row and row[0])


def demand(connection: psycopg.Connection, name: str) -> bool:
    """Let every commit of the primary wait for the standby *name*; tells whether something was changed.

    Raises StandbyError where the settings name others: with several standbys it takes a cluster manager to tell who may lead.
    """
    row = connection.execute(
        "select current_setting('synchronous_standby_names'), current_setting('synchronous_commit')"
    ).fetchone()
    assert row is not None
    names, commit = row
    if commit in ("off", "local"):
        raise StandbyError(f"the primary has synchronous_commit = {commit}: its commits wait for no standby; set it to on")
    if names.strip():
        try:
            if parse_names(names).always_need(name):
                return False
        except ValueError:
            pass
        raise StandbyError(
            f"the primary has synchronous_standby_names = {names!r} already: correct that by hand, or leave out --synchronous"
        )
    set_names(connection, '"' + name.replace('"', '""') + '"')
    return True


def set_names(connection: psycopg.Connection, names: str) -> None:
    """Set synchronous_standby_names."""
    connection.execute(sql.SQL("alter system set synchronous_standby_names = {}").format(sql.Literal(names)))
    connection.execute("select pg_reload_conf()")


def hba_rules(connection: psycopg.Connection) -> str:
    """Return the text of its pg_hba.conf."""
    row = connection.execute("select pg_read_file(current_setting('hba_file'))").fetchone()
    return str(row[0]) if row else ""


def settings_file(connection: psycopg.Connection) -> str:
    """Return a postgresql.conf with what its own says, for a machine to which a base backup does not bring that file."""
    rows = connection.execute(
        "select name, current_setting(name) from pg_settings where source = 'configuration file' and name <> all(%s)"
        " and name not like 'ssl_%%' order by name",
        (list(_NOT_COPIED),),
    ).fetchall()
    lines = [f"{name} = {quoted(value)}" for name, value in rows]
    return "# The primary's settings when this standby was made.\n" + "\n".join(lines) + "\n"
