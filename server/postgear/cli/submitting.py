"""`postgear submit` and `postgear map`: jobs from the command line."""

from __future__ import annotations

import argparse
import os
import stat
import sys
from typing import TYPE_CHECKING, Final

from postgear.errors import ConfigError, InvalidJob

from .words import address, addresses, count, delay, server_option, timeout

if TYPE_CHECKING:
    from postgear.client.operations import Submission

    from .words import Commands

_PRIORITIES: Final = ("high", "normal", "low")
_MAP_DESCRIPTION: Final = """\
Run a job for each line of standard input and write a line for each result, in the same order.

  seq 1000 | postgear map square
  postgear map index -n 20 < ids.txt > answers.txt
  find . -name '*.jpg' -print0 | postgear map -0 --files thumbnail
  postgear map ping host1 host2 host3

Lines are sent as they come and results written as they come, so that it fits into a pipeline. A newline at the end
of a result is dropped. What fails is told on standard error with its line's number and leaves no line on standard
output; the exit code is then 1."""


def add(commands: Commands) -> None:
    """Add `submit` and `map`."""
    _add_submit(commands)
    _add_map(commands)


def _add_submit(commands: Commands) -> None:
    submit = commands.add_parser(
        "submit",
        parents=[server_option()],
        help="submit a job",
        description="Submit a job and wait for it: data goes to standard output, progress and warnings to standard error. "
        "The exit code is 1 if the job fails.",
    )
    submit.add_argument("function", metavar="FUNCTION")
    submit.add_argument("workload", metavar="WORKLOAD", nargs="?", help="left out or -: standard input, if that is no terminal")
    submit.add_argument("-b", "--background", action="store_true", help="do not wait; print the handle")
    submit.add_argument(
        "--lines",
        action="store_true",
        help="a background job for each line of standard input, as they come; print the handles in the same order",
    )
    submit.add_argument("-0", "--null", action="store_true", help="with --lines: a NUL ends a line, not a newline")
    submit.add_argument("--priority", choices=_PRIORITIES, default="normal")
    submit.add_argument("--unique", default="", help="jobs of one function and unique are one job; - takes the workload")
    submit.add_argument("--timeout", metavar="SECONDS", type=timeout, help="how long to wait for each answer (default: for ever)")
    when = submit.add_mutually_exclusive_group()
    when.add_argument("--at", metavar="EPOCH", type=int, help="run in the background, not before this Unix time")
    when.add_argument("--delay", metavar="SECONDS", type=delay, help="run in the background, not before this long from here on")
    submit.set_defaults(run=_submit)


def _add_map(commands: Commands) -> None:
    mapping = commands.add_parser(
        "map",
        parents=[server_option(several=True)],
        help="run a job for each line of standard input",
        usage="postgear map [OPTION …] FUNCTION [WORKLOAD …]",
        description=_MAP_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    mapping.add_argument("function", metavar="FUNCTION")
    mapping.add_argument("workloads", metavar="WORKLOAD", nargs="*", help="instead of lines of standard input")
    mapping.add_argument(
        "-n", "--in-flight", metavar="N", type=count, default=100, help="jobs under way at the same time (default: 100)"
    )
    mapping.add_argument("--unordered", action="store_true", help="write each result as soon as it is there")
    mapping.add_argument("-0", "--null", action="store_true", help="a NUL ends each input and each result, not a newline")
    mapping.add_argument("--files", action="store_true", help="inputs are names of files, whose content is the workload")
    mapping.add_argument("--priority", choices=_PRIORITIES, default="normal")
    mapping.add_argument(
        "--retries", metavar="N", type=int, default=0, help="submit a job that failed again, so often (default: 0)"
    )
    mapping.add_argument(
        "--timeout", metavar="SECONDS", type=timeout, help="how long to wait for the next result (default: for ever)"
    )
    mapping.set_defaults(run=_map)


def _submit(arguments: argparse.Namespace) -> int:
    if arguments.lines:
        return _submit_lines(arguments)
    if arguments.null:
        raise ConfigError("-0 needs --lines")
    from postgear import submit

    workload = arguments.workload
    if workload is None and sys.stdin.isatty():
        workload = ""
    return submit.run(
        address(arguments),
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


def _submit_lines(arguments: argparse.Namespace) -> int:
    if arguments.workload not in (None, "-"):
        raise ConfigError("with --lines the workloads are lines of standard input")
    if arguments.unique not in ("", "-"):
        raise ConfigError("with --lines all would have the same unique; only --unique - makes sense")
    from postgear import submit_lines
    from postgear.client.operations import Submission
    from postgear.lines import Lines
    from postgear.newjob import PRIORITIES
    from postgear.submit import epoch

    function, unique = _function(arguments), os.fsencode(arguments.unique)
    priority, run_at = PRIORITIES[arguments.priority], epoch(arguments.at, arguments.delay)
    if run_at is not None and arguments.priority != "normal":
        raise ConfigError(f"--priority {arguments.priority} with --at or --delay: a scheduled job has normal priority")

    def job(line: bytes) -> Submission:
        return Submission(function, line, unique, priority, run_at)

    return submit_lines.run(addresses(arguments), Lines(0, _separator(arguments)), job, arguments.timeout)


def _map(arguments: argparse.Namespace) -> int:
    from postgear import map as mapping
    from postgear.lines import Lines
    from postgear.newjob import PRIORITIES

    if arguments.retries < 0:
        raise ConfigError(f"--retries: {arguments.retries} given, must be 0 or more")
    wanted = mapping.Wanted(
        _function(arguments),
        arguments.in_flight,
        not arguments.unordered,
        _separator(arguments),
        PRIORITIES[arguments.priority],
        arguments.retries,
        arguments.timeout,
        arguments.files,
    )
    if arguments.workloads:
        words = [os.fsencode(word) for word in arguments.workloads]
        return mapping.run(addresses(arguments), wanted, mapping.Words(words), "argument", mapping.Total(inputs=len(words)))
    if sys.stdin.isatty():
        print("postgear: reading lines from the terminal; Ctrl-D ends them", file=sys.stderr)
    status = os.fstat(0)
    total = mapping.Total(size_bytes=status.st_size - os.lseek(0, 0, os.SEEK_CUR)) if stat.S_ISREG(status.st_mode) else None
    return mapping.run(addresses(arguments), wanted, Lines(0, _separator(arguments)), "line", total)


def _function(arguments: argparse.Namespace) -> bytes:
    from postgear.newjob import encode_function

    try:
        return encode_function(os.fsencode(arguments.function))
    except InvalidJob as error:
        raise ConfigError(str(error)) from None


def _separator(arguments: argparse.Namespace) -> bytes:
    return b"\0" if arguments.null else b"\n"
