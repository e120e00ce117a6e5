"""`postgear serve` and `postgear init`: the server, and the database that it needs."""

from __future__ import annotations

import argparse
import os
from dataclasses import fields
from typing import TYPE_CHECKING, Final

from postgear.config import NAME_MAX_BYTES, Config, load, shown_default
from postgear.config_values import token
from postgear.errors import ConfigError

from .words import dsn_option

if TYPE_CHECKING:
    from .words import Commands

_GROUPS: Final = {
    "dsn": "database",
    "listen": "addresses",
    "name": "names",
    "round_robin": "jobs",
    "remote_shutdown": "limits and times",
    "keepalive": "TCP keepalive",
    "log_level": "log",
    "pid_file": "process",
}
"""The headings of `postgear serve --help`, by the setting that each begins with."""


def add(commands: Commands) -> None:
    """Add `serve`, `gearmand` and `init`."""
    _add_serve(commands)
    commands.add_parser("gearmand", help="run the server with gearmand's own command line (see `postgear gearmand --help`)")
    _add_init(commands)


def _add_serve(commands: Commands) -> None:
    serve = commands.add_parser(
        "serve",
        help="run the server",
        usage="postgear serve [OPTION …]",
        description="Run the server until SIGTERM. Flags win over the environment (POSTGEAR_<NAME>), that over the TOML file.",
    )
    serve.add_argument("--config", metavar="FILE", help="a TOML file (POSTGEAR_CONFIG, default ./postgear.toml if there is one)")
    for each in fields(Config):
        flag = "--" + each.name.replace("_", "-")
        unit = each.metadata["unit"]
        default = f"default: {shown_default(each)}" + (f" {unit}" if unit == "seconds" else "")
        text = f"{each.metadata['help'].removesuffix('.')} ({default})".replace("%", "%%")
        if each.name in _GROUPS:
            group = serve.add_argument_group(_GROUPS[each.name])
        if isinstance(each.default, bool):
            group.add_argument(flag, dest=each.name, action=argparse.BooleanOptionalAction, default=None, help=text)
        elif each.name == "listen":
            text = text.replace(" (", "; may be repeated (")
            group.add_argument(flag, dest=each.name, action="append", metavar="HOST:PORT", help=text)
        else:
            metavar = {"seconds": "SECONDS", "bytes": "SIZE", "": each.name.rpartition("_")[2].upper()}.get(unit, "N")
            group.add_argument(flag, dest=each.name, metavar=metavar, help=text)
    serve.set_defaults(run=_serve)


def _serve(arguments: argparse.Namespace) -> int:
    from postgear import daemon

    flags = {each.name: getattr(arguments, each.name) for each in fields(Config)}

    def read() -> Config:
        return load(flags, os.environ, arguments.config)

    code: int = daemon.run(read(), read)
    return code


def _add_init(commands: Commands) -> None:
    init = commands.add_parser(
        "init",
        parents=[dsn_option()],
        help="create or upgrade the schema in a database",
        description="Create or upgrade the schema postgear in a database; does nothing where it is up to date.",
    )
    init.add_argument("--queue", metavar="NAME", help="the queue's name, part of every background job's handle")
    init.add_argument(
        "--sql", action="store_true", help="change nothing, print the SQL for psql; without a database, for a new one"
    )
    init.add_argument(
        "--functions",
        choices=("auto", "extension", "plpython", "sql"),
        default="auto",
        help="the gman_* functions for SQL: of the extension, in PL/Python without it, in plain SQL, which cannot wait for "
        "results; auto (default) takes the first of these that the database server has",
    )
    init.set_defaults(run=_init)


def _init(arguments: argparse.Namespace) -> int:
    dsn = load({"dsn": arguments.dsn}, os.environ).dsn
    if dsn is None and not arguments.sql:
        raise ConfigError("no database given; --dsn, POSTGEAR_DSN or PGHOST, PGHOSTADDR, PGSERVICE, PGDATABASE name one")
    if arguments.queue is not None:
        try:
            token(NAME_MAX_BYTES)(arguments.queue)
        except ValueError:
            allowed = f"1 to {NAME_MAX_BYTES} printable ASCII characters without spaces"
            raise ConfigError(f"--queue: {arguments.queue!r} given, must be {allowed}") from None
    from postgear import schema

    if dsn is None or arguments.sql:
        found = None if dsn is None else schema.current(dsn)
        print(schema.script(found, queue=arguments.queue, functions=arguments.functions), end="")
        return 0
    found = schema.current(dsn)
    old_name = schema.queue_name(dsn) if found else None
    notes: list[str] = []
    version = schema.upgrade(dsn, queue=arguments.queue, functions=arguments.functions, tell=notes.append)
    done = "created" if found is None else "nothing to do" if found == version else f"upgraded from {found}"
    name = schema.queue_name(dsn)
    print(f"schema postgear: {done}, version {version}, queue {name}", *notes, sep="\n")
    if old_name not in (None, name):
        print(
            f"queue renamed from {old_name} to {name}: restart the servers; handles given out before are unknown then, jobs stay"
        )
    return 0
