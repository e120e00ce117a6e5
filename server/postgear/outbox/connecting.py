"""Connections to MariaDB and MySQL: the URL, what the server must be, and what its errors mean, with the statement that helps.

mysql.connector's own Python is used, not its C library: the same everywhere, and a wait in it ends with a signal.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

from postgear.errors import ConfigError, OutboxError, OutboxRefused, OutboxUnavailable

CONNECT_SECONDS: Final = 5
ANSWER_SECONDS: Final = 60
"""How long one statement may take; longer, and the connection is given up."""
MARIADB_SINCE: Final = (10, 6)
MYSQL_SINCE: Final = (8, 0)
_OPTIONS: Final = {"unix_socket", "ssl_ca", "ssl_cert", "ssl_key", "ssl_verify_cert", "ssl_verify_identity", "ssl_disabled"}
_FLAGS: Final = {"true": True, "1": True, "false": False, "0": False}

_DENIED_USER, _DENIED_DATABASE, _NO_DATABASE = (1045, 1698, 1130, 2059, 1524), 1044, 1049
_DENIED_TABLE, _DENIED_COLUMN, _DENIED_ROUTINE, _DENIED_SPECIAL = 1142, 1143, 1370, 1227
_NO_TABLE, _NO_COLUMN = 1146, 1054
_NO_BINLOG_RIGHT: Final = (1418, 1419)
_READ_ONLY: Final = (1290, 1836)
_GONE: Final = {1040, 1053, 1077, 1152, 1159, 1161, 1180, 1205, 1213, 1317, 1927, 1969, 3024, 4031} | set(range(2000, 2100)) - {
    2059
}
"""Shut down, killed, too slow, too many connections, a deadlock, and all of the client's own: it may work the next time."""
_OWNER_GRANTS: Final = (
    "grant create, drop, create routine, alter routine, execute, trigger, select, insert, update, delete on `{}`.*",
)
_RELAY_GRANTS: Final = (
    "grant select on `{}`.postgear_schema",
    "grant select, delete on `{}`.postgear_outbox",
    "grant select, insert on `{}`.postgear_outbox_failed",
)
_COMMAND: Final = re.compile(r"([A-Z ,]+) command denied to user (\S+) for table (\S+)")


class Address(NamedTuple):
    """Where an outbox is: what the URL says. *options*: those of mysql.connector."""

    host: str
    port: int
    user: str
    password: str
    database: str
    options: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.host}:{self.port}/{self.database}" if "unix_socket" not in self.options else f"{self.host}/{self.database}"


def parse(url: str) -> Address:
    """Take ``mysql://user:password@host:port/database?unix_socket=…``. Raises ConfigError, which does not repeat the password."""
    wanted = "must be mysql://USER:PASSWORD@HOST:PORT/DATABASE (what is special in USER and PASSWORD as %40 and so on)"
    try:
        parts = urlsplit(url)
        port = parts.port or 3306
    except ValueError:
        raise ConfigError(f"--mysql: {wanted}") from None
    database = unquote(parts.path.removeprefix("/"))
    if parts.scheme not in ("mysql", "mariadb") or not parts.username or not database or "/" in database or parts.fragment:
        raise ConfigError(f"--mysql: {wanted}")
    options: dict[str, Any] = {}
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name not in _OPTIONS:
            raise ConfigError(f"--mysql: option {name!r} given, must be one of {', '.join(sorted(_OPTIONS))}")
        options[name] = _FLAGS.get(value, value)
    return Address(parts.hostname or "localhost", port, unquote(parts.username), unquote(parts.password or ""), database, options)


@contextmanager
def connection(address: Address, *, is_owner: bool = False) -> Iterator[Any]:
    """Open a session of mysql.connector, each statement a transaction, and close it at the end.

    *is_owner*: for who makes tables, functions and triggers, not for a relay: which rights an error names.

    Errors of mysql.connector inside become OutboxUnavailable, OutboxRefused or OutboxError. A server too old is OutboxRefused.
    """
    mysql = _driver()
    session = None
    try:
        session = mysql.connect(
            host=address.host,
            port=address.port,
            user=address.user,
            password=address.password,
            database=address.database,
            autocommit=True,
            use_pure=True,
            charset="utf8mb4",
            connection_timeout=CONNECT_SECONDS,
            read_timeout=ANSWER_SECONDS,
            write_timeout=ANSWER_SECONDS,
            **address.options,
        )
        _check_version(address, session)
        _set(session)
        yield session
    except mysql.Error as error:
        raise translate(error, address, is_owner=is_owner) from error
    except OSError as error:  # the driver lets some of a broken socket's through
        raise OutboxUnavailable(f"{address}: {error}") from error
    finally:
        if session is not None:
            _close(session)


def translate(error: Any, address: Address, *, is_owner: bool = False) -> OutboxError:
    """Return the error to raise for one of mysql.connector; *is_owner* as for ``connection``."""
    number, said = error.errno, f"{address}: {error.msg or error}"
    kind, advice = _meaning(number, str(error.msg), address, is_owner)
    return kind(f"{said} ({advice})" if advice else said)


def _meaning(number: int, text: str, address: Address, is_owner: bool) -> tuple[type[OutboxError], str]:
    name, table = address.database.replace("`", "``"), text.rpartition(".")[2].strip("'` ")
    account = f"'{address.user}'@'%'"
    if number in _DENIED_USER:
        advice = "check user and password, and whether another account (''@'localhost'?) comes first; if there is none, "
        return OutboxRefused, f"{advice}an administrator runs: create user {account} identified by '…'"
    if number == _DENIED_DATABASE:
        grants = _OWNER_GRANTS if is_owner else _RELAY_GRANTS
        return OutboxRefused, f"an administrator runs: {'; '.join(grant.format(name) + f' to {account}' for grant in grants)}"
    if number == _NO_DATABASE:
        return OutboxRefused, f"check the name, or run: create database `{name}`"
    if number in (_DENIED_TABLE, _DENIED_COLUMN, _DENIED_ROUTINE, _DENIED_SPECIAL):
        return OutboxRefused, f"an administrator runs: {_grants(text, name)}"
    if number == _NO_TABLE and table.startswith("postgear_"):
        return OutboxRefused, f"run: postgear mysql install --mysql mysql://…/{address.database}"
    if number == _NO_COLUMN and "postgear" in text:
        return OutboxRefused, f"run: postgear mysql upgrade --mysql mysql://…/{address.database}"
    if number in _NO_BINLOG_RIGHT:
        return OutboxRefused, "an administrator runs: set global log_bin_trust_function_creators = on"
    if number in _READ_ONLY:
        return OutboxUnavailable, "it is read only: name the primary"
    return (OutboxUnavailable if number in _GONE else OutboxError), ""


def _grants(text: str, database: str) -> str:
    denied = _COMMAND.search(text)
    if denied is None:
        return f"{_OWNER_GRANTS[0].format(database)} to the user"
    privileges, user, table = denied.groups()
    table = table.replace("`", "").rpartition(".")[2].strip("'")
    return f"grant {privileges.lower()} on `{database}`.{table} to {user}"


def _driver() -> Any:
    try:
        import mysql.connector
    except ModuleNotFoundError:
        raise ConfigError("MariaDB and MySQL need mysql-connector-python: pip install 'postgear[mysql]'") from None
    return mysql.connector


def _check_version(address: Address, session: Any) -> None:
    with session.cursor() as cursor:
        cursor.execute("select version()")
        version = str(cursor.fetchone()[0])
    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    is_mariadb = "mariadb" in version.lower()
    if numbers < (MARIADB_SINCE if is_mariadb else MYSQL_SINCE):
        raise OutboxRefused(
            f"{address}: version {version} is too old, MariaDB must be {'.'.join(map(str, MARIADB_SINCE))} or newer, MySQL "
            f"{'.'.join(map(str, MYSQL_SINCE))} (upgrade the server; the classic functions work with older ones)"
        )


def is_mariadb(session: Any) -> bool:
    """Tell MariaDB from MySQL."""
    with session.cursor() as cursor:
        cursor.execute("select version()")
        return "mariadb" in str(cursor.fetchone()[0]).lower()


def _set(session: Any) -> None:
    with session.cursor() as cursor:
        # Times as they are, whatever the server's zone; nothing cut silently; no change of a table that waits for ever.
        cursor.execute("set time_zone = '+00:00', sql_mode = 'STRICT_ALL_TABLES', lock_wait_timeout = 10")
        cursor.execute("select @@log_bin and @@binlog_format = 'STATEMENT'")
        if not cursor.fetchone()[0]:
            # Without gap locks: a DELETE of the relay must not stop the INSERT that comes after it. (InnoDB cannot log statements
            # in this isolation; there the relay's lookups of rows that exist lock no gap either.)
            cursor.execute("set session transaction isolation level read committed")


def _close(session: Any) -> None:
    with suppress(OSError, _driver().Error):  # a connection that broke
        session.close()
