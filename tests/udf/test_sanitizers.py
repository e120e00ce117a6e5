"""The functions under AddressSanitizer, UndefinedBehaviorSanitizer and ThreadSanitizer, called by driver.c.

A million calls: ``POSTGEAR_UDF_CALLS=1000000 ./dev test tests/udf/test_sanitizers.py -k leak --timeout 3600``.
"""

from __future__ import annotations

import os
import random
import subprocess
from pathlib import Path

import pytest

from tests.extension.python_worker import PythonWorker
from tests.server.gearmand import Gearmand
from tests.udf.bad_server import BadServer, random_answers
from tests.udf.conftest import SOURCES

THREADS = 4
CALLS = int(os.environ.get("POSTGEAR_UDF_CALLS", "100000"))
FLAGS = ["-std=c11", "-D_GNU_SOURCE", "-g", "-O1", "-Wall", "-Wextra", "-Werror", "-rdynamic", "-pthread"]


def build(folder: Path, *sanitizers: str) -> Path:
    """Build the driver with the sources of the library."""
    program = folder / "driver"
    sources = [*SOURCES.glob("*.c"), Path(__file__).with_name("driver.c")]
    subprocess.run(["gcc", *FLAGS, *sanitizers, "-o", program, *sources, "-ldl"], check=True)
    return program


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The driver that finds wrong memory, leaks and undefined behaviour."""
    flags = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer")
    return build(tmp_path_factory.mktemp("address"), *flags)


@pytest.fixture(scope="module")
def racing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The driver that finds data races."""
    program = build(tmp_path_factory.mktemp("thread"), "-fsanitize=thread")
    tried = subprocess.run([program, "", "0", "0", "0"], capture_output=True, text=True)
    if "unexpected memory mapping" in tried.stderr:
        pytest.skip("ThreadSanitizer does not run with this kernel's address space")
    return program


def run(program: Path, servers: str, calls: int, seed: int) -> dict[str, int]:
    """Run the driver; returns what it counted."""
    words = [program, servers, str(THREADS), str(calls // THREADS), str(seed)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, f"seed {seed}:\n{done.stdout}\n{done.stderr[-10000:]}"
    return {name: int(number) for name, number in (word.split("=") for word in done.stdout.split())}


def test_many_calls_leak_nothing(checked: Path, stock_gearmand: Gearmand) -> None:
    with PythonWorker(stock_gearmand.host, stock_gearmand.port):
        counted = run(checked, stock_gearmand.address, CALLS, 1)
    assert counted["values"] > CALLS * 0.97


def test_threads_do_not_race(racing: Path, stock_gearmand: Gearmand) -> None:
    with PythonWorker(stock_gearmand.host, stock_gearmand.port):
        counted = run(racing, stock_gearmand.address, 8000, 2)
    assert counted["values"] > 7000


def test_bad_answers_break_nothing(checked: Path) -> None:
    for seed in [random.randrange(2**32) for _ in range(3)]:
        with BadServer(random_answers(seed)) as bad:
            counted = run(checked, f"localhost:{bad.port}", 400, seed)
            assert bad.connections > 20
        assert counted["nulls"] > 40


def test_bad_answers_cause_no_race(racing: Path) -> None:
    seed = random.randrange(2**32)
    with BadServer(random_answers(seed)) as bad:
        run(racing, f"localhost:{bad.port}", 200, seed)
