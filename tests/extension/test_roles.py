"""What members of the three roles may do, and that nobody else may do anything."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from postgear import AdminClient, schema
from tests.extension.asking import Connection, claim, create_trigger, rows, start_server, value, workloads
from tests.server_process import ServerProcess

Login = Callable[..., Connection]
_numbers = itertools.count(1)

ENQUEUE = [
    "select gman_do_background('f', 'x')",
    "select gman_do_high_background('f', '{}'::json, 'k')",
    "select * from gman_result('H:q:1')",
    "select postgear.queue_job('f', 'x')",
    "select postgear.submit_coalesced('f', 'k', 'x')",
    "select * from postgear.handle_status('H:q:1')",
    "select * from postgear.handle_result('H:q:1')",
]
WORK = [
    "select * from postgear.job_status(null, 'k')",
    "select * from postgear.claim_jobs(1, array[1], array[1::smallint], array[1], 100)",
    "select postgear.finish_jobs(1, array[1])",
    "select postgear.finish_with_results(1, array[1], array[true], array['x'::bytea])",
    "select postgear.expire_results()",
    "select postgear.keep_results('f', '1 day')",
    "select postgear.cancel_job(1)",
    "select postgear.set_limits('f', 1, 1, 1)",
    "select * from postgear.list_jobs(0, 10)",
    "select postgear.submit_jobs(null, array[1], array[1::smallint], array[null::bytea], array['x'::bytea])",
    "select * from postgear.job",
    "delete from postgear.job",
    "select * from postgear.result",
    "update postgear.function set max_low = 1",
    "insert into postgear.server (lease, name, address, pid, version, lease_seconds) values (1, '', '', 1, '', 1)",
]
ADMINISTER = [
    "select * from postgear.jobs",
    "select * from postgear.triggers",
    "select * from postgear.trigger",
]
NOBODY = [
    "create function postgear.handle(integer) returns text language sql as 'select 1'",
    "create table postgear.mine (id integer)",
    "update postgear.queue set name = 'x'",
    "update postgear.alembic_version set version_num = 'x'",
    "drop table postgear.job",
]


@pytest.fixture
def session(dsn: str) -> Iterator[Connection]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("select postgear.function_id('f')")
        yield connection


@pytest.fixture
def new_role(session: Connection, dsn: str) -> Iterator[Callable[..., str]]:
    """Make login roles, members of those named; all are dropped after the test."""
    made: list[str] = []

    def make(*memberships: str) -> str:
        made.append(f"test_role_{next(_numbers)}")
        session.execute(f"create role {made[-1]} login")
        for membership in memberships:
            session.execute(f"grant {membership} to {made[-1]}")
        return made[-1]

    yield make
    for role in made:
        session.execute(f"drop owned by {role} cascade; drop role {role}")


@pytest.fixture
def login(new_role: Callable[..., str], dsn: str) -> Iterator[Login]:
    """Connect as a new member of the roles named."""
    connections: list[Connection] = []

    def connect(*memberships: str) -> Connection:
        connections.append(psycopg.connect(make_conninfo(dsn, user=new_role(*memberships)), autocommit=True))
        return connections[-1]

    yield connect
    for connection in connections:
        connection.close()


def refuses(connection: Connection, statements: list[str]) -> None:
    for statement in statements:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(statement)


def allows(connection: Connection, statements: list[str]) -> None:
    for statement in statements:
        connection.execute(f"begin; {statement}; rollback")


def test_others_may_do_nothing(login: Login) -> None:
    refuses(login(), ENQUEUE + WORK + ADMINISTER + NOBODY)


def test_a_producer_may_enqueue_and_ask_for_a_job(login: Login) -> None:
    producer = login("postgear_producer")
    allows(producer, ENQUEUE)
    refuses(producer, WORK + ADMINISTER + NOBODY)


def test_a_worker_may_claim_and_finish(login: Login) -> None:
    worker = login("postgear_worker")
    allows(worker, WORK + ENQUEUE[3:])
    refuses(worker, ADMINISTER + NOBODY)
    assert claim(worker, start_server(worker)) == []


def test_an_admin_may_do_both_and_see_everything(login: Login) -> None:
    admin = login("postgear_admin")
    allows(admin, ENQUEUE + WORK + ADMINISTER)
    refuses(admin, NOBODY)


def test_a_server_runs_as_a_worker(
    session: Connection, new_role: Callable[..., str], dsn: str, start_server: Callable[..., ServerProcess]
) -> None:
    server = start_server(dsn=make_conninfo(dsn, user=new_role("postgear_worker")))
    with AdminClient(server.address) as admin:
        admin.set_limits("f", 7)
    assert value(session, "select max_normal from postgear.function where name = 'f'") == 7
    server.stop()


def test_every_function_of_higher_rights_pins_its_search_path(session: Connection) -> None:
    assert (
        rows(
            session,
            "select oid::regprocedure from pg_proc where pronamespace = 'postgear'::regnamespace and prosecdef"
            " and not coalesce('search_path=pg_catalog, pg_temp' = any (proconfig), false)",
        )
        == []
    )


def test_public_may_execute_nothing(session: Connection) -> None:
    create_trigger_on_new_table(session)
    found = rows(
        session,
        "select oid::regprocedure from pg_proc"
        " where (pronamespace in ('postgear'::regnamespace, 'postgear_trigger'::regnamespace) or proname like 'gman\\_%')"
        " and has_function_privilege('public', oid, 'execute')",
    )
    assert found == []


def create_trigger_on_new_table(connection: Connection, **options: Any) -> None:
    connection.execute("create table item (id integer primary key, title text)")
    create_trigger(connection, "item", **options)


def test_what_the_caller_puts_in_its_path_is_not_run_by_the_owner(session: Connection, login: Login) -> None:
    """A producer's own operators and functions must not replace those that a function of higher rights uses."""
    session.execute("grant create on schema public to public")
    producer = login("postgear_producer")
    producer.execute(
        "create function public.octet_length(bytea) returns integer language sql as 'select 1/0';"
        "create function public.trap(text, text) returns text language sql as 'select (1/0)::text';"
        "create operator public.|| (function = public.trap, leftarg = text, rightarg = text);"
        "create temporary table job (id integer); create temporary table function (id integer);"
        "set search_path = public, pg_catalog"
    )
    producer.execute("select postgear.queue_job('f', 'x'), postgear.submit_coalesced('f', 'k', 'y')")
    assert workloads(session) == [b"x", b"y"]


# -- triggers --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", ["statement", "row"])
@pytest.mark.parametrize("key", [None, ["id"]])
def test_who_writes_the_table_needs_no_right_on_the_queue(session: Connection, login: Login, level: str, key: object) -> None:
    create_trigger_on_new_table(session, level=level, key=key)
    session.execute("grant insert on item to public")
    login().execute("insert into item values (1)")
    assert len(workloads(session)) == 1


@pytest.mark.parametrize("level", ["statement", "row"])
def test_an_admin_makes_triggers_on_own_tables(session: Connection, login: Login, level: str) -> None:
    session.execute("grant create on schema public to public")
    admin = login("postgear_admin")
    create_trigger_on_new_table(admin, level=level, events=["insert", "update"], key=[], payload="change", when="new.id > 0")
    admin.execute("insert into item values (1)")
    assert len(workloads(session)) == 1
    admin.execute("select postgear.drop_trigger('item', 'postgear_f')")


def test_an_admin_needs_the_privilege_trigger_on_the_table(session: Connection, login: Login) -> None:
    session.execute("create table item (id integer)")
    admin = login("postgear_admin")
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="item"):
        create_trigger(admin, "item")
    session.execute(f"grant trigger on item to {admin.info.user}")
    create_trigger(admin, "item")
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="owner of relation item"):
        admin.execute("select postgear.drop_trigger('item', 'postgear_f')")


@pytest.mark.parametrize("role", [(), ("postgear_producer",), ("postgear_worker",)])
def test_others_may_make_no_trigger(session: Connection, login: Login, role: tuple[str, ...]) -> None:
    session.execute("grant create on schema public to public")
    other = login(*role)
    other.execute("create table own (id integer)")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        create_trigger(other, "own")


def test_a_type_of_the_tables_owner_gains_nothing_but_the_queue(session: Connection, login: Login) -> None:
    """The cast to json of a column's type is the owner's code, and a superuser may have made the trigger."""
    session.execute("grant create on schema public to public")
    owner = login()
    owner.execute("create table item (id integer); create table seen (who text); grant insert on seen to public")
    owner.execute("create type odd as enum ('a')")
    owner.execute(
        "create function odd_json(odd) returns json language plpgsql as"
        " $$ begin insert into public.seen values (current_user); return '1'; end $$"
    )
    owner.execute("create cast (odd as json) with function odd_json(odd); alter table item add o odd")
    create_trigger(session, "item")
    session.execute("insert into item values (1, 'a')")
    assert len(workloads(session)) == 1
    assert rows(session, "select who from seen") == [("postgear_trigger",)]


def test_a_condition_runs_with_few_rights(session: Connection, login: Login) -> None:
    """Not with those of the queue's owner, nor with those of whoever writes the row."""
    session.execute("grant create on schema public to public; create table secret (id integer)")
    admin = login("postgear_admin")
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="secret"):
        create_trigger_on_new_table(admin, when="exists (select from public.secret)")
    admin.execute("create table open (id integer); create table note (id integer)")
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="runs as role postgear_trigger: grant it select"):
        create_trigger(admin, "note", when="new.id in (select id from public.open)")
    admin.execute("grant select on open to postgear_trigger")
    create_trigger(admin, "note", when="new.id in (select id from public.open)")
    create_trigger(admin, "item", when="current_user <> session_user and new.title = current_user")
    admin.execute("grant insert on item to public")
    session.execute("insert into item values (1, 'postgear_trigger'), (2, 'postgres')")
    assert len(workloads(session)) == 1


def test_a_trigger_function_cannot_be_put_on_another_table(session: Connection, login: Login) -> None:
    create_trigger_on_new_table(session, name="t")
    session.execute("grant create on schema public to public; grant usage on schema postgear_trigger to public")
    routine = value(session, "select routine from postgear.trigger")
    other = login("postgear_producer")
    other.execute("create table own (id integer)")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        other.execute(
            "create trigger t after insert on own referencing new table as new_rows"
            f" for each statement execute function postgear_trigger.{routine}()"
        )


def test_an_installer_who_may_make_no_roles_uses_those_there(
    session: Connection, empty_dsn: str, new_role: Callable[..., str]
) -> None:
    """The roles are there in this cluster, so the schema is simply granted; nothing needs a superuser."""
    role = new_role()
    name = psycopg.conninfo.conninfo_to_dict(empty_dsn)["dbname"]
    session.execute(f"alter database {name} owner to {role}")
    dsn = make_conninfo(empty_dsn, user=role)
    with psycopg.connect(empty_dsn, autocommit=True) as connection:
        connection.execute(f"grant create on schema public to {role}")
    try:
        assert schema.upgrade(dsn) == schema.VERSION
        with psycopg.connect(dsn, autocommit=True) as connection:
            assert str(value(connection, "select gman_do_background('f', 'x')")).startswith("H:")
    finally:
        session.execute(f"alter database {name} owner to postgres")
        with psycopg.connect(empty_dsn, autocommit=True) as connection:
            connection.execute(f"drop owned by {role} cascade")


@pytest.fixture
def without_roles(session: Connection) -> Iterator[None]:
    """As in a cluster in which nobody has made the three roles: for the time of the test they have other names."""
    names = ("postgear_producer", "postgear_worker", "postgear_admin", "postgear_trigger")
    for name in names:
        session.execute(f"alter role {name} rename to hidden_{name}")
    yield
    for name in names:
        session.execute(f"drop role if exists {name}; alter role hidden_{name} rename to {name}")


def test_an_installer_who_may_make_no_roles_is_told(
    session: Connection, new_role: Callable[..., str], without_roles: None, empty_dsn: str
) -> None:
    role = new_role()
    session.execute(f"alter database {psycopg.conninfo.conninfo_to_dict(empty_dsn)['dbname']} owner to {role}")
    with psycopg.connect(empty_dsn, autocommit=True) as connection:
        connection.execute(f"grant create on schema public to {role}")
    notes: list[str] = []
    schema.upgrade(make_conninfo(empty_dsn, user=role), tell=notes.append)
    told = "role postgear_admin was not made: permission denied to create role (Let an administrator make it"
    assert [note for note in notes if note.startswith(told)]


def test_roles_made_by_hand_become_what_they_should_be(session: Connection, without_roles: None, empty_dsn: str) -> None:
    session.execute("create role postgear_producer; create role postgear_worker; create role postgear_admin")
    schema.upgrade(empty_dsn)
    with psycopg.connect(empty_dsn, autocommit=True) as connection:
        connection.execute("set role postgear_admin")
        assert value(connection, "select gman_cancel(gman_do_background('f', 'x'))") is True
