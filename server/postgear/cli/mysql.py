"""`postgear mysql`, `relay` and `import-gearmand`: what comes from MariaDB and MySQL, and from gearmand's tables."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from postgear.errors import ConfigError

from .words import count, delay, dsn, dsn_option, timeout, trigger_options, words

if TYPE_CHECKING:
    from postgear.outbox.connecting import Address

    from .words import Commands


def add(commands: Commands) -> None:
    """Add the commands."""
    _add_mysql(commands)
    _add_relay(commands)
    _add_import(commands)


def _mysql_option() -> argparse.ArgumentParser:
    parent = argparse.ArgumentParser(add_help=False)
    parent.add_argument(
        "--mysql", metavar="URL", help="mysql://USER:PASSWORD@HOST:PORT/DATABASE (POSTGEAR_MYSQL keeps the password out of `ps`)"
    )
    return parent


def _address(arguments: argparse.Namespace) -> Address:
    url = arguments.mysql or os.environ.get("POSTGEAR_MYSQL")
    if not url:
        raise ConfigError("no database given; --mysql or POSTGEAR_MYSQL names one")
    from postgear.outbox.connecting import parse

    return parse(url)


def _add_mysql(commands: Commands) -> None:
    mysql = commands.add_parser(
        "mysql",
        help="install an outbox into MariaDB or MySQL, and its triggers",
        description="Jobs that are queued in transactions of MariaDB or MySQL. docs/mysql.md explains them.",
    )
    group = mysql.add_subparsers(title="commands", metavar="COMMAND", required=True)
    where = _mysql_option()
    text = "create the outbox's tables and functions, or upgrade them"
    for name in ("install", "upgrade"):
        install = group.add_parser(name, parents=[where], help=text, description=text.capitalize() + ".")
        install.set_defaults(run=_install)
        text = "the same as install"
    uninstall = group.add_parser(
        "uninstall", parents=[where], help="drop them", description="Drop the outbox's tables and functions."
    )
    uninstall.add_argument("--force", action="store_true", help="though rows wait or triggers are left; the rows are lost")
    uninstall.set_defaults(run=_uninstall)
    status = group.add_parser(
        "status",
        parents=[where],
        help="show what waits in the outbox and what was set aside",
        description="Show what waits in the outbox and what was set aside, from MariaDB's or MySQL's side.",
    )
    status.add_argument("--json", action="store_true", help="print a JSON list instead of a table")
    status.set_defaults(run=_status)
    retry = group.add_parser(
        "retry",
        parents=[where],
        help="put rows that were set aside back into the outbox",
        description="Put rows of postgear_outbox_failed back to the end of the outbox. Correct them first with UPDATE.",
    )
    retry.add_argument("ids", metavar="ID", type=count, nargs="*", help="which (default: all)")
    retry.set_defaults(run=_retry)
    _add_trigger(group, where)


def _add_trigger(group: Commands, where: argparse.ArgumentParser) -> None:
    trigger = group.add_parser("trigger", help="make, drop and list triggers", description="Make, drop and list triggers.")
    triggers = trigger.add_subparsers(title="commands", metavar="COMMAND", required=True)
    parents = [where, trigger_options()]
    create = triggers.add_parser("create", parents=parents, help="make a trigger", description="Make a trigger on a table.")
    create.add_argument("table", metavar="TABLE")
    create.add_argument("function", metavar="FUNCTION", help="the Gearman function that gets the jobs")
    create.add_argument("--name", help="the trigger's name (default: postgear_TABLE_FUNCTION)")
    create.add_argument("--events", metavar="LIST", type=words, help="of insert,update,delete (default: insert)")
    create.add_argument(
        "--delay", metavar="SECONDS", dest="delay_seconds", type=delay, help="run not before this long from then on"
    )
    create.add_argument(
        "--replace",
        action="store_true",
        help="replace triggers of this name and these events that postgear made on this table; in MySQL a write in between "
        "queues nothing",
    )
    create.set_defaults(run=_create_trigger)
    drop = triggers.add_parser("drop", parents=[where], help="drop a trigger", description="Drop a trigger; its jobs stay.")
    drop.add_argument("table", metavar="TABLE")
    drop.add_argument("name", metavar="NAME")
    drop.set_defaults(run=_drop_trigger)
    listing = triggers.add_parser("list", parents=[where], help="show the triggers", description="Show the triggers.")
    listing.add_argument("--json", action="store_true", help="print a JSON list instead of a table")
    listing.set_defaults(run=_list_triggers)


def _add_relay(commands: Commands) -> None:
    relay = commands.add_parser(
        "relay",
        parents=[_mysql_option(), dsn_option()],
        help="move jobs from an outbox in MariaDB or MySQL into the queue",
        description="Move jobs from the outbox into the queue until SIGTERM. Several may run: one works, the others wait.",
    )
    relay.add_argument("--once", action="store_true", help="end when the outbox is empty")
    relay.add_argument("--batch", metavar="ROWS", type=count, default=5000, help="rows a transaction (default: 5000)")
    relay.add_argument(
        "--poll", metavar="SECONDS", type=timeout, default=0.1, help="how often an empty outbox is read (default: 0.1)"
    )
    relay.add_argument(
        "--lease",
        metavar="SECONDS",
        type=timeout,
        default=15.0,
        help="silent for so long, it is replaced by another (default: 15)",
    )
    relay.add_argument("--log-level", default="INFO", help="as that of `postgear serve` (default: INFO)")
    relay.add_argument("--log-format", choices=("text", "json"), default="text", help="default: text")
    relay.set_defaults(run=_relay)


def _add_import(commands: Commands) -> None:
    importing = commands.add_parser(
        "import-gearmand",
        parents=[dsn_option()],
        help="bring jobs of gearmand's own queue tables into the queue",
        description="Bring jobs of gearmand's queue tables into the queue, with priority and time. Stop gearmand first: it keeps "
        "the jobs in memory, too. Running it again imports none twice.",
    )
    importing.add_argument(
        "source", metavar="SOURCE", help="sqlite:FILE, mysql://USER:PASSWORD@HOST/DATABASE or postgresql://USER@HOST/DATABASE"
    )
    importing.add_argument("--table", help="its name (default: gearman_queue, in PostgreSQL queue)")
    importing.add_argument("--delete", action="store_true", help="delete the rows there once they are in the queue")
    importing.add_argument("--dry-run", action="store_true", help="only count, by function and priority")
    importing.set_defaults(run=_import)


def _install(arguments: argparse.Namespace) -> int:
    from postgear.outbox import schema

    print(schema.install(_address(arguments)))
    return 0


def _uninstall(arguments: argparse.Namespace) -> int:
    from postgear.outbox import schema

    schema.uninstall(_address(arguments), force=arguments.force)
    return 0


def _status(arguments: argparse.Namespace) -> int:
    from postgear.outbox import status
    from postgear.tables import print_rows

    print_rows(status.Status._fields, [status.status(_address(arguments))], as_json=arguments.json)
    return 0


def _retry(arguments: argparse.Namespace) -> int:
    from postgear.outbox import status

    count = status.retry(_address(arguments), arguments.ids or None)
    print(f"{count} {'row' if count == 1 else 'rows'} put back")
    return 0


def _create_trigger(arguments: argparse.Namespace) -> int:
    from postgear.outbox import triggers

    given = {name: value for name in triggers.Options._fields if (value := getattr(arguments, name)) is not None}
    if "delay_seconds" in given:
        given["delay_seconds"] = round(given["delay_seconds"])
    print(triggers.create(_address(arguments), arguments.table, arguments.function, arguments.name, triggers.Options(**given)))
    return 0


def _drop_trigger(arguments: argparse.Namespace) -> int:
    from postgear.outbox import triggers

    triggers.drop(_address(arguments), arguments.table, arguments.name)
    return 0


def _list_triggers(arguments: argparse.Namespace) -> int:
    from postgear.outbox import triggers
    from postgear.tables import print_rows

    print_rows(triggers.Trigger._fields, triggers.installed(_address(arguments)), as_json=arguments.json)
    return 0


def _relay(arguments: argparse.Namespace) -> int:
    address, database = _address(arguments), dsn(arguments.dsn)
    from postgear import logs
    from postgear.outbox import relay

    if arguments.log_level not in logs.LEVELS:
        raise ConfigError(f"--log-level: {arguments.log_level} given, must be one of {', '.join(logs.LEVELS)}")
    logs.configure(arguments.log_level, arguments.log_format, None)
    settings = relay.Settings(arguments.batch, arguments.poll, arguments.lease, arguments.once)
    moved = relay.run(address, database, settings)
    if arguments.once:
        print(f"{moved} rows moved")
    return 0


def _import(arguments: argparse.Namespace) -> int:
    database = dsn(arguments.dsn)
    from postgear import import_gearmand
    from postgear.tables import print_rows

    source = import_gearmand.source(arguments.source, arguments.table)
    if arguments.dry_run:
        print_rows(import_gearmand.Counted._fields, import_gearmand.count(source), as_json=False)
        return 0
    done = import_gearmand.run(source, database, deletes=arguments.delete)
    print(f"{done.imported} jobs imported, {done.known} were before, {done.deleted} rows deleted")
    for error in done.wrong:
        print(f"postgear: left where it is: {error}")
    if done.kept:
        print(
            f"postgear: {done.kept} rows are left: a run without --delete imported them, and gearmand may have queued the same "
            "jobs again since. If it has not run since, delete them yourself; if they are new jobs, run in PostgreSQL: "
            "delete from postgear.imported; then import again"
        )
    return 1 if done.wrong or done.kept else 0
