"""The commands ``postgear standby``, ``promote``, ``detach`` and ``rejoin``: their words.

docs/failover-two-machines.md explains them.
"""

from __future__ import annotations

import argparse
import os
import re
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Final

from postgear.config_values import dsn, format_address, parse_address
from postgear.errors import ConfigError
from postgear.logs import LEVELS

if TYPE_CHECKING:
    from postgear.standby.state import State
    from postgear.standby.watch import Options

LOSS_SECONDS: Final = 4.0
TRUST_SECONDS: Final = 60.0
_SLOT_NAME: Final = re.compile(r"[a-z0-9_]{1,63}")


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands to those of `postgear`."""
    _add_standby(commands)
    promote = commands.add_parser(
        "promote",
        help="promote the standby of this machine by hand",
        description="Promote the standby of this machine. Refuses, and says what may be lost, if its primary still runs or did "
        "not wait for it. A `postgear standby` that runs here begins to serve.",
    )
    _add_data_dir(promote)
    promote.add_argument("--force", action="store_true", help="promote all the same")
    promote.set_defaults(run=_promote)
    detach = commands.add_parser(
        "detach",
        help="let the primary go on without the standby of this machine",
        description="Take the standby of this machine out of the primary's synchronous_standby_names, so that it may be "
        "stopped; it does not promote itself from then on, until `postgear standby` is started again.",
    )
    _add_data_dir(detach)
    detach.set_defaults(run=_detach)
    _add_rejoin(commands)


def _add_standby(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    standby = commands.add_parser(
        "standby",
        help="run the standby of a second machine: a replica that takes over",
        description="Keep a replica of the primary on this machine, made at the first start, and take over when the primary is "
        "lost: by itself with --auto-promote, if the primary's commits waited for this replica; else by `postgear promote`. "
        "docs/failover-two-machines.md says what is guaranteed.",
    )
    _add_options(standby)
    standby.set_defaults(run=_standby)


def _add_rejoin(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    rejoin = commands.add_parser(
        "rejoin",
        help="make an old primary the standby of the one that took over",
        description="Make the cluster of this machine, an old primary or a standby that fell behind, a standby of the primary: "
        "by pg_rewind where that can be, else by a fresh base backup; then go on as `postgear standby`. What it wrote after the "
        "other took over is given up. It is stopped if it runs.",
    )
    _add_options(rejoin)
    rejoin.add_argument("--cluster", metavar="FOLDER", help="the old primary's data directory, if it is not one of --data-dir")
    rejoin.add_argument("--base-backup", action="store_true", help="copy everything, do not try pg_rewind")
    rejoin.add_argument("--prepare-only", action="store_true", help="end when it is done; `postgear standby` goes on from there")
    rejoin.set_defaults(run=_rejoin)


def _add_data_dir(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data-dir", metavar="FOLDER", required=True, help="the folder of `postgear standby`")


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--primary",
        metavar="DSN",
        default=os.environ.get("POSTGEAR_PRIMARY"),
        help="the primary, with the queue's database and a superuser (environment POSTGEAR_PRIMARY)",
    )
    _add_data_dir(parser)
    parser.add_argument(
        "--postgres-listen",
        metavar="HOST:PORT",
        default="*:5432",
        help="where the PostgreSQL of this machine listens (default: *:5432); who may connect is in pg_hba.conf in the folder",
    )
    parser.add_argument(
        "--listen",
        metavar="HOST:PORT",
        action="append",
        help="where the server listens after a promotion; as of `postgear serve`",
    )
    parser.add_argument(
        "--http",
        metavar="HOST:PORT",
        help="an address for load balancers and Prometheus: /live, /ready and /metrics of this standby, besides the server's own",
    )
    parser.add_argument(
        "--config", metavar="FILE", help="a TOML file for that server; its other settings come from POSTGEAR_<NAME>, too"
    )
    parser.add_argument(
        "--standby-name",
        metavar="NAME",
        default=None,
        help="its application_name and slot: lower case letters, digits and _ (default: postgear_ and the host's name)",
    )
    parser.add_argument(
        "--synchronous",
        action="store_true",
        help="set synchronous_standby_names on the primary, once the replica has caught up: every commit waits for it then",
    )
    parser.add_argument("--auto-promote", action="store_true", help="take over without being asked")
    parser.add_argument(
        "--witness",
        metavar="HOST:PORT",
        action="append",
        default=[],
        help="a third place: without any of them in reach this machine takes itself for the one cut off; a server of this queue "
        "that still reaches the database keeps it from taking over. May be repeated",
    )
    parser.add_argument(
        "--loss-seconds",
        metavar="N",
        type=float,
        default=LOSS_SECONDS,
        help=f"the primary's silence that counts (default: {LOSS_SECONDS:g})",
    )
    parser.add_argument(
        "--trust-seconds",
        metavar="N",
        type=float,
        default=TRUST_SECONDS,
        help="how long what the primary said of its settings is believed once it is silent; wait longer before you take this "
        f"standby out of them by hand (default: {TRUST_SECONDS:g})",
    )
    parser.add_argument("--log-level", choices=LEVELS, default="INFO", metavar="LEVEL", help="default: INFO")
    parser.add_argument("--log-format", choices=("text", "json"), default="text", help="default: text")
    parser.add_argument("--log-file", metavar="FILE", help="default: standard error")


def default_name() -> str:
    """Return the name of this machine's standby."""
    host = re.sub(r"[^a-z0-9]+", "_", socket.gethostname().split(".")[0].lower()).strip("_")
    return f"postgear_{host or 'standby'}"[:63]


def read(arguments: argparse.Namespace) -> Options:
    """Return the options of `postgear standby`. Raises ConfigError for those that cannot be."""
    from postgear.standby.decision import Rules
    from postgear.standby.watch import Options

    if not arguments.primary:
        raise ConfigError("--primary or POSTGEAR_PRIMARY must name the primary")
    try:
        dsn(arguments.primary)
    except ValueError as error:
        raise ConfigError(f"--primary: {error}, must be a libpq connection string or URL") from None
    name = arguments.standby_name or default_name()
    if not _SLOT_NAME.fullmatch(name):
        raise ConfigError(f"--standby-name: {name!r} given, must be up to 63 lower case letters, digits and _")
    if not 1 <= arguments.loss_seconds <= 3600:
        raise ConfigError(f"--loss-seconds: {arguments.loss_seconds:g} given, must be from 1 to 3600")
    if not arguments.loss_seconds + 5 <= arguments.trust_seconds <= 86400:
        raise ConfigError(
            f"--trust-seconds: {arguments.trust_seconds:g} given, must be at least 5 more than --loss-seconds, at most 86400"
        )
    _address("--postgres-listen", arguments.postgres_listen)
    return Options(
        primary=arguments.primary,
        data_dir=Path(arguments.data_dir).expanduser().resolve(),
        postgres_listen=arguments.postgres_listen,
        listen=tuple(arguments.listen or ()),
        http=_http(arguments),
        name=name,
        is_synchronous=arguments.synchronous,
        rules=Rules(arguments.auto_promote, arguments.loss_seconds, arguments.trust_seconds),
        witnesses=tuple(_address("--witness", each) for each in arguments.witness),
        serve_config=arguments.config,
    )


def _http(arguments: argparse.Namespace) -> str | None:
    """Return where the pages are. Raises ConfigError for settings of the server that it would refuse after a promotion."""
    from postgear import config

    served = config.load({"listen": arguments.listen}, os.environ, arguments.config).http
    if arguments.http is None:
        return None
    host, port = _address("--http", arguments.http)
    if served is not None and port and parse_address(served)[1] == port:
        raise ConfigError(f"--http: port {port} is that of the server's own pages, which need it after a promotion; give another")
    return format_address(host, port)


def _address(flag: str, text: str) -> tuple[str, int]:
    try:
        return parse_address(text)
    except ValueError:
        raise ConfigError(f"{flag}: {text!r} given, must be HOST:PORT") from None


def _standby(arguments: argparse.Namespace) -> int:
    from postgear import logs
    from postgear.standby import watch

    options = read(arguments)
    logs.configure(arguments.log_level, arguments.log_format, arguments.log_file)
    return watch.run(options)


def _rejoin(arguments: argparse.Namespace) -> int:
    from postgear import logs
    from postgear.standby import rejoin, watch
    from postgear.standby.replica import Replica

    options = read(arguments)
    logs.configure(arguments.log_level, arguments.log_format, arguments.log_file)
    cluster = None if arguments.cluster is None else Path(arguments.cluster).expanduser().resolve()

    def prepare(replica: Replica) -> State:
        return rejoin.rejoin(replica, options.primary, options.name, fresh=arguments.base_backup, cluster=cluster)

    if arguments.prepare_only:
        replica = Replica(options.data_dir, options.postgres_listen)
        replica.lock()
        prepare(replica)
        return 0
    return watch.run(options, prepare)


def _promote(arguments: argparse.Namespace) -> int:
    from postgear.standby import promotion

    for line in promotion.promote_by_hand(Path(arguments.data_dir).expanduser().resolve(), force=arguments.force):
        print(line)
    return 0


def _detach(arguments: argparse.Namespace) -> int:
    from postgear.standby import promotion

    print(promotion.detach(Path(arguments.data_dir).expanduser().resolve()))
    return 0
