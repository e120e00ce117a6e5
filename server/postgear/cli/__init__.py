"""The command ``postgear``: what its words mean and how errors are told.

Nothing heavy is imported until a command needs it, so that ``postgear submit`` in a shell loop stays quick.
Each group of commands is a module with an ``add``. Not here: gearmand's own command line (``gearmand``), the server.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Final

from postgear import __version__
from postgear.errors import ConfigError, EmbeddedError, PostgearError, ServerError, StoreRefused, StoreUnavailable
from postgear.standby import command as standby

from . import asking, cluster, mysql, serving, submitting, triggering, working

INTERRUPTED: Final = 130
"""The exit code that shells give to a command ended by Ctrl-C."""

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
        self._has_negative_number_optionals.clear()  # an option -0 is no reason to take the word -5 for one
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
    for group in (serving, working, submitting, asking, triggering, cluster, standby, mysql):
        group.add(commands)
    version = commands.add_parser("version", help="print the version")
    version.set_defaults(run=_version)
    return parser


def _version(arguments: argparse.Namespace) -> int:
    print(f"postgear {__version__}")
    return 0
