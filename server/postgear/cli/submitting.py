"""`postgear submit`: jobs from the command line."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from .words import address, delay, server_option, timeout

if TYPE_CHECKING:
    from .words import Commands


def add(commands: Commands) -> None:
    """Add `submit`."""
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
    submit.add_argument("--priority", choices=("high", "normal", "low"), default="normal")
    submit.add_argument("--unique", default="", help="jobs of one function and unique are one job; - takes the workload")
    submit.add_argument("--timeout", metavar="SECONDS", type=timeout, help="how long to wait for each answer (default: for ever)")
    when = submit.add_mutually_exclusive_group()
    when.add_argument("--at", metavar="EPOCH", type=int, help="run in the background, not before this Unix time")
    when.add_argument("--delay", metavar="SECONDS", type=delay, help="run in the background, not before this long from here on")
    submit.set_defaults(run=_submit)


def _submit(arguments: argparse.Namespace) -> int:
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
