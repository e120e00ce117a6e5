"""What the pages on failover say can be run, or is there."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from postgear import cli, schema
from tests.ports import free_port
from tests.server.load import query
from tests.server_process import ServerProcess

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").glob("failover*.md"))
MANAGED = (ROOT / "docs" / "failover-managed.md").read_text(encoding="utf-8")
CLIENTS = (ROOT / "docs" / "failover-clients.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / link).exists(), link


def joined(page: Path) -> str:
    """The text of a page, with commands over several lines made one."""
    return re.sub(r"\\\n *", "", page.read_text(encoding="utf-8"))


def commands() -> list[str]:
    """The commands of postgear in the pages, on lines of their own."""
    return [line for page in PAGES for line in re.findall(r"^    (postgear .*)$", joined(page), re.MULTILINE)]


@pytest.mark.parametrize("command", commands())
def test_commands_have_words_that_there_are(command: str) -> None:
    assert cli._parser().parse_args(shlex.split(command)[1:]).run


def test_there_are_commands() -> None:
    assert len(commands()) >= 3


def test_a_database_without_a_superuser_is_set_up_as_for_managed_postgresql(
    postgres_dsn: str, empty_dsn: str, tmp_path: Path
) -> None:
    (settings,) = re.findall(r"```toml\n(.*?)```", MANAGED, re.DOTALL)
    (statements,) = re.findall(r"```sql\n(.*?)```", MANAGED, re.DOTALL)
    database = str(conninfo_to_dict(empty_dsn)["dbname"])
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        connection.execute("create role owner login createrole")
        connection.execute(f"alter database {database} owner to owner")  # type: ignore[arg-type]
    try:
        schema.upgrade(make_conninfo(empty_dsn, user="owner"), queue="test", functions="sql")
        query(make_conninfo(empty_dsn, user="owner"), statements)
        # The recipe's own DSN, but for what leads to a machine.
        socket = {name: str(conninfo_to_dict(empty_dsn)[name]) for name in ("host", "port")}
        dsn = make_conninfo(tomllib.loads(settings)["dsn"], dbname=database, sslmode="prefer", **socket)
        assert conninfo_to_dict(dsn)["user"] == "gear_server"
        server = ServerProcess("--submit-timeout-seconds", "60", dsn=dsn, log_path=tmp_path / "log")
        try:
            query(make_conninfo(empty_dsn, user="owner"), "select gman_do_background('f', 'x')")
            assert query(empty_dsn, "select count(*) from postgear.jobs") == [(1,)]
        finally:
            server.kill()
    finally:
        # Roles are of the whole cluster, which other tests use too.
        with psycopg.connect(empty_dsn, autocommit=True) as connection:
            connection.execute("drop owned by owner cascade")
            connection.execute("reassign owned by owner to postgres")
            connection.execute("drop role if exists gear_server")
            connection.execute(f"alter database {database} owner to postgres")  # type: ignore[arg-type]
            connection.execute("drop role owner")


@pytest.mark.skipif(shutil.which("php") is None, reason="PHP is not installed")
def test_the_php_function_takes_the_server_that_is_there(server: ServerProcess, tmp_path: Path) -> None:
    if subprocess.run(["php", "-r", "exit(extension_loaded('gearman') ? 0 : 1);"], check=False).returncode:
        pytest.skip("PHP's gearman extension is not installed")
    (function,) = re.findall(r"```php\n(.*?)```", CLIENTS, re.DOTALL)
    program = tmp_path / "program.php"
    servers = f"[['127.0.0.1', {free_port()}], ['{server.host}', {server.port}]]"
    program.write_text(f"<?php\n{function}\necho connect({servers})->doBackground('f', 'x');\n")
    run = subprocess.run(["php", str(program)], capture_output=True, text=True, timeout=20, check=False)
    assert run.stdout.startswith("H:test:"), run
