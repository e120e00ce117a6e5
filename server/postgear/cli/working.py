"""`postgear worker`: an application's functions, or shell commands, run by processes that are looked after."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING, Final

from postgear.config_values import parse_size
from postgear.errors import ConfigError

from .words import count, delay, timeout

if TYPE_CHECKING:
    from .words import Commands

_DESCRIPTION: Final = """\
Run the functions of a worker until SIGTERM.

  postgear worker shop.jobs:worker              the object `worker` of the module shop.jobs
  postgear worker jobs.py                       the only worker of a file
  postgear worker --exec 'wc -l' -f count       a shell command: workload in, result out

MODULE is looked for in the current folder, too. What is given here wins over what the worker was made with."""
_EPILOG: Final = """\
signals:
  SIGTERM, SIGINT  take no more jobs, let those that run end within --drain-seconds, stop; a second one stops at once
  SIGHUP           restart without a gap: processes with the code as it is now take over when they are ready, and the
                   old ones finish the jobs they have, however long that takes

A process that dies is replaced; one that dies soon after its start is waited for 1, 2, 4 … 30 seconds."""


def add(commands: Commands) -> None:
    """Add `worker`."""
    worker = commands.add_parser(
        "worker",
        help="run the functions of a worker, or a shell command",
        usage="postgear worker [OPTION …] MODULE:APP\n       postgear worker [OPTION …] --exec COMMAND -f FUNCTION",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    worker.add_argument("app", metavar="MODULE:APP", nargs="?", help="the worker; without :APP the only one of the module")
    shell = worker.add_argument_group("a shell command instead")
    shell.add_argument(
        "--exec", dest="command", metavar="COMMAND", help="run by /bin/sh for each job; exit status not 0: it failed"
    )
    shell.add_argument(
        "-f", "--function", dest="functions", metavar="NAME", action="append", help="the function; may be repeated"
    )
    shell.add_argument("--timeout", metavar="SECONDS", type=timeout, help="end the command, and all it has started, after this")
    shell.add_argument("--retries", metavar="N", type=int, default=0, help="run a job that failed again, so often (default: 0)")
    jobs = worker.add_argument_group("jobs")
    jobs.add_argument(
        "--servers",
        metavar="LIST",
        help="HOST:PORT,… to take jobs from, all of them; with --exec: default POSTGEAR_SERVER, or 127.0.0.1:4730",
    )
    jobs.add_argument("--dsn", help="take jobs straight from this database")
    jobs.add_argument(
        "--concurrency", "--threads", metavar="N", type=count, help="jobs at a time in each process (default: the worker's)"
    )
    jobs.add_argument("--client-id", metavar="ID", help="what `postgear workers` shows")
    processes = worker.add_argument_group("processes")
    processes.add_argument("--processes", metavar="N", type=count, default=1, help="how many (default: 1)")
    processes.add_argument("--max-jobs", metavar="N", type=count, help="replace a process after so many jobs")
    processes.add_argument("--max-memory", metavar="SIZE", type=_size, help="replace a process that holds more, e.g. 500MB")
    processes.add_argument(
        "--drain-seconds", metavar="SECONDS", type=delay, help="how long jobs may go on after SIGTERM (default: the worker's, 30)"
    )
    processes.add_argument("--reload", action="store_true", help="restart when a Python file changes, in development")
    log = worker.add_argument_group("log")
    log.add_argument("--log-level", metavar="LEVEL", default="INFO", help="DEBUG, INFO, WARNING, ERROR (default: INFO)")
    log.add_argument("--log-format", choices=("text", "json"), default="text", help="default: text")
    worker.set_defaults(run=_worker)


def _worker(arguments: argparse.Namespace) -> int:
    if (arguments.app is None) == (arguments.command is None):
        raise ConfigError("give either MODULE:APP or --exec COMMAND")
    if (arguments.functions is None) != (arguments.command is None):
        raise ConfigError("--exec COMMAND and -f FUNCTION belong together")
    from postgear import logs
    from postgear.worker.app import split
    from postgear.worker.processes import Supervisor
    from postgear.worker.settings import Settings
    from postgear.worker.watching import folders_of

    if arguments.log_level.upper() not in logs.LEVELS:
        raise ConfigError(f"--log-level: {arguments.log_level!r} given, must be DEBUG, INFO, WARNING or ERROR")
    logs.configure(arguments.log_level.upper(), arguments.log_format, None)
    settings = Settings(**{name: getattr(arguments, name) for name in Settings._fields})
    if settings.command and not settings.servers and not settings.dsn:
        settings = settings._replace(servers=os.environ.get("POSTGEAR_SERVER"))
    folders = folders_of(split(arguments.app)[0]) if arguments.reload and arguments.app else ()
    return Supervisor(settings, arguments.processes, folders).run()


def _size(text: str) -> int:
    try:
        size = parse_size(text)
    except (ValueError, TypeError):
        size = 0
    if size <= 0:
        raise argparse.ArgumentTypeError(f"{text} given, must be a size like 500MB or 2GiB")
    return size
