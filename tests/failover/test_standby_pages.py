"""The pages of `postgear standby --http`: before, during and after it takes over."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

import pytest

from tests.failover.asking import get, submits
from tests.failover.conftest import Pair
from tests.failover.machines import PROGRAM
from tests.server.load import query, wait_for

HTTP = ("--http", "127.0.0.1:0")


def numbers(pair: Pair) -> dict[str, float]:
    """Return the samples of /metrics by name and labels."""
    status, text = get(pair.b, "/metrics")
    assert status == 200
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in text.splitlines() if line[0] != "#")}


def test_a_standby_is_ready_when_it_would_take_over_and_after_it_has(pair: Pair) -> None:
    pair.b.start("--auto-promote", "--loss-seconds", "2", *HTTP)
    assert get(pair.b, "/live") == (200, "live\n")
    wait_for(lambda: "was not its synchronous standby" in get(pair.b, "/ready")[1], "it says why it is not")
    assert get(pair.b, "/ready")[0] == 503
    assert numbers(pair)["postgear_standby_synchronous"] == 0
    assert pair.b.stop() == 0

    pair.start_synchronous("--auto-promote", "--loss-seconds", "2", *HTTP)
    wait_for(lambda: get(pair.b, "/ready") == (200, "ready\n"), "it would take over")
    query(pair.a.dsn, "select pg_switch_wal()")
    wait_for(lambda: numbers(pair)["postgear_standby_streaming"] == 1, "it streams")
    found = numbers(pair)
    assert found['postgear_standby_role{role="replica"}'] == 1
    assert found['postgear_standby_verdict{verdict="heard"}'] == 1
    assert found["postgear_standby_synchronous"] == 1
    assert found["postgear_standby_synchronous_seconds"] >= 0
    assert found["postgear_standby_auto_promote"] == 1
    assert found["postgear_standby_replay_lag_bytes"] >= 0

    pair.a.kill()
    submits(pair.b)
    wait_for(lambda: numbers(pair)['postgear_standby_role{role="promoted"}'] == 1, "it is promoted")
    wait_for(lambda: get(pair.b, "/ready") == (200, "ready\n"), "it serves")
    assert numbers(pair)["postgear_standby_server_running"] == 1
    assert "postgear_standby_streaming" not in numbers(pair)


def test_a_lost_primary_and_a_detached_standby_are_seen(pair: Pair) -> None:
    pair.start_synchronous("--loss-seconds", "2", *HTTP)
    wait_for(lambda: "this replica may be promoted" in get(pair.b, "/ready")[1], "it would not take over unasked")
    pair.network.refuse()
    wait_for(lambda: numbers(pair)['postgear_standby_verdict{verdict="not_asked"}'] == 1, "it is lost")
    assert numbers(pair)["postgear_standby_primary_silent_seconds"] > 2
    assert pair.b.run("detach").returncode == 8  # half done, for the primary is not reached
    wait_for(lambda: numbers(pair)["postgear_standby_detached"] == 1, "it is detached")
    assert numbers(pair)['postgear_standby_verdict{verdict="detached"}'] == 1
    assert get(pair.b, "/ready")[0] == 503


def test_a_standby_whose_pages_have_no_place_is_a_standby_all_the_same(pair: Pair) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        pair.b.start("--synchronous", "--http", f"127.0.0.1:{taken.getsockname()[1]}")
        pair.b.wait_for_log("ERROR standby no pages reason=.*choose another with --http")
        pair.b.wait_for_log("synchronous: the primary's commits wait")


@pytest.mark.parametrize(
    ("arguments", "variables", "complaint"),
    [
        (
            ["--http", "127.0.0.1:8080"],
            {"POSTGEAR_HTTP": "0.0.0.0:8080"},
            "--http: port 8080 is that of the server's own pages",
        ),
        (["--listen", "junk"], {}, "--listen: 'junk' given, must be HOST:PORT"),
        ([], {"POSTGEAR_LEASE_SECONDS": "x"}, "POSTGEAR_LEASE_SECONDS: 'x' given, must be seconds"),
    ],
)
def test_what_the_server_would_refuse_after_a_takeover_is_refused_at_the_start(
    arguments: list[str], variables: dict[str, str], complaint: str, tmp_path: Path
) -> None:
    command = [str(PROGRAM), "standby", "--primary", "host=a", "--data-dir", str(tmp_path / "b"), *arguments]
    done = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2
    assert complaint in done.stderr
    assert not (tmp_path / "b").exists()
