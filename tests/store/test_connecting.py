"""What failed attempts to connect mean, from psycopg's texts."""

from __future__ import annotations

import psycopg
import pytest

from postgear.connecting import CONNECT_SECONDS, failed_connection, first_line, limit_seconds, put_last
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


@pytest.mark.parametrize(
    ("parameters", "last", "expected"),
    [
        ({"host": "a,b,c", "port": "1,2,3"}, [("a", "1")], {"host": "b,c,a", "port": "2,3,1"}),
        ({"host": "a,b,c", "port": "1,2,3"}, [("b", "2"), ("a", "1")], {"host": "c,b,a", "port": "3,2,1"}),
        ({"host": "/s,/s", "port": "1,2", "dbname": "q"}, [("/s", "1")], {"host": "/s,/s", "port": "2,1", "dbname": "q"}),
        ({"host": "a,b"}, [("a", "5432")], {"host": "b,a", "port": "5432,5432"}),
        ({"hostaddr": "::1,::2", "port": 7}, [("::1", "7")], {"hostaddr": "::2,::1", "port": "7,7"}),
        ({"host": "a,b", "hostaddr": "::1,"}, [("a", "5432")], {"host": "b,a", "hostaddr": ",::1", "port": "5432,5432"}),
        ({"host": "a,b"}, [("c", "5432")], {"host": "a,b"}),
        ({"host": "a"}, [("a", "5432")], {"host": "a"}),
        ({"host": "a,b", "port": "1,2,3"}, [("a", "1")], {"host": "a,b", "port": "1,2,3"}),  # libpq says what is wrong
    ],
)
def test_a_host_is_tried_after_the_others(
    parameters: dict[str, object], last: list[tuple[str, str]], expected: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("PGHOST", "PGHOSTADDR", "PGPORT"):
        monkeypatch.delenv(variable, raising=False)
    assert put_last(parameters, last) == expected


def test_all_addresses_of_all_hosts_are_reached_within_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PGHOST", raising=False)
    silent_addresses = 4  # of two hosts, before those of the third
    assert limit_seconds({"host": "a,b,c"}) >= (silent_addresses + 2) * CONNECT_SECONDS
    assert limit_seconds({"host": "a"}) >= 2 * CONNECT_SECONDS
