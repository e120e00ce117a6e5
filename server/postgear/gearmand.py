"""``postgear gearmand``: the server under gearmand's own command line, for init scripts and test programs that start gearmand.

Turns gearmand's options into a ``Config`` with the same meaning and runs the server in this process: the pid in the pid
file is the server's, also with ``--daemon``. Exit codes and messages are gearmand's. The differences:

- the queue is in PostgreSQL whatever ``--queue-type`` says;
- ``--job-retries`` is that of gearmand 2.0, where 0 is not "for ever";
- ``--ssl`` is refused at start: Debian's gearmand takes it and talks plaintext;
- ``--check-args`` also looks at the values of ports, counts and the handle prefix.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from postgear import __version__, logs
from postgear.config import Config, load
from postgear.config_values import format_address
from postgear.errors import ConfigError, PostgearError
from postgear.gearmand_options import OPTIONS, help_text, read_words

EXIT_FAILURE: Final = 1
BIND_WAIT_SECONDS: Final = 20
"""How long gearmand 1.1.20 tries again while its port is taken."""
DAEMON_WAIT_SECONDS: Final = 60
"""How long ``--daemon`` waits for the server to be ready; one that waits for its database longer is left running."""

_QUEUE_TYPES = ("builtin", "libsqlite3", "postgres", "mysql", "redis", "libmemcached", "drizzle", "tokyocabinet")
_SAME: Final = {
    "backlog": "backlog",
    "file-descriptors": "file_descriptors",
    "job-handle-prefix": "handle_prefix",
    "job-retries": "job_retries",
    "worker-wakeup": "worker_wakeup",
    "log-file": "log_file",
    "pid-file": "pid_file",
    "user": "user",
    "verbose": "log_level",
    "dsn": "dsn",
    "data-dir": "data_dir",
}
"""Options whose value is taken as it is."""
_KEEPALIVE: Final = {
    "keepalive-idle": "keepalive_idle_seconds",
    "keepalive-interval": "keepalive_interval_seconds",
    "keepalive-count": "keepalive_count",
}


def main(words: Sequence[str]) -> int:
    """Run the server as ``gearmand WORDS`` would; return its exit code."""
    try:
        given = read_options(words, OPTIONS["config-file"].default)
        config = configure(given, os.environ)
        if "check-args" in given:
            return 0
        if "help" in given:
            print(help_text())
            return 0
        if "version" in given:
            print(f"\ngearmand 1.1.20 (postgear {__version__})")
            return 0
        _refuse_what_cannot_be(given)
        if ignored := ignored_options(given):
            _say("without a meaning here, ignored: " + " ".join(ignored))
        return _start(_with_log(config), daemon_mode="daemon" in given)
    except PostgearError as error:
        _say(str(error))
        return EXIT_FAILURE


def read_options(words: Sequence[str], default_file: str) -> dict[str, str]:
    """Return the options of the command line and of its configuration file by name; the command line wins.

    default_file: read unless another is named; may be missing. Raises ConfigError with gearmand's message.
    """
    files = [word[1:] for word in words if word.startswith("@")]
    given = read_words([word for word in words if not word.startswith("@")])
    for file in [given.get("config-file", default_file), *files]:
        try:
            text = Path(file).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            if file == default_file:
                continue
            raise ConfigError("Could not open configuration file.") from None
        given = read_words(text.split(), from_file=True) | given
    return given


def configure(given: Mapping[str, str], environ: Mapping[str, str]) -> Config:
    """Return the settings that gearmand's options mean; raises ConfigError.

    What is not given comes from the environment (POSTGEAR_…), the TOML file, and gearmand's defaults, in this order.
    """
    if given.get("verbose", "ERROR") not in logs.LEVELS:
        raise ConfigError("Invalid value for --verbose supplied")
    if int(given.get("hashtable-buckets", "1")) <= 0:
        raise ConfigError("hashtable-buckets has to be greater than 0")
    flags: dict[str, object] = {field: given[name] for name, field in _SAME.items() if name in given}
    flags |= {field: max(int(given[name]), 0) for name, field in _KEEPALIVE.items() if name in given}
    flags |= {name.replace("-", "_"): True for name in ("exceptions", "keepalive", "round-robin") if name in given}
    defaults: dict[str, object] = {
        "bind_wait_seconds": BIND_WAIT_SECONDS,
        "backlog": OPTIONS["backlog"].default,
        "log_level": OPTIONS["verbose"].default,
    }
    port = _port(given.get("port") or environ.get("GEARMAND_PORT") or OPTIONS["port"].default)
    listen = [format_address(host, port) for host in ([given["listen"]] if given.get("listen") else _all_addresses())]
    if given.keys() & {"port", "listen"} or "GEARMAND_PORT" in environ:
        flags["listen"] = listen
    else:
        defaults["listen"] = listen
    if "log-file" not in given:
        defaults |= _default_file("log_file", "log-file")
    if "pid-file" not in given:
        defaults |= _default_file("pid_file", "pid-file")
    if given.get("queue-type", "").lower() == "postgres":
        defaults["dsn"] = ""
        if "libpq-conninfo" in given:
            flags.setdefault("dsn", given["libpq-conninfo"])
    return load(flags, environ, defaults=defaults)


def ignored_options(given: Mapping[str, str]) -> list[str]:
    """Return the options that were given and do nothing here, in the order of ``--help``."""
    names = [name for name, option in OPTIONS.items() if name in given and not option.meant]
    queue_type = given.get("queue-type", "builtin").lower()
    if queue_type not in ("builtin", "postgres"):
        names.append("queue-type")
    if "libpq-conninfo" in given and queue_type != "postgres":
        names.append("libpq-conninfo")
    return [f"--{name}" for name in names]


def _refuse_what_cannot_be(given: Mapping[str, str]) -> None:
    if "ssl" in given:
        raise ConfigError("--ssl: there is no TLS here, and plaintext is not what was asked for")
    if given.get("queue-type", "builtin").lower() not in _QUEUE_TYPES:
        raise ConfigError(f"Error while initializing the queue : {given['queue-type']}")
    if given.get("protocol", "http") not in ("http", ""):
        raise ConfigError(f"Unknown protocol module : {given['protocol']}")


def _port(text: str) -> int:
    if text.isascii() and text.isdigit() and int(text) <= 65535:
        return int(text)
    try:
        return socket.getservbyname(text, "tcp")
    except OSError:
        raise ConfigError(f"the argument ('{text}') for option '--port' is invalid") from None


def _all_addresses() -> list[str]:
    """Return what stands for all of this machine's addresses, without IPv6 where the kernel has none."""
    try:
        socket.socket(socket.AF_INET6, socket.SOCK_STREAM).close()
    except OSError:
        return ["0.0.0.0"]
    return ["0.0.0.0", "::"]


def _default_file(field: str, name: str) -> dict[str, object]:
    """Return gearmand's own default for a file if it can be written, which as an ordinary user it cannot."""
    path = Path(OPTIONS[name].default)
    writable = os.access(path if path.exists() else path.parent, os.W_OK)
    return {field: str(path)} if writable else {}


def _with_log(config: Config) -> Config:
    """Return *config* with standard error for a log file that cannot be opened, as gearmand does."""
    if config.log_file in (None, logs.NOWHERE):
        return config
    try:
        with open(config.log_file, "a"):
            return config
    except OSError as error:
        _say(f'Could not open log file "{config.log_file}", switching to stderr. ({error.strerror})')
        return replace(config, log_file=None)


def _start(config: Config, *, daemon_mode: bool) -> int:
    from postgear import daemon

    if daemon_mode:
        child = os.fork()
        if child:
            return _wait_until_ready(child, config.pid_file)
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1) if config.log_file is None else (0, 1, 2):
            os.dup2(null, descriptor)
    code: int = daemon.run(config)
    return code


def _wait_until_ready(child: int, pid_file: str | None) -> int:
    """Wait until the pid file names *child*, as ``--daemon`` promises; return its exit code if it ends before."""
    deadline = time.monotonic() + DAEMON_WAIT_SECONDS
    while pid_file is not None and time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        try:
            if Path(pid_file).read_text(encoding="ascii").strip() == str(child):
                return 0
        except (OSError, UnicodeDecodeError):
            pass
        time.sleep(0.02)
    return 0


def _say(text: str) -> None:
    print(f"gearmand: {text}", file=sys.stderr)
