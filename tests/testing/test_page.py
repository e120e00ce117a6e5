"""The code of docs/testing.md runs as it stands there, in a project of its own; without it the plugin costs nothing."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

PAGE = Path(__file__).parents[2] / "docs" / "testing.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def write(pytester: pytest.Pytester, blocks: list[str]) -> None:
    pytester.makepyfile(app=BLOCKS[0])
    for number, block in enumerate(blocks):
        pytester.makepyfile(**{f"test_{number}": block})


def test_the_queue_in_memory(pytester: pytest.Pytester) -> None:
    blocks = [block for block in BLOCKS[1:] if "postgear_queue" in block]
    write(pytester, blocks)

    result = pytester.runpytest_subprocess("-W", "error", "-p", "no:randomly")

    result.assert_outcomes(passed=sum(block.count("def test_") for block in blocks))
    assert len(blocks) == 3


def test_real_database_and_server(pytester: pytest.Pytester, postgres_dsn: str) -> None:
    blocks = [block for block in BLOCKS[1:] if "postgear_server" in block]
    write(pytester, blocks)

    result = pytester.runpytest_subprocess("-W", "error", "--postgear-dsn", postgres_dsn)

    result.assert_outcomes(passed=2)
    assert len(blocks) == 1


def test_a_postgresql_of_the_tests_own(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import psycopg

        def test_fresh(postgear_database):
            with psycopg.connect(postgear_database) as connection:
                assert connection.execute("select count(*) from postgear.job").fetchone() == (0,)
                connection.execute("select gman_do_background('f', 'x')")

        test_fresh_again = test_fresh
        """
    )

    pytester.runpytest_subprocess("-W", "error").assert_outcomes(passed=2)


def test_an_unused_plugin_imports_nothing(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import sys

        def test_modules():
            loaded = {name for name in sys.modules if name.startswith("postgear")}
            assert loaded == {"postgear", "postgear.testing", "postgear.testing.plugin"}
            assert not {"psycopg", "msgspec", "sqlalchemy", "uvloop", "asyncio"} & set(sys.modules)
        """
    )

    pytester.runpytest_subprocess("-p", "no:anyio", "-p", "no:asyncio", "-p", "no:postgresql").assert_outcomes(passed=1)


def test_the_plugin_without_pytest_is_not_loaded_by_postgear() -> None:
    code = "import postgear, sys; assert 'pytest' not in sys.modules and 'postgear.testing' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=20)
