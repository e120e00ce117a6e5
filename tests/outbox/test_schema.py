"""Installing, upgrading and taking away an outbox; what its functions queue; what is told when something is missing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mysql.connector
import psycopg
import pytest

from postgear import cli
from postgear.errors import ConfigError, OutboxError, OutboxRefused, OutboxUnavailable, StoreError
from postgear.outbox import connecting, rows, schema, status, triggers
from postgear.outbox.connecting import Address, parse
from postgear.outbox.relay import Settings, run
from tests.mariadb import MariaDB
from tests.outbox.conftest import ask, jobs, url_of
from tests.udf.conftest import library, load  # noqa: F401

ONCE = Settings(once=True)


def test_functions_queue_with_the_transaction(outbox: Address, session: Any, dsn: str, queue: psycopg.Connection[Any]) -> None:
    session.autocommit = False
    assert ask(session, "select gman_do_background('f', 'kept', null)") == [(1,)]
    session.commit()
    ask(session, "select gman_do_background('f', 'taken back', null)")
    session.rollback()
    ask(session, "select gman_do_high_background('f', 'high', 'h'), gman_do_low_background('f', null, '')")
    ask(session, "select gman_do_epoch('f', 'later', 4102444800, 'l'), gman_do_epoch('f', 'at once', 0, null)")
    ask(session, "select gman_do_epoch('f', 'past', -5, null), gman_do_epoch('f', 'no time', null, null)")
    session.commit()
    assert run(outbox, dsn, ONCE) == 7
    query = "select workload, priority, unique_key, extract(epoch from run_at)::bigint from postgear.job order by id"
    assert queue.execute(query).fetchall() == [
        (b"kept", 1, None, None),
        (b"high", 0, b"h", None),
        (b"", 2, None, None),
        (b"later", 1, b"l", 4102444800),
        (b"at once", 1, None, None),
        (b"past", 1, None, None),
        (b"no time", 1, None, None),
    ]


def test_an_application_may_go_on_setting_servers(outbox: Address, session: Any) -> None:
    assert ask(session, "select gman_servers_set('one:4730,two'), gman_servers_set(null)") == [("one:4730,two", None)]


def test_functions_leave_last_insert_id_alone(outbox: Address, session: Any) -> None:
    ask(session, "create table item (id int auto_increment primary key)")
    ask(session, "create trigger t after insert on item for each row set @queued = gman_do_background('f', new.id, null)")
    ask(session, "insert into item values (1), (2), (41)")
    ask(session, "insert into item values (null)")
    assert ask(session, "select last_insert_id(), @queued") == [(42, 4)]


def test_install_is_repeatable_and_keeps_what_waits(outbox: Address, session: Any) -> None:
    source = schema.check(session, outbox).source
    ask(session, "select gman_do_background('f', 'x', null)")
    ask(session, "update postgear_schema set version = 0")
    with pytest.raises(OutboxRefused, match=r"has version 0, this release needs 1.*run: postgear mysql upgrade"):
        schema.check(session, outbox)
    assert "upgraded from 0, version 1" in schema.install(outbox)
    assert "functions made anew, version 1" in schema.install(outbox)
    assert schema.check(session, outbox) == (1, source)
    assert ask(session, "select count(*) from postgear_outbox") == [(1,)]


def test_an_older_release_does_not_install_over_a_newer(outbox: Address, session: Any) -> None:
    ask(session, "update postgear_schema set version = 99")
    with pytest.raises(OutboxRefused, match="has version 99, this older release makes 1 only"):
        schema.install(outbox)
    assert ask(session, "select version from postgear_schema") == [(99,)]


def test_who_installs_is_told_all_rights_at_once(mariadb: MariaDB, mysql_database: str) -> None:
    with mariadb.connect() as session:
        ask(session, "drop user if exists owner@'%'")
        ask(session, "create user owner@'%' identified by 'p'")
        address = parse(url_of(mariadb, mysql_database, "owner", "p"))
        with pytest.raises(OutboxRefused, match="an administrator runs: grant create, drop, ") as caught:
            schema.install(address)
        ask(session, str(caught.value).partition("runs: ")[2].rstrip(")"))
        schema.install(address)
        with mariadb.connect(user="owner", password="p", database=mysql_database) as owner:
            ask(owner, "create table item (id int primary key)")
        for replace in (False, True):
            triggers.create(address, "item", "f", None, triggers.Options(replace=replace))
        triggers.drop(address, "item", "postgear_item_f")
        assert status.status(address).waiting == status.retry(address, None) == 0
        schema.install(address)
        schema.uninstall(address)
        ask(session, "drop user owner@'%'")


def test_uninstall_leaves_nothing_and_loses_nothing_unasked(outbox: Address, session: Any, mysql_url: str, capsys: Any) -> None:
    ask(session, "select gman_do_background('f', 'x', null)")
    assert cli.main(["mysql", "uninstall", "--mysql", mysql_url]) == OutboxError.exit_code
    assert "1 rows are in the outbox" in capsys.readouterr().err
    assert cli.main(["mysql", "uninstall", "--mysql", mysql_url, "--force"]) == 0
    assert ask(session, "show tables") == []
    assert ask(session, "select routine_name from information_schema.routines where routine_schema = database()") == []
    schema.uninstall(outbox)


def test_last_file_is_the_version() -> None:
    names = [path.name for path in schema._files("versions")]
    assert [int(name[:4]) for name in names] == list(range(1, schema.VERSION + 1))


def test_loaded_functions_come_first(start_mariadb: Callable[..., MariaDB], library: Path) -> None:  # noqa: F811
    """The UDF's name wins in the whole server; stored functions of the name are then reached by their database's name only."""
    server = start_mariadb()
    load(server, library)
    with server.connect() as session:
        ask(session, "create database app")
        ask(session, "use app")
        address = parse(url_of(server, "app"))
        told = schema.install(address)
        assert (
            "\nloaded functions of the server come before the outbox's and submit at once: gman_do_background, gman_do_epoch,"
            " gman_do_high_background, gman_do_low_background, gman_servers_set; to have"
        ) in told
        ask(session, "create table article (id int primary key)")
        ask(session, "create trigger classic after insert on article for each row set @j = gman_do_background('f', new.id, null)")
        ask(session, "insert into article values (1)")  # MariaDB has parsed the trigger
        with pytest.raises(mysql.connector.Error, match="Must give two or three arguments"):
            ask(session, "select gman_do_background('f')")
        for name in (
            "gman_do_background",
            "gman_do_epoch",
            "gman_do_high_background",
            "gman_do_low_background",
            "gman_servers_set",
        ):
            ask(session, f"drop function {name}")
        told = schema.install(address)
        assert "come before" not in told
        assert "triggers that call gman_ functions: classic;" in told
        with pytest.raises(mysql.connector.Error, match="gman_do_background") as failed:
            ask(session, "insert into article values (2)")
        assert failed.value.errno == 1122
        ask(session, "flush tables")
        ask(session, "insert into article values (3)")
        assert ask(session, "select workload from postgear_outbox") == [(b"3",)]
        ask(session, "truncate postgear_outbox")
        assert ask(session, "select gman_do_background('f', 'x', null)") == [(1,)]
        ask(session, "create function gman_do_background returns string soname 'gman_udf.so'")
        assert ask(session, "select app.gman_do_background('f', 'x', null)") == [(2,)]
        schema.uninstall(address, force=True)
        assert ask(session, "select name from mysql.func where name = 'gman_do_background'") == [("gman_do_background",)]


@pytest.mark.parametrize(
    "url", ["", "mysql://", "mysql://u@h", "mysql://u@h/", "mysql://h/d", "http://u:secret@h/d", "mysql://u:secret@h:port/d"]
)
def test_bad_urls_are_told_without_the_password(url: str) -> None:
    with pytest.raises(ConfigError, match="must be mysql://USER:PASSWORD@HOST:PORT/DATABASE") as caught:
        parse(url)
    assert "secret" not in str(caught.value)


def test_url() -> None:
    assert parse("mysql://a%40b:p%2Fw@db:3307/shop?ssl_ca=/ca.pem&ssl_verify_cert=true") == Address(
        "db", 3307, "a@b", "p/w", "shop", {"ssl_ca": "/ca.pem", "ssl_verify_cert": True}
    )
    with pytest.raises(ConfigError, match="option 'autocommit' given"):
        parse("mysql://u@h/d?autocommit=0")


def test_what_is_missing_is_told_with_the_statement(
    mariadb: MariaDB, mysql_database: str, dsn: str, monkeypatch: pytest.MonkeyPatch, queue: psycopg.Connection[Any]
) -> None:
    def refusal(user: str = "root", password: str = "", database: str = mysql_database) -> str:
        with pytest.raises(OutboxRefused) as caught:
            run(parse(url_of(mariadb, database, user, password)), dsn, ONCE)
        return str(caught.value)

    assert "Access denied" in refusal(password="wrong")
    assert "create user 'root'@'%' identified by" in refusal(password="wrong")
    assert "run: create database `nothing_here`" in refusal(database="nothing_here")
    assert f"run: postgear mysql install --mysql mysql://…/{mysql_database}" in refusal()
    schema.install(parse(url_of(mariadb, mysql_database)))
    with mariadb.connect(database=mysql_database) as session:
        ask(session, "drop user if exists relay@localhost")
        ask(session, "create user relay@localhost identified by 'p'")
        told = refusal("relay", "p")
        for rights in (
            "select on %.postgear_schema",
            "select, delete on %.postgear_outbox",
            "select, insert on %.postgear_outbox_failed",
        ):
            assert f"grant {rights.replace('%', f'`{mysql_database}`')}" in told
        ask(session, f"grant select on {mysql_database}.postgear_schema to relay@localhost")
        assert f"grant select on `{mysql_database}`.postgear_outbox to 'relay'@'localhost'" in refusal("relay", "p")
        ask(session, f"grant select on {mysql_database}.postgear_outbox to relay@localhost")
        ask(session, f"grant select on {mysql_database}.postgear_outbox_failed to relay@localhost")
        ask(session, "select gman_do_background('f', 'x', null)")
        assert f"grant delete on `{mysql_database}`.postgear_outbox to 'relay'@'localhost'" in refusal("relay", "p")
        ask(session, f"grant delete on {mysql_database}.postgear_outbox to relay@localhost")
        run(parse(url_of(mariadb, mysql_database, "relay", "p")), dsn, ONCE)
        assert jobs(queue) == [("f", b"x")]
        ask(session, "select gman_do_background('', 'no name', null)")
        assert f"grant insert on `{mysql_database}`.postgear_outbox_failed to 'relay'@'localhost'" in refusal("relay", "p")
        ask(session, f"grant insert on {mysql_database}.postgear_outbox_failed to relay@localhost")
        run(parse(url_of(mariadb, mysql_database, "relay", "p")), dsn, ONCE)
        assert ask(session, "select workload from postgear_outbox_failed") == [(b"no name",)]
        ask(session, "drop user relay@localhost")
    monkeypatch.setattr(connecting, "MARIADB_SINCE", (99, 1))
    assert "is too old, MariaDB must be 99.1 or newer" in refusal()


def test_a_server_that_is_not_there(dsn: str) -> None:
    with pytest.raises(OutboxUnavailable, match=r"127\.0\.0\.1:1/d"):
        run(parse("mysql://u@127.0.0.1:1/d"), dsn, ONCE)


def test_a_role_without_rights_on_the_queue(outbox: Address, dsn: str, queue: psycopg.Connection[Any]) -> None:
    queue.execute("drop role if exists nobody_much")
    queue.execute("create role nobody_much login")
    queue.execute("grant usage on schema postgear to nobody_much; grant select on postgear.alembic_version to nobody_much")
    try:
        with pytest.raises(StoreError, match="grant postgear_worker to the relay's role"):
            run(outbox, psycopg.conninfo.make_conninfo(dsn, user="nobody_much"), ONCE)
        queue.execute("grant postgear_worker to nobody_much")
        assert run(outbox, psycopg.conninfo.make_conninfo(dsn, user="nobody_much"), ONCE) == 0
    finally:
        queue.execute("drop owned by nobody_much; drop role nobody_much")


def test_statement_based_binary_logs(start_mariadb: Callable[..., MariaDB], dsn: str, queue: psycopg.Connection[Any]) -> None:
    server = start_mariadb("log-bin=binlog", "binlog-format=STATEMENT")
    with server.connect() as session:
        ask(session, "create database app")
        address = parse(url_of(server, "app"))
        schema.install(address)
        ask(session, "insert into app.postgear_outbox (`function`, workload) values ('f', 'a'), ('f', 'b')")
        assert run(address, dsn, ONCE) == 2
        with server.connect(database="app", autocommit=False) as slow, connecting.connection(address) as relay:
            insert = "insert into app.postgear_outbox (`function`, workload) values "
            ask(session, insert + "('f', 'c')")
            ask(slow, insert + "('f', 'open')")
            ask(session, insert + "('f', 'd'), ('f', 'e')")
            ask(session, "set innodb_lock_wait_timeout = 1")
            ask(relay, "set innodb_lock_wait_timeout = 1")
            relay.start_transaction()
            rows.delete(relay, [row.id for row in rows.read(relay, 10).rows])
            ask(slow, insert + "('f', 'open')")
            ask(session, insert + "('f', 'g')")
            relay.commit()
            slow.commit()
        assert run(address, dsn, ONCE) == 3
        ask(session, "create user u@localhost identified by 'p'")
        ask(session, "grant all on app.* to u@localhost")
        with pytest.raises(OutboxRefused, match="set global log_bin_trust_function_creators = on"):
            schema.install(parse(url_of(server, "app", "u", "p")))


def test_status(outbox: Address, session: Any, mysql_url: str, capsys: Any) -> None:
    ask(session, "insert into postgear_outbox (`function`, workload, created_at) values ('f', 'x', now() - interval 90 second)")
    assert cli.main(["mysql", "status", "--mysql", mysql_url, "--json"]) == 0
    (shown,) = json.loads(capsys.readouterr().out)
    assert 90 <= shown.pop("oldest_seconds") < 120
    assert shown == {"outbox": str(outbox), "version": 1, "waiting": 1, "set_aside": 0, "last_error": ""}
