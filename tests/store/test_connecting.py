"""What failed attempts to connect mean, from psycopg's texts."""

from __future__ import annotations

import psycopg
import pytest

from postgear.connecting import failed_connection, first_line
from postgear.errors import StoreRefused, StoreUnavailable

REFUSED = 'connection failed: connection to server at "::1", port 5432 failed: FATAL:  database "x" does not exist'
AWAY = 'connection failed: connection to server at "::1", port 5432 failed: Connection refused\n\tIs the server running …?'


def attempts(*texts: tuple[str, str]) -> str:
    listed = [f"- host: '{host}', port: '5432', hostaddr: '::1': {text}" for host, text in texts]
    return "\n".join([texts[-1][1], "Multiple connection attempts failed. All failures were:", *listed])


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (REFUSED, StoreRefused),
        ('connection failed: … failed: FATAL:  password authentication failed for user "u"', StoreRefused),
        ("connection failed: … failed: fe_sendauth: no password supplied", StoreRefused),
        ('connection failed: … failed: FATAL:  no pg_hba.conf entry for host "h"', StoreRefused),
        ('connection is bad: invalid sslmode value: "x"', StoreRefused),
        (AWAY, StoreUnavailable),
        ("connection failed: … failed: FATAL:  the database system is starting up", StoreUnavailable),
        ("connection failed: … failed: FATAL:  sorry, too many clients already", StoreUnavailable),
        (attempts(("localhost", AWAY), ("localhost", REFUSED)), StoreRefused),  # two addresses of one host
        (attempts(("a", REFUSED), ("b", AWAY)), StoreUnavailable),
        (attempts(("a", REFUSED), ("b", REFUSED)), StoreRefused),
    ],
)
def test_only_an_answer_is_a_refusal(text: str, kind: type[StoreUnavailable]) -> None:
    assert type(failed_connection(psycopg.OperationalError(text))) is kind


def test_an_error_of_a_statement_keeps_its_text() -> None:
    error = failed_connection(psycopg.errors.LockNotAvailable("canceling statement due to lock timeout"))
    assert str(error) == "canceling statement due to lock timeout"


def test_the_reason_is_one_line() -> None:
    assert first_line(AWAY) == 'connection to server at "::1", port 5432 failed: Connection refused'
