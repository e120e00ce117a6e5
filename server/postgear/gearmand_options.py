"""gearmand's options and how its command line is read.

The table holds the options of gearmand 1.1.20 with its stores, and postgear's own two for the database. The reading is
boost::program_options' as gearmand sets it up: long names are never shortened, flags may be grouped (``-Rd``), a value
follows after ``=``, a blank or, for short options, directly; an option given twice is an error, and so are bare words.
Messages are gearmand's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from postgear.errors import ConfigError


class Option(NamedTuple):
    """One option. default: gearmand's, shown by ``--help``. meant: it has a meaning here; else it is warned of."""

    name: str
    short: str = ""
    takes_value: bool = True
    whole_number: bool = False
    default: str = ""
    meant: bool = True
    text: str = ""


def _switch(name: str, short: str = "", *, meant: bool = True, text: str = "") -> Option:
    return Option(name, short, takes_value=False, meant=meant, text=text)


GENERAL: Final = (
    Option("backlog", "b", whole_number=True, default="32", text="Number of connections queued by listen."),
    _switch("daemon", "d", text="Detach and run in the background."),
    _switch("exceptions", text="Enable protocol exceptions by default."),
    Option("file-descriptors", "f", whole_number=True, text="Number of file descriptors to allow for the process."),
    _switch("help", "h", text="Print this help menu."),
    Option(
        "job-retries",
        "j",
        whole_number=True,
        default="-1",
        text="Lost workers until a job is given up: -1 for ever, 0 or 1 at the first, at most 255.",
    ),
    Option("job-handle-prefix", text="What job handles start with. Default: H:<host name>."),
    Option("hashtable-buckets", whole_number=True, default="991", meant=False),
    _switch("keepalive", text="Enable keepalive on sockets."),
    Option("keepalive-idle", whole_number=True, default="-1", text="TCP_KEEPIDLE in seconds; -1 leaves the system's."),
    Option("keepalive-interval", whole_number=True, default="-1", text="TCP_KEEPINTVL in seconds; -1 leaves the system's."),
    Option("keepalive-count", whole_number=True, default="-1", text="TCP_KEEPCNT; -1 leaves the system's."),
    Option("log-file", "l", default="/var/log/gearmand.log", text="Where the log goes: a file, stderr or none."),
    Option("listen", "L", text="Address to listen on. Default: all, IPv4 and IPv6."),
    Option("pid-file", "P", default="/var/gearmand.pid", text="File to write the process ID to."),
    Option("protocol", "r", meant=False),
    _switch("round-robin", "R", text="Give a worker's functions turns."),
    Option("queue-type", "q", default="builtin", text="Postgres takes --libpq-conninfo; the queue is in PostgreSQL anyway."),
    Option("config-file", default="/etc/gearmand.conf", text="More options, split at blanks. Also @FILE."),
    _switch("syslog", meant=False),
    _switch("coredump", meant=False),
    Option("threads", "t", whole_number=True, default="4", meant=False),
    Option("user", "u", text="Switch to this user after startup."),
    Option("verbose", default="ERROR", text="FATAL, ALERT, CRITICAL, ERROR, WARNING, NOTICE, INFO or DEBUG."),
    _switch("version", "V", text="Display the version and exit."),
    Option("worker-wakeup", "w", whole_number=True, default="0", text="Workers to wake for each job; 0 wakes all."),
    Option("port", "p", default="4730", text="Port to listen on, a number or a service (environment GEARMAND_PORT)."),
    _switch("ssl", text="Refused: there is no TLS here."),
)
POSTGEAR: Final = (
    Option("dsn", text="The database (environment POSTGEAR_DSN or libpq's). None: an embedded PostgreSQL."),
    Option("data-dir", text="The folder of the embedded PostgreSQL."),
    Option("libpq-conninfo", text="The database, with --queue-type=Postgres."),
)
IGNORED: Final = (
    Option("http-port", default="8080", meant=False),
    Option("ssl-ca-file", meant=False),
    Option("ssl-certificate", meant=False),
    Option("ssl-key", meant=False),
    Option("libmemcached-servers", meant=False),
    Option("libmemcached-prefix", default="gear_", meant=False),
    Option("libsqlite3-db", meant=False),
    _switch("store-queue-on-shutdown", meant=False),
    Option("libsqlite3-table", default="gearman_queue", meant=False),
    Option("libpq-table", default="queue", meant=False),
    Option("redis-server", meant=False),
    Option("redis-port", meant=False),
    Option("redis-password", meant=False),
    Option("redis-prefix", meant=False),
    Option("mysql-host", default="localhost", meant=False),
    Option("mysql-port", default="3306", meant=False),
    Option("mysql-user", meant=False),
    Option("mysql-password", meant=False),
    Option("mysql-db", meant=False),
    Option("mysql-table", default="gearman_queue", meant=False),
)
HIDDEN: Final = (_switch("check-args"),)
OPTIONS: Final = {option.name: option for option in GENERAL + POSTGEAR + IGNORED + HIDDEN}

_SHORT = {option.short: option for option in OPTIONS.values() if option.short}


def read_words(words: Sequence[str], *, from_file: bool = False) -> dict[str, str]:
    """Return the options in *words* by name, "" for a flag; raises ConfigError with gearmand's message.

    from_file: bare words are passed over, as gearmand does in its configuration file.
    """
    given: dict[str, str] = {}
    rest = list(words)
    only_words = False
    while rest:
        word = rest.pop(0)
        if only_words or not word.startswith("-") or word == "-":
            if not from_file:
                raise ConfigError(f"unrecognised option '{word}'")
        elif word == "--":
            only_words = True
        elif word.startswith("--"):
            _read_long(word, rest, given)
        else:
            _read_short(word, rest, given)
    return given


def _read_long(word: str, rest: list[str], given: dict[str, str]) -> None:
    name, equals, value = word[2:].partition("=")
    option = OPTIONS.get(name)
    if option is None:
        raise ConfigError(f"unrecognised option '{word}'")
    if not option.takes_value:
        if equals:
            raise ConfigError(f"option '--{name}' does not take any arguments")
    elif not equals:
        value = _next(option, rest)
    elif not value:
        raise ConfigError(f"the argument for option '--{name}' should follow immediately after the equal sign")
    _put(option, value, given)


def _read_short(word: str, rest: list[str], given: dict[str, str]) -> None:
    letters = word[1:]
    while letters:
        option = _SHORT.get(letters[0])
        if letters[0] == "v":
            raise ConfigError("Option -v has been deprecated, please use --verbose")
        if option is None:
            raise ConfigError(f"unrecognised option '{word}'")
        letters = letters[1:]
        if option.takes_value:
            _put(option, letters or _next(option, rest), given)
            return
        _put(option, "", given)


def _next(option: Option, rest: list[str]) -> str:
    if not rest:
        raise ConfigError(f"the required argument for option '--{option.name}' is missing")
    return rest.pop(0)


def _put(option: Option, value: str, given: dict[str, str]) -> None:
    if option.name in given:
        raise ConfigError(f"option '--{option.name}' cannot be specified more than once")
    if option.whole_number and not value.strip().removeprefix("-").isdecimal():
        raise ConfigError(f"the argument ('{value}') for option '--{option.name}' is invalid")
    given[option.name] = value


def help_text() -> str:
    """Return what ``--help`` prints."""
    lines = ["Allowed options:", ""]
    for title, options in (("General options", GENERAL), ("postgear", POSTGEAR), ("Accepted, without a meaning here", IGNORED)):
        lines.append(f"{title}:")
        for option in options:
            names = f"-{option.short} [ --{option.name} ]" if option.short else f"--{option.name}"
            value = " arg" if option.takes_value else ""
            default = f" (={option.default})" if option.default else ""
            text = option.text or "No meaning here."
            left = f"  {names}{value}{default}"
            lines.append(f"{left:<38}{text}" if len(left) < 37 else f"{left}\n{'':<38}{text}")
        lines.append("")
    return "\n".join(lines)
