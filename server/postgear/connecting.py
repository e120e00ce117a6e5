"""What a failed attempt to connect to PostgreSQL means, told by its text: libpq gives no SQLSTATE for it.

Where the database server speaks another language than English a refusal is not recognised and counts as "away".
"""

from __future__ import annotations

import re
from typing import Final

from postgear.errors import StoreRefused, StoreUnavailable

_REFUSED: Final = re.compile(
    r'(?:database|role) ".*" does not exist'
    r"|authentication failed for user|no password supplied|no pg_hba\.conf entry"
    r"|is not permitted to log in|permission denied for database"
    r"|no such (?:database|user)"  # PgBouncer
    r"|^connection is bad: invalid "  # a value of the DSN that libpq does not take
)
_ATTEMPT: Final = re.compile(r"^- host: '([^']*)', ", re.MULTILINE)
"""psycopg's list of attempts, where there were several: one for each address of each host."""


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
