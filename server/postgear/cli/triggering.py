"""`postgear trigger`: triggers that queue jobs."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from .words import dsn, dsn_option, trigger_options, words

if TYPE_CHECKING:
    from .words import Commands


def add(commands: Commands) -> None:
    """Add `trigger` and its commands."""
    trigger = commands.add_parser(
        "trigger",
        help="make, drop and list triggers that queue jobs",
        description="Make, drop and list triggers that queue jobs. docs/triggers.md explains them.",
    )
    group = trigger.add_subparsers(title="commands", metavar="COMMAND", required=True)
    database = dsn_option()

    parents = [database, trigger_options()]
    create = group.add_parser("create", parents=parents, help="make a trigger", description="Make a trigger on a table.")
    create.add_argument("table", metavar="TABLE", help="as in SQL: a name that needs quotes has them")
    create.add_argument("function", metavar="FUNCTION", help="the Gearman function that gets the jobs")
    create.add_argument("--name", help="the trigger's name (default: postgear_FUNCTION)")
    create.add_argument("--events", metavar="LIST", type=words, help="of insert,update,delete,truncate (default: insert)")
    create.add_argument("--level", choices=("statement", "row"), help="default: statement")
    create.add_argument("--delay", metavar="INTERVAL", help="as in SQL, for example '5 minutes'")
    create.add_argument("--enable", choices=("origin", "replica", "always"), help="default: origin")
    create.set_defaults(run=_create)

    drop = group.add_parser("drop", parents=[database], help="drop a trigger", description="Drop a trigger; its jobs stay.")
    drop.add_argument("table", metavar="TABLE", help="as in SQL, or the number that `list` shows of one that is gone")
    drop.add_argument("name", metavar="NAME")
    drop.set_defaults(run=_drop)

    listing = group.add_parser("list", parents=[database], help="show the triggers", description="Show the triggers.")
    listing.add_argument("--json", action="store_true", help="print a JSON list instead of a table")
    listing.set_defaults(run=_list)


def _create(arguments: argparse.Namespace) -> int:
    database = dsn(arguments.dsn)
    from postgear import triggers

    names = ["name", "events", "level", "when", "columns", "payload", "payload_columns", "priority", "delay", "key", "enable"]
    options = {name: value for name in names if (value := getattr(arguments, name)) is not None}
    print(triggers.create(database, arguments.table, arguments.function, options))
    return 0


def _drop(arguments: argparse.Namespace) -> int:
    database = dsn(arguments.dsn)
    from postgear import triggers

    triggers.drop(database, arguments.table, arguments.name)
    return 0


def _list(arguments: argparse.Namespace) -> int:
    database = dsn(arguments.dsn)
    from postgear import triggers
    from postgear.tables import print_rows

    print_rows(triggers.Trigger._fields, triggers.installed(database), as_json=arguments.json)
    return 0
