"""The command ``postgear``: what its words mean and how errors are told.

Nothing heavy is imported until a command needs it, so that ``postgear submit`` in a shell loop stays quick.
Not here: gearmand's own command line (``gearmand``) and the server (``daemon``).
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import fields

from postgear import __version__
from postgear.config import NAME_MAX_BYTES, Config, load, shown_default
from postgear.config_values import parse_address, token
from postgear.errors import ConfigError, EmbeddedError, PostgearError, ServerError, StoreRefused, StoreUnavailable
from postgear.standby import command as standby

DEFAULT_SERVER = "127.0.0.1:4730"
INTERRUPTED = 130
"""The exit code that shells give to a command ended by Ctrl-C."""

_FROM_SETTINGS = "\0"
"""What ``--dsn`` without a value stands for; no DSN holds a NUL."""
_GROUPS = {
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
_JOBS_DESCRIPTION = """\
Show the jobs that the server holds, as far as Gearman's `show jobs` can tell:

  retries  how often it was given out and came back, for its worker was lost
  ignored  it was cancelled, or its client has left: it will not run
  queued   it is a background job, be it waiting or running; gearmand counts so, too

With --dsn the database is asked, which knows more of background jobs: function, priority, state
(claimed: a server has it, and mostly a worker runs it), attempt, age, the time it is scheduled for,
and the server. It is a part of the view postgear.jobs."""

_ADVICE: dict[type[PostgearError], str] = {
    StoreRefused: "correct the DSN (--dsn, POSTGEAR_DSN, PGHOST …), or create in PostgreSQL what it names",
    StoreUnavailable: "check that PostgreSQL runs and that the DSN (--dsn, POSTGEAR_DSN, PGHOST …) is right",
    EmbeddedError: "name another folder with --data-dir, or a database that you have with --dsn",
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
        if advice := _advice(error, words[0]):
            print(f"postgear: {advice}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has left (`postgear jobs | head`); Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _advice(error: PostgearError, command: str) -> str | None:
    if isinstance(error, ConfigError):
        return f"see `postgear {command} --help`" + (" or docs/config.md" if command == "serve" else "")
    if isinstance(error, ServerError) and isinstance(error.__cause__, OSError):
        return "is it running? start one with `postgear serve`, or name another with --server HOST:PORT"
    return next((advice for kind, advice in _ADVICE.items() if isinstance(error, kind)), None)


class _Parser(argparse.ArgumentParser):
    """A parser that tells of words it does not know with its own usage, not with that of the command above it."""

    def parse_known_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def]
        """Part of ArgumentParser."""
        namespace, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unknown: {' '.join(unknown)}")
        return namespace, unknown


def _parser() -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = _Parser(
        prog="postgear",
        description="A Gearman job server whose queue lives in PostgreSQL tables.",
        epilog="`postgear COMMAND --help` says more about each.",
    )
    parser.add_argument("-V", "--version", action="version", version=f"postgear {__version__}", help="print the version")
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
    ):
        command = commands.add_parser(name, parents=[table], help=text, description=text.capitalize() + ".")
        command.set_defaults(run=run)
    _add_jobs(commands, table)
    _add_submit(commands, server)
    _add_trigger(commands)
    cancel = commands.add_parser(
        "cancel",
        parents=[server],
        help="cancel a job",
        description="Cancel a job. If it runs, its worker goes on, and the result is dropped.",
    )
    cancel.add_argument("handle", metavar="HANDLE", help="what `postgear submit -b` printed")
    cancel.set_defaults(run=_cancel)
    standby.add_parsers(commands)
    version = commands.add_parser("version", help="print the version")
    version.set_defaults(run=_version)
    return parser


def _add_serve(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
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


def _add_jobs(commands: argparse._SubParsersAction[argparse.ArgumentParser], table: argparse.ArgumentParser) -> None:
    jobs = commands.add_parser(
        "jobs",
        parents=[table],
        help="show the jobs that the server holds",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=_JOBS_DESCRIPTION,
    )
    jobs.add_argument(
        "--dsn",
        nargs="?",
        const=_FROM_SETTINGS,
        help="ask this database instead; without a value that of POSTGEAR_DSN, libpq's environment or the TOML file",
    )
    jobs.add_argument(
        "--limit", metavar="N", type=_count, default=1000, help="with --dsn: how many, the oldest first (default: 1000)"
    )
    jobs.set_defaults(run=_jobs)


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
    submit.add_argument(
        "--timeout", metavar="SECONDS", type=_timeout, help="how long to wait for each answer (default: for ever)"
    )
    when = submit.add_mutually_exclusive_group()
    when.add_argument("--at", metavar="EPOCH", type=int, help="run in the background, not before this Unix time")
    when.add_argument("--delay", metavar="SECONDS", type=_delay, help="run in the background, not before this long from here on")
    submit.set_defaults(run=_submit)


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text)):
        raise argparse.ArgumentTypeError(f"{text} given, must be a number from 1 on")
    return int(text)


def _delay(text: str) -> float:
    seconds = _float(text)
    if not 0 <= seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text} given, must be seconds from 0 on")
    return seconds


def _timeout(text: str) -> float:
    seconds = _float(text)
    if not 0 < seconds <= 10**9:
        raise argparse.ArgumentTypeError(f"{text} given, must be seconds, more than 0 and at most 1000000000")
    return seconds


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


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
    if arguments.dsn is not None:
        return _jobs_in_database(arguments)
    from postgear.client.admin import JobStatus, parse_jobs
    from postgear.tables import print_rows

    (lines,) = _admin_lines(arguments, "show jobs")
    print_rows(JobStatus._fields, parse_jobs(lines), as_json=arguments.json)
    return 0


def _jobs_in_database(arguments: argparse.Namespace) -> int:
    dsn = _dsn(argparse.Namespace(dsn=None if arguments.dsn is _FROM_SETTINGS else arguments.dsn))
    from postgear import jobs
    from postgear.tables import print_rows

    rows = jobs.oldest(dsn, arguments.limit + 1)
    print_rows(jobs.StoredJob._fields, rows[: arguments.limit], as_json=arguments.json)
    if len(rows) > arguments.limit:
        print(f"postgear: these are the oldest {arguments.limit}, there are more: --limit N", file=sys.stderr)
    return 0


def _cancel(arguments: argparse.Namespace) -> int:
    from postgear.client.blocking import Connection

    if not arguments.handle or any(character.isspace() for character in arguments.handle):
        raise ConfigError(f"{arguments.handle!r} is no handle")
    with Connection(_address(arguments)) as connection:
        connection.admin(f"cancel job {arguments.handle}")
    print(f"cancelled {arguments.handle}")
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
