"""A short run of ``./dev chaos``, and that it finds what it looks for: servers with a fault built in must fail it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.folders import open_folder

SEED = "1"


def chaos(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run it to its end, its folder removed afterwards."""
    command = [sys.executable, "-m", "tests.failover.chaos", "--seed", SEED, *arguments]
    with open_folder() as folder:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=280,
            env=os.environ | {"TMPDIR": str(folder)},
        )
    print(done.stdout)
    return done


@pytest.mark.timeout(300)
def test_no_promise_is_broken_by_a_minute_of_faults() -> None:
    done = chaos("--minutes", "1", "--per-round", "6")
    assert done.returncode == 0
    assert "all invariants held" in done.stdout


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("broken", "faults", "found"),
    [
        ("ack-local", "failover-cut", "acked jobs lost"),
        ("ack-in-doubt", "terminate-storm", "acked jobs lost"),
        ("finish-unfenced", "stop-server", "completions accepted from who did not hold the job"),
        ("attempts-uncounted", "kill-server,kill-worker", "second starts not flagged"),
    ],
)
def test_a_broken_build_is_found(broken: str, faults: str, found: str) -> None:
    # Ends with the first round that shows it; with more long jobs, for a fault is found by what runs when it comes.
    done = chaos("--minutes", "4", "--per-round", "2", "--long", "0.01", "--break", broken, "--faults", faults)
    assert done.returncode == 1
    assert f"  {found}: " in done.stdout
