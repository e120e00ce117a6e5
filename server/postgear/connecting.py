"""Connections to PostgreSQL: what every one of ours is opened with, and what a failed attempt means.

A failure is told by its text, for libpq gives no SQLSTATE for it. Where the database server speaks another language than English
a refusal is not recognised and counts as "away".
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any, Final

import psycopg
from psycopg.conninfo import conninfo_to_dict

from postgear.errors import StoreRefused, StoreUnavailable

CONNECT_SECONDS: Final = 5
"""How long one attempt to connect may take, for each address of each host. A primary takes milliseconds; one that fails over must
not be waited for longer than it takes."""
ANSWER_SECONDS: Final = 10.0
"""How long a database that took a connection may take to answer what is asked then: one that hangs takes connections, too."""
_HOST_ADDRESSES: Final = 2
"""How many addresses a host is taken to have: one of IPv4 and one of IPv6."""
_PORT: Final = "5432"
_DEFAULTS: Final[dict[str, str | int]] = {
    "connect_timeout": CONNECT_SECONDS,
    # A machine that is gone answers nothing: without these a connection to it lives on for hours.
    "tcp_user_timeout": 10_000,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
}
_REFUSED: Final = re.compile(
    r'(?:database|role) ".*" does not exist'
    r"|authentication failed for user|no password supplied|no pg_hba\.conf entry"
    r"|is not permitted to log in|permission denied for database"
    r"|no such (?:database|user)"  # PgBouncer
    r"|^connection is bad: invalid "  # a value of the DSN that libpq does not take
)
_ATTEMPT: Final = re.compile(r"^- host: '([^']*)', ", re.MULTILINE)
"""psycopg's list of attempts, where there were several: one for each address of each host."""


def options(dsn: str, **ours: Any) -> dict[str, Any]:
    """Return the parameters to connect with, for psycopg: *ours*, *dsn*, and what both leave open.

    Of several hosts only one that takes writes will do (``target_session_attrs``), so that a demoted primary is passed over.
    With one host that is left to the first statement, for the error of a standby says more than libpq's.
    Raises psycopg.ProgrammingError for what is no DSN.
    """
    given = conninfo_to_dict(dsn)
    defaults: dict[str, Any] = dict(_DEFAULTS)
    hosts = given.get("host") or given.get("hostaddr") or os.environ.get("PGHOST") or os.environ.get("PGHOSTADDR") or ""
    if "," in str(hosts) and "PGTARGETSESSIONATTRS" not in os.environ:
        defaults["target_session_attrs"] = "read-write"
    return defaults | {name: value for name, value in given.items() if value is not None} | ours


def limit_seconds(parameters: dict[str, Any]) -> float:
    """Return how long all attempts of *parameters* together may take: with the addresses of each host, and their look-up."""
    return CONNECT_SECONDS * (_HOST_ADDRESSES * max(len(_hosts(parameters)), 1) + 1)


def put_last(parameters: dict[str, Any], last: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Return *parameters* with those hosts that are in *last* (host and port, as libpq tells them) behind the others."""
    hosts = sorted(_hosts(parameters), key=lambda host: last.index(host[:2]) if host[:2] in last else -1)
    if not any(host[:2] in last for host in hosts):
        return parameters
    _, ports, names, addresses = (",".join(column) for column in zip(*hosts, strict=True))
    lists = {"host": names, "hostaddr": addresses, "port": ports}
    return parameters | {name: value for name, value in lists.items() if value.strip(",")}


def _hosts(parameters: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """Return of several hosts what libpq calls each, its port, its name and its address; of one, or of a wrong list, nothing."""
    names, addresses, ports = (
        str(parameters.get(name) or os.environ.get(variable, "")).split(",")
        for name, variable in (("host", "PGHOST"), ("hostaddr", "PGHOSTADDR"), ("port", "PGPORT"))
    )
    count = max(len(names), len(addresses))
    names, addresses, ports = (given * count if len(given) == 1 else given for given in (names, addresses, ports))
    if count == 1 or not len(names) == len(addresses) == len(ports):
        return []
    return [(name or address, port or _PORT, name, address) for name, address, port in zip(names, addresses, ports, strict=True)]


def failed_connection(error: BaseException) -> StoreUnavailable:
    """Return the error to raise for one of psycopg: StoreRefused if every host has an address that answered with a refusal.

    An error of a statement, not of the attempt to connect, becomes StoreUnavailable with its own text.
    """
    text = str(error).strip() or type(error).__name__
    if getattr(error, "sqlstate", None):
        return StoreUnavailable(text)
    _, *attempts = _ATTEMPT.split(text)
    if attempts:
        hosts = attempts[::2]
        refused = {host for host, said in zip(hosts, attempts[1::2], strict=True) if _REFUSED.search(said)}
        is_refused = refused == set(hosts)
    else:
        is_refused = _REFUSED.search(text) is not None
    return (StoreRefused if is_refused else StoreUnavailable)(f"cannot connect to the database: {first_line(text)}")


def first_line(text: str) -> str:
    """Return the first line of what psycopg or libpq says, without psycopg's own words before libpq's."""
    line = text.strip().partition("\n")[0]
    for prefix in ("connection failed: ", "connection is bad: "):
        line = line.removeprefix(prefix)
    return line


def is_demoted(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> bool:
    """Whether the host of a connection has said that it takes no writes any more; nothing is asked of it."""
    if connection.closed:
        return False
    said = connection.info.parameter_status
    return "on" in (said("default_transaction_read_only"), said("in_hot_standby"))
