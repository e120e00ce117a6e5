"""What words of the command line become: numbers, seconds, addresses, databases; and the options that several commands share."""

from __future__ import annotations

import argparse
import math
import os
from typing import TYPE_CHECKING, Final, TypeAlias

from postgear.config import load
from postgear.config_values import parse_address
from postgear.errors import ConfigError

if TYPE_CHECKING:
    from postgear.client.calls import Address

    Commands: TypeAlias = argparse._SubParsersAction[argparse.ArgumentParser]

DEFAULT_SERVER: Final = "127.0.0.1:4730"


def server_option(*, several: bool = False) -> argparse.ArgumentParser:
    """Return a parent for commands that ask one server, or the first of several that answers."""
    parent = argparse.ArgumentParser(add_help=False)
    parent.add_argument(
        "--server",
        metavar="HOST:PORT",
        default=os.environ.get("POSTGEAR_SERVER", DEFAULT_SERVER),
        help=(
            "the Gearman server to ask, or several with commas: the first that answers"
            if several
            else "the Gearman server to ask"
        )
        + f" (environment POSTGEAR_SERVER, default {DEFAULT_SERVER})",
    )
    return parent


def dsn_option() -> argparse.ArgumentParser:
    """Return a parent for commands that need the database."""
    parent = argparse.ArgumentParser(add_help=False)
    parent.add_argument("--dsn", help="the database (POSTGEAR_DSN, libpq's environment, or the TOML file)")
    return parent


def trigger_options() -> argparse.ArgumentParser:
    """Return a parent for the commands that make triggers: what those of PostgreSQL and of MariaDB have in common."""
    parent = argparse.ArgumentParser(add_help=False)
    parent.add_argument("--when", metavar="SQL", help="a condition over NEW and OLD")
    parent.add_argument("--columns", metavar="LIST", type=words, help="queue for an update only if one of these changed")
    parent.add_argument("--payload", choices=("row", "change", "key", "columns"), help="what the workload holds (default: row)")
    parent.add_argument("--payload-columns", metavar="LIST", type=words, help="the columns of --payload columns")
    parent.add_argument("--priority", choices=("high", "normal", "low"), help="default: normal")
    parent.add_argument(
        "--key",
        metavar="LIST",
        type=words,
        nargs="?",
        const=[],
        help="one queued job for all rows with the same values of these columns; without LIST: of the primary key",
    )
    return parent


def address(arguments: argparse.Namespace) -> tuple[str, int]:
    """Return the address of ``--server``. Raises ConfigError."""
    try:
        return parse_address(arguments.server, default_port=4730)
    except ValueError:
        raise ConfigError(f"--server: {arguments.server!r} given, must be HOST or HOST:PORT") from None


def addresses(arguments: argparse.Namespace) -> list[Address]:
    """Return the addresses of ``--server`` for a command that can do with any of several. Raises ConfigError."""
    from postgear.client import requests

    return requests.addresses(arguments.server)


def dsn(given: str | None) -> str:
    """Return the DSN given, else that of the environment or the TOML file. Raises ConfigError where there is none."""
    found = load({"dsn": given}, os.environ).dsn
    if found is None:
        raise ConfigError("no database given; --dsn, POSTGEAR_DSN or PGHOST, PGHOSTADDR, PGSERVICE, PGDATABASE name one")
    return found


def words(text: str) -> list[str]:
    """Take words with commas between them."""
    return [word.strip() for word in text.split(",")]


def count(text: str) -> int:
    """Take a whole number from 1 on."""
    if not (text.isascii() and text.isdigit() and int(text)):
        raise argparse.ArgumentTypeError(f"{text} given, must be a number from 1 on")
    return int(text)


def delay(text: str) -> float:
    """Take seconds from 0 on."""
    seconds = _float(text)
    if not 0 <= seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text} given, must be seconds from 0 on")
    return seconds


def timeout(text: str) -> float:
    """Take seconds above 0."""
    seconds = _float(text)
    if not 0 < seconds <= 10**9:
        raise argparse.ArgumentTypeError(f"{text} given, must be seconds, more than 0 and at most 1000000000")
    return seconds


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
