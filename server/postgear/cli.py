"""The command ``postgear``: what its words mean and how errors are told.

Nothing heavy is imported until a command needs it, so that ``postgear submit`` in a shell loop stays quick.
Not here: gearmand's own command line (``gearmand``) and the server (``daemon``).
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import fields

from postgear import __version__
from postgear.config import Config, load, shown_default
from postgear.config_values import parse_address
from postgear.errors import ConfigError, EmbeddedError, PostgearError, ServerError, StoreUnavailable

DEFAULT_SERVER = "127.0.0.1:4730"
INTERRUPTED = 130
"""The exit code that shells give to a command ended by Ctrl-C."""

_ADVICE: dict[type[PostgearError], str] = {
    ConfigError: "see `postgear serve --help` or docs/config.md",
    StoreUnavailable: "check that PostgreSQL runs and that the DSN (--dsn, POSTGEAR_DSN, PGHOST …) is right",
    EmbeddedError: "install Debian's package postgresql, or name a database with --dsn",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code: 0, the one of the error's class, or 2 for wrong usage."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words and words[0] == "gearmand":
        from postgear import gearmand

        return gearmand.main(words[1:])
    arguments = _parser().parse_args(words)
    try:
        code: int = arguments.run(arguments)
        sys.stdout.flush()
        return code
    except PostgearError as error:
        print(f"postgear: {error}", file=sys.stderr)
        if advice := _advice(error):
            print(f"postgear: {advice}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has left (`postgear jobs | head`); Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _advice(error: PostgearError) -> str | None:
    if isinstance(error, ServerError) and isinstance(error.__cause__, OSError):
        return "is it running? start one with `postgear serve`, or name another with --server HOST:PORT"
    return next((advice for kind, advice in _ADVICE.items() if isinstance(error, kind)), None)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="postgear",
        description="A Gearman job server whose queue lives in PostgreSQL tables.",
        epilog="`postgear COMMAND --help` says more about each.",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_serve(commands)
    commands.add_parser("gearmand", help="run the server with gearmand's own command line (see `postgear gearmand --help`)")
    _add_init(commands)
    server = argparse.ArgumentParser(add_help=False)
    server.add_argument(
        "--server",
        metavar="HOST:PORT",
        default=os.environ.get("POSTGEAR_SERVER", DEFAULT_SERVER),
        help=f"the Gearman server to ask (environment POSTGEAR_SERVER, default {DEFAULT_SERVER})",
    )
    table = argparse.ArgumentParser(add_help=False, parents=[server])
    table.add_argument("--json", action="store_true", help="print a JSON list instead of a table")
    for name, run, text in (
        ("status", _status, "show each function's jobs and workers"),
        ("workers", _workers, "show the connections and their functions"),
        ("jobs", _jobs, "show the jobs that the server holds"),
    ):
        command = commands.add_parser(name, parents=[table], help=text, description=text.capitalize() + ".")
        command.set_defaults(run=run)
    _add_submit(commands, server)
    _add_trigger(commands)
    cancel = commands.add_parser("cancel", parents=[server], help="cancel a job", description="Cancel a job.")
    cancel.add_argument("handle", metavar="HANDLE", help="what `postgear submit -b` printed")
    cancel.set_defaults(run=_cancel)
    version = commands.add_parser("version", help="print the version")
    version.set_defaults(run=_version)
    return parser


def _add_serve(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    serve = commands.add_parser(
        "serve",
        help="run the server",
        description="Run the server until SIGTERM. Flags win over the environment (POSTGEAR_<NAME>), that over the TOML file.",
    )
    serve.add_argument("--config", metavar="FILE", help="a TOML file (POSTGEAR_CONFIG, default ./postgear.toml if there is one)")
    for each in fields(Config):
        flag = "--" + each.name.replace("_", "-")
        unit = each.metadata["unit"]
        default = f"default: {shown_default(each)}" + (f" {unit}" if unit and unit != "bytes" else "")
        text = f"{each.metadata['help']} ({default})".replace("%", "%%")
        if isinstance(each.default, bool):
            serve.add_argument(flag, dest=each.name, action=argparse.BooleanOptionalAction, default=None, help=text)
        elif each.name == "listen":
            serve.add_argument(flag, dest=each.name, action="append", metavar="HOST:PORT", help=text + "; may be repeated")
        else:
            serve.add_argument(flag, dest=each.name, metavar=each.name.rpartition("_")[2].upper(), help=text)
    serve.set_defaults(run=_serve)


def _add_init(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    init = commands.add_parser(
        "init",
        help="create or upgrade the schema in a database",
        description="Create or upgrade the schema postgear in a database; does nothing where it is up to date.",
    )
    init.add_argument("--dsn", help="the database (POSTGEAR_DSN, libpq's environment, or the TOML file)")
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


def _add_submit(commands: argparse._SubParsersAction[argparse.ArgumentParser], server: argparse.ArgumentParser) -> None:
    submit = commands.add_parser(
        "submit",
        parents=[server],
        help="submit a job",
        description="Submit a job and wait for it: data goes to standard output, progress and warnings to standard error. "
        "The exit code is 1 if the job fails.",
    )
    submit.add_argument("function", metavar="FUNCTION")
    submit.add_argument("workload", metavar="WORKLOAD", nargs="?", help="left out or -: standard input, if that is no terminal")
    submit.add_argument("-b", "--background", action="store_true", help="do not wait; print the handle")
    submit.add_argument("--priority", choices=("high", "normal", "low"), default="normal")
    submit.add_argument("--unique", default="", help="jobs of one function and unique are one job; - takes the workload")
    submit.add_argument("--timeout", metavar="SECONDS", type=float, help="how long to wait for each answer (default: for ever)")
    when = submit.add_mutually_exclusive_group()
    when.add_argument("--at", metavar="EPOCH", type=int, help="run in the background, not before this Unix time")
    when.add_argument("--delay", metavar="SECONDS", type=float, help="run in the background, not before this long from here on")
    submit.set_defaults(run=_submit)


def _add_trigger(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    trigger = commands.add_parser(
        "trigger",
        help="make, drop and list triggers that queue jobs",
        description="Make, drop and list triggers that queue jobs. docs/triggers.md explains them.",
    )
    group = trigger.add_subparsers(title="commands", metavar="COMMAND", required=True)
    database = argparse.ArgumentParser(add_help=False)
    database.add_argument("--dsn", help="the database (POSTGEAR_DSN, libpq's environment, or the TOML file)")

    create = group.add_parser("create", parents=[database], help="make a trigger", description="Make a trigger on a table.")
    create.add_argument("table", metavar="TABLE", help="as in SQL: a name that needs quotes has them")
    create.add_argument("function", metavar="FUNCTION", help="the Gearman function that gets the jobs")
    create.add_argument("--name", help="the trigger's name (default: postgear_FUNCTION)")
    create.add_argument("--events", metavar="LIST", type=_words, help="of insert,update,delete,truncate (default: insert)")
    create.add_argument("--level", choices=("statement", "row"), help="default: statement")
    create.add_argument("--when", metavar="SQL", help="a condition over NEW and OLD")
    create.add_argument("--columns", metavar="LIST", type=_words, help="queue for an update only if one of these changed")
    create.add_argument("--payload", choices=("row", "change", "key", "columns"), help="what the workload holds (default: row)")
    create.add_argument("--payload-columns", metavar="LIST", type=_words, help="the columns of --payload columns")
    create.add_argument("--priority", choices=("high", "normal", "low"), help="default: normal")
    create.add_argument("--delay", metavar="INTERVAL", help="as in SQL, for example '5 minutes'")
    create.add_argument(
        "--key",
        metavar="LIST",
        type=_words,
        nargs="?",
        const=[],
        help="one queued job for all rows with the same values of these columns; without LIST: of the primary key",
    )
    create.add_argument("--enable", choices=("origin", "replica", "always"), help="default: origin")
    create.set_defaults(run=_trigger_create)

    drop = group.add_parser("drop", parents=[database], help="drop a trigger", description="Drop a trigger; its jobs stay.")
    drop.add_argument("table", metavar="TABLE", help="as in SQL, or the number that `list` shows of one that is gone")
    drop.add_argument("name", metavar="NAME")
    drop.set_defaults(run=_trigger_drop)

    listing = group.add_parser("list", parents=[database], help="show the triggers", description="Show the triggers.")
    listing.add_argument("--json", action="store_true", help="print a JSON list instead of a table")
    listing.set_defaults(run=_trigger_list)


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",")]


def _serve(arguments: argparse.Namespace) -> int:
    from postgear import daemon

    flags = {each.name: getattr(arguments, each.name) for each in fields(Config)}

    def read() -> Config:
        return load(flags, os.environ, arguments.config)

    code: int = daemon.run(read(), read)
    return code


def _init(arguments: argparse.Namespace) -> int:
    dsn = load({"dsn": arguments.dsn}, os.environ).dsn
    if dsn is None and not arguments.sql:
        raise ConfigError("no database given; --dsn, POSTGEAR_DSN or PGHOST, PGHOSTADDR, PGSERVICE, PGDATABASE name one")
    from postgear import schema

    if dsn is None or arguments.sql:
        found = None if dsn is None else schema.current(dsn)
        print(schema.script(found, queue=arguments.queue, functions=arguments.functions), end="")
        return 0
    notes: list[str] = []
    version = schema.upgrade(dsn, queue=arguments.queue, functions=arguments.functions, tell=notes.append)
    print(f"schema postgear: version {version}", *notes, sep="\n")
    return 0


def _dsn(arguments: argparse.Namespace) -> str:
    dsn = load({"dsn": arguments.dsn}, os.environ).dsn
    if dsn is None:
        raise ConfigError("no database given; --dsn, POSTGEAR_DSN or PGHOST, PGHOSTADDR, PGSERVICE, PGDATABASE name one")
    return dsn


def _trigger_create(arguments: argparse.Namespace) -> int:
    dsn = _dsn(arguments)
    from postgear import triggers

    names = ["name", "events", "level", "when", "columns", "payload", "payload_columns", "priority", "delay", "key", "enable"]
    options = {name: value for name in names if (value := getattr(arguments, name)) is not None}
    print(triggers.create(dsn, arguments.table, arguments.function, options))
    return 0


def _trigger_drop(arguments: argparse.Namespace) -> int:
    dsn = _dsn(arguments)
    from postgear import triggers

    triggers.drop(dsn, arguments.table, arguments.name)
    return 0


def _trigger_list(arguments: argparse.Namespace) -> int:
    dsn = _dsn(arguments)
    from postgear import triggers
    from postgear.tables import print_rows

    print_rows(triggers.Trigger._fields, triggers.installed(dsn), as_json=arguments.json)
    return 0


def _address(arguments: argparse.Namespace) -> tuple[str, int]:
    try:
        return parse_address(arguments.server, default_port=4730)
    except ValueError:
        raise ConfigError(f"--server: {arguments.server!r} given, must be HOST or HOST:PORT") from None


def _admin_lines(arguments: argparse.Namespace, *commands: str) -> list[list[str]]:
    from postgear.client.blocking import Connection

    with Connection(_address(arguments)) as connection:
        return [list(connection.admin(command)) for command in commands]


def _status(arguments: argparse.Namespace) -> int:
    from postgear.client.admin import FunctionStatus, parse_status
    from postgear.tables import print_rows

    status, priorities = _admin_lines(arguments, "status", "prioritystatus")
    print_rows(FunctionStatus._fields, parse_status(status, priorities), as_json=arguments.json)
    return 0


def _workers(arguments: argparse.Namespace) -> int:
    from postgear.client.admin import WorkerStatus, parse_workers
    from postgear.tables import print_rows

    (lines,) = _admin_lines(arguments, "workers")
    print_rows(WorkerStatus._fields, parse_workers(lines), as_json=arguments.json)
    return 0


def _jobs(arguments: argparse.Namespace) -> int:
    from postgear.client.admin import JobStatus, parse_jobs
    from postgear.tables import print_rows

    (lines,) = _admin_lines(arguments, "show jobs")
    print_rows(JobStatus._fields, parse_jobs(lines), as_json=arguments.json)
    return 0


def _cancel(arguments: argparse.Namespace) -> int:
    from postgear.client.blocking import Connection

    if not arguments.handle or any(character.isspace() for character in arguments.handle):
        raise ConfigError(f"{arguments.handle!r} is no handle")
    with Connection(_address(arguments)) as connection:
        connection.admin(f"cancel job {arguments.handle}")
    return 0


def _submit(arguments: argparse.Namespace) -> int:
    from postgear import submit

    workload = arguments.workload
    if workload is None and sys.stdin.isatty():
        workload = ""
    return submit.run(
        _address(arguments),
        submit.Submission(
            function=os.fsencode(arguments.function),
            unique=os.fsencode(arguments.unique),
            workload=sys.stdin.buffer.read() if workload in (None, "-") else os.fsencode(workload),
            priority=arguments.priority,
            background=arguments.background,
            not_before=submit.epoch(arguments.at, arguments.delay),
        ),
        arguments.timeout,
    )


def _version(arguments: argparse.Namespace) -> int:
    print(f"postgear {__version__}")
    return 0
