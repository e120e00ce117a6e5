"""The SQL functions in sessions and databases that are set otherwise: rules for backslashes, encodings."""

from __future__ import annotations

from tests.extension.asking import create_trigger, payloads, rows
from tests.extension.conftest import Connection


def test_the_other_rules_for_backslashes(session: Connection) -> None:
    session.execute("create table item (id integer, title text)")
    session.execute("set standard_conforming_strings = off; set escape_string_warning = off")
    create_trigger(session, "item", events=["update"], when="old.title is null")
    session.execute("insert into item values (1); update item set title = 'a'; update item set title = 'b'")
    session.execute("select gman_do_background('f', '2', 'k'), gman_do_background('f', '2', 'k')")
    session.execute("select postgear.enqueue_jobs(array['f', 'f']::bytea[], array['3', '4']::bytea[])")
    session.execute("select postgear.submit_coalesced('f', 'k', '5')")
    assert payloads(session) == [{"id": 1, "title": "a"}, 2, 3, 4, 5]


def test_a_server_that_listens_everywhere_is_found_where_it_is(session: Connection) -> None:
    session.execute(
        "insert into postgear.server (lease, name, address, pid, version, lease_seconds)"
        " values (1, 's', '0.0.0.0:1,[::]:2,[::1]:3,host:4', 1, '', 30)"
    )
    due = [("127.0.0.1:1",), ("127.0.0.1:2",), ("[::1]:3",), ("host:4",)]
    assert sorted(rows(session, "select * from postgear.live_servers()")) == sorted(due)
    session.execute("set standard_conforming_strings = off; set escape_string_warning = off; discard plans")
    assert sorted(rows(session, "select * from postgear.live_servers()")) == sorted(due)
