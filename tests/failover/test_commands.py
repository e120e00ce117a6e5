"""`postgear doctor`, `cluster` and `durability`, and the pages over HTTP."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from tests.failover.asking import get
from tests.server.bytes import Peer
from tests.server.load import PROGRAM, query, wait_for
from tests.server_process import ServerProcess

Start = Callable[..., ServerProcess]


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([PROGRAM, *words], capture_output=True, text=True, timeout=30, check=False)


def findings(dsn: str) -> tuple[int, dict[str, dict[str, str]]]:
    """Return the exit code and the findings by name; of those with one name the worst."""
    done = run("doctor", "--dsn", dsn, "--json")
    found: dict[str, dict[str, str]] = {}
    for each in json.loads(done.stdout):
        if each["name"] not in found or each["level"] != "ok":
            found[each["name"]] = each
    return done.returncode, found


def test_doctor_finds_a_served_queue_well(dsn: str, start_server: Start) -> None:
    start_server()
    done = run("doctor", "--dsn", dsn)
    assert (done.returncode, done.stderr) == (0, "")
    assert {line.split(":")[0] for line in done.stdout.splitlines()} == {
        f"ok    {name}"
        for name in (
            "connection",
            "role",
            "schema",
            "roles",
            "durability",
            "replication",
            "transactions",
            "server",
            "notify",
        )
    }


def test_doctor_says_what_is_wrong_and_what_to_do(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("update postgear.alembic_version set version_num = '0001'")
        code, found = findings(dsn)
        assert (code, found["schema"]["level"], found["schema"]["advice"]) == (1, "fail", "run `postgear init`")
        connection.execute("update postgear.alembic_version set version_num = '9999'")
        connection.execute(
            "insert into postgear.server (lease, name, address, pid, version, lease_seconds, renewed_at)"
            " values (7, 'gone', 'h:1', 1, '0.0.1', 20, now() - interval '1 minute')"
        )
        code, found = findings(dsn)
    assert code == 0
    assert {name: each["level"] for name, each in found.items() if each["level"] != "ok"} == {
        "schema": "warn",
        "server": "warn",
        "versions": "warn",
    }
    assert found["server"]["text"].endswith(": dead")


def test_doctor_fails_where_there_is_no_database_no_schema_or_no_right(dsn: str, empty_dsn: str) -> None:
    code, found = findings("host=/nonexistent")
    assert (code, list(found)) == (1, ["connection"])
    code, found = findings(empty_dsn)
    assert (code, found["schema"]["level"]) == (1, "fail")
    query(dsn, "drop role if exists doctor_stranger")
    query(dsn, "create role doctor_stranger login")
    try:
        code, found = findings(make_conninfo(dsn, user="doctor_stranger"))
        assert code == 1
        assert "permission denied" in str(found) or found["roles"]["level"] == "fail"
    finally:
        query(dsn, "drop role doctor_stranger")


def test_cluster_shows_servers_and_what_they_hold(dsn: str, start_server: Start) -> None:
    first, second = start_server("--name", "a"), start_server("--name", "b")
    client, worker = Peer(first.host, first.port), Peer(first.host, first.port)
    worker.can_do(b"f")
    client.submit("SUBMIT_JOB_BG", b"f", b"", b"")
    worker.grab()
    told = "select count(*)::integer from postgear.server where duties_at > started_at"
    wait_for(lambda: query(dsn, told) == [(2,)], "both have done their duties")
    shown = json.loads(run("cluster", "--dsn", dsn, "--json").stdout)
    assert shown["duties"]["seconds_ago"] == min(each["duties_seconds_ago"] for each in shown["members"])
    assert shown["duties"]["lease"] in [each["lease"] for each in shown["members"]]
    assert [(each["name"], each["kind"], each["jobs"], each["has_session"]) for each in shown["members"]] == [
        ("a", "server", 1, True),
        ("b", "server", 0, True),
    ]
    assert shown["database"]["role"] == "primary"
    assert re.fullmatch("[0-9A-F]{8}", shown["database"]["timeline"])
    assert shown["standbys"] == []
    text = run("cluster", "--dsn", dsn).stdout
    assert second.address in text
    assert re.search("^duties last done by [ab] [0-9.]+ s ago; each does them, there is no leader$", text, re.MULTILINE)
    assert ", timeline 1 at " in text
    assert max(map(len, text.splitlines()[1:])) <= 80
    assert "no standby" in text
    client.close()
    worker.close()


def test_durability_is_set_for_functions_there_are(dsn: str) -> None:
    query(dsn, "select postgear.function_id('f')")
    done = run("durability", "--dsn", dsn, "f", "local")
    assert (done.returncode, done.stdout) == (0, "f: local\n")
    assert query(dsn, "select durability from postgear.function") == [("local",)]
    done = run("durability", "--dsn", dsn, "g", "local")
    assert (done.returncode, done.stderr.splitlines()[0]) == (2, "postgear: no such function: g")
    assert run("durability", "--dsn", dsn, "f", "perhaps").returncode == 2


def test_results_are_kept_for_functions_there_are(dsn: str) -> None:
    query(dsn, "select postgear.function_id('f')")
    done = run("keep-results", "--dsn", dsn, "f", "90min")
    assert (done.returncode, done.stdout) == (0, "f: 90min\n")
    assert query(dsn, "select keep_results::text from postgear.function") == [("01:30:00",)]
    for how_long in ("0 s", "perhaps", "200 years"):
        done = run("keep-results", "--dsn", dsn, "f", how_long)
        assert (done.returncode, done.stderr.splitlines()[0][:30]) == (2, f"postgear: {how_long!r} is no interval"[:30])
    assert run("keep-results", "--dsn", dsn, "f", "no").returncode == 0
    assert query(dsn, "select keep_results from postgear.function") == [(None,)]
    done = run("keep-results", "--dsn", dsn, "g", "1 day")
    assert (done.returncode, done.stderr.splitlines()[0]) == (2, "postgear: no such function: g")


def test_a_kept_result_is_printed_as_it_is(dsn: str) -> None:
    query(
        dsn,
        "insert into postgear.result (job_id, function_id, outcome, result, finished_at, expires_at)"
        " select n, 1, case n when 1 then 'completed' else 'failed' end, data, now(), now() + interval '1 day'"
        " from (values (1, '\\x00ff0a'::bytea), (2, 'why'), (3, null)) as ended (n, data)",
    )
    words = [PROGRAM, "result", "--dsn", dsn]
    done = subprocess.run([*words, "H:test:1"], capture_output=True, timeout=30, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"\x00\xff\n", b"")
    for handle, code, text in (
        ("H:test:2", 1, "job H:test:2 failed: why"),
        ("H:test:3", 1, "job H:test:3 failed"),
        ("H:test:4", 7, "nothing is kept of job H:test:4, or it has not ended"),
    ):
        told = run(*words[1:], handle)
        assert (told.returncode, told.stdout, told.stderr) == (code, "", f"postgear: {text}\n")


def test_http_tells_whether_a_server_lives_and_is_ready(start_server: Start, dsn: str) -> None:
    server = start_server("--http", "127.0.0.1:0")
    assert get(server, "/live") == (200, "live\n")
    assert get(server, "/ready") == (200, "ready\n")
    assert get(server, "/nowhere")[0] == 404
    database = str(query(dsn, "select current_database()")[0][0])
    elsewhere = make_conninfo(dsn, dbname="postgres")
    query(elsewhere, f"alter database {database} allow_connections false")
    query(elsewhere, "select pg_terminate_backend(pid) from pg_stat_activity where datname = %s", database)
    wait_for(lambda: get(server, "/ready") == (503, "the database is away\n"), "it is not ready")
    assert get(server, "/live") == (200, "live\n")
    assert "\npostgear_database_up 0\n" in get(server, "/metrics")[1]
    query(elsewhere, f"alter database {database} allow_connections true")
    wait_for(lambda: get(server, "/ready")[0] == 200, "it is ready again")


def test_metrics_are_in_prometheus_text(start_server: Start) -> None:
    server = start_server("--http", "127.0.0.1:0")
    client = Peer(server.host, server.port)
    client.submit("SUBMIT_JOB_BG", b'f"\xff', b"", b"")
    code, text = get(server, "/metrics")
    client.close()
    assert code == 200
    samples: dict[str, Any] = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            match = re.fullmatch(r"([a-z_]+(?:\{(?:[a-z_]+=\"(?:[^\"\\\n]|\\.)*\",?)+\})?) (-?[0-9.e+-]+)", line)
            assert match, line
            samples[match[1]] = float(match[2])
    assert samples["postgear_database_up"] == 1
    assert samples['postgear_submits_total{outcome="acknowledged"}'] == 1
    assert samples['postgear_queue_jobs{function="f\\"\\\\xff",state="normal"}'] == 1
    assert samples["postgear_sync_standby_connected"] == 0
    assert samples["postgear_timeline"] == 1


@pytest.mark.parametrize("duty", ["reap_leases", "promote_jobs"])
def test_a_duty_that_fails_is_seen_by_the_time_of_the_last_that_did_not(dsn: str, start_server: Start, duty: str) -> None:
    def meets(condition: str) -> bool:
        return query(dsn, f"select {condition} from postgear.server") == [(True,)]

    start_server()
    wait_for(lambda: meets("renewed_at - duties_at < interval '1.5 seconds'"), "the duties are done")
    ((result,),) = query(dsn, "select pg_get_function_result(%s::regprocedure)", f"postgear.{duty}()")
    query(
        dsn,
        f"create or replace function postgear.{duty}() returns {result} language plpgsql as $$ begin raise 'not today'; end $$",
    )
    wait_for(lambda: meets("renewed_at - duties_at > interval '3 seconds'"), "the time stands still")
    (member,) = json.loads(run("cluster", "--dsn", dsn, "--json").stdout)["members"]
    assert member["duties_seconds_ago"] - member["renewed_seconds_ago"] > 3
