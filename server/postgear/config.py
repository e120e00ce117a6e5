"""Every setting of the server: its default, its unit, the reason for it, and where its value comes from.

``load`` takes flags over the environment (``POSTGEAR_<FIELD>``) over a TOML file of the same keys over the defaults.
Not here: what a setting does. Nothing is opened, resolved or connected; a ``Config`` is plain values.
``python -m postgear.config`` prints the reference page.
"""

from __future__ import annotations

import difflib
import os
import socket
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import Any, Final

from postgear import config_values as parse
from postgear.errors import ConfigError
from postgear.logs import LEVELS
from postgear.wire.packet import HANDLE_MAX_BYTES

ENVIRONMENT_PREFIX: Final = "POSTGEAR_"
DEFAULT_FILE: Final = "postgear.toml"
NAME_MAX_BYTES: Final = 40
PREFIX_MAX_BYTES: Final = HANDLE_MAX_BYTES - len(":18446744073709551615")

_LIBPQ_ENVIRONMENT = ("PGHOST", "PGHOSTADDR", "PGSERVICE", "PGDATABASE")


def hide_password(dsn: str) -> str:
    """Return *dsn* with the value of its password replaced, for logs; both libpq forms."""
    import re

    dsn = re.sub(r"^(postgres(?:ql)?://[^/@:]*):[^/]*@", r"\1:***@", dsn)
    return re.sub(r"(password\s*=\s*)('(?:[^'\\]|\\.)*'|[^\s&]+)", r"\1***", dsn)


def _default_name() -> str:
    """Return the short host name, with what a name may not hold left out."""
    host = socket.gethostname().split(".")[0]
    return "".join(character for character in host if "!" <= character <= "~")[:NAME_MAX_BYTES] or "localhost"


def _default_data_dir() -> str:
    return "/var/lib/postgear" if os.geteuid() == 0 else os.path.expanduser("~/.local/share/postgear")


def _setting(
    default: object, parser: parse.Parser, allowed: str, *, about: str, reason: str, unit: str = "", shown: str = ""
) -> Any:
    """Declare a field. *allowed* completes "must be …"; *shown* is a default that differs by machine, in words."""
    metadata = {"parse": parser, "allowed": allowed, "help": about, "reason": reason, "unit": unit, "shown": shown}
    if callable(default):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)


_KEEPALIVE = parse.integer(0, 32767)
_SIZE = parse.size(1024, 4 * 1024**3 - 1)
_SIZE_ALLOWED = "a size from 1KiB to 4GiB less one byte, e.g. 67108864, 64MiB, 1GB"


@dataclass(frozen=True)
class Config:
    """The settings of one server. See each field's metadata, or docs/config.md."""

    dsn: str | None = _setting(
        None,
        parse.dsn,
        "a libpq connection string or URL, e.g. host=db dbname=shop, postgresql://db/shop",
        about="The database. An empty text means what libpq's environment says; none at all starts an embedded PostgreSQL.",
        reason="Nothing to set up for a first try. PGHOST, PGHOSTADDR, PGSERVICE or PGDATABASE count as an empty text.",
    )
    data_dir: str = _setting(
        _default_data_dir,
        parse.path,
        "a folder",
        about="Where the embedded PostgreSQL keeps its data; unused with a DSN.",
        reason="Debian's place for a service's state, and the user's own for everybody else.",
        shown="/var/lib/postgear for root, else ~/.local/share/postgear",
    )
    listen: tuple[str, ...] = _setting(
        ("127.0.0.1:4730",),
        parse.listen,
        "HOST:PORT or a list of them, e.g. 127.0.0.1:4730, [::1]:4730; port 0 takes a free one",
        about="The addresses that clients and workers connect to.",
        reason="Gearman has no authentication, so other machines reach a server only if asked for. 4730 is Gearman's port.",
    )
    http: str | None = _setting(
        None,
        parse.address,
        "HOST:PORT; port 0 takes a free one",
        about="An address for load balancers and Prometheus: GET /live, /ready and /metrics.",
        reason="Nobody listens where nobody asks.",
    )
    bind_wait_seconds: float = _setting(
        0.0,
        parse.seconds(0, 3600),
        "seconds from 0 to 3600",
        unit="seconds",
        about="How long to try again while another process has the port.",
        reason="A taken port is a mistake to hear about at once; gearmand waits 20 s, and so does `postgear gearmand`.",
    )
    backlog: int = _setting(
        1024,
        parse.integer(1, 65535),
        "a number from 1 to 65535",
        unit="connections",
        about="How many connections the kernel queues until they are accepted.",
        reason="gearmand's 32 drops connections when a fleet of workers reconnects; the kernel caps it at its own limit.",
    )
    name: str = _setting(
        _default_name,
        parse.token(NAME_MAX_BYTES),
        f"1 to {NAME_MAX_BYTES} printable ASCII characters without spaces",
        about="This server's name: in logs, in postgear.server, and in the handles of foreground jobs.",
        reason="Operators know machines by it; 40 bytes leave room for the number in a handle of 63.",
        shown="the short host name",
    )
    handle_prefix: str | None = _setting(
        None,
        parse.token(PREFIX_MAX_BYTES),
        f"1 to {PREFIX_MAX_BYTES} printable ASCII characters without spaces",
        about="What job handles start with, instead of H: and a name.",
        reason="The handles that gearmand's clients expect. A handle has at most 63 bytes, the number up to 20.",
        shown="H:<name>",
    )
    round_robin: bool = _setting(
        False,
        parse.flag,
        "true or false",
        about="Give a worker's functions turns, within one priority.",
        reason="gearmand's default: a worker's functions are tried in the order of their registration, the last one first.",
    )
    worker_wakeup: int = _setting(
        0,
        parse.integer(0, 255),
        "a number from 0 to 255; 0 wakes all",
        unit="workers",
        about="How many sleeping workers one job wakes; 0 wakes all of its function.",
        reason="gearmand's default: it never leaves a job waiting for a worker that woke and died.",
    )
    job_retries: int = _setting(
        -1,
        parse.integer(-1, 255),
        "a number from -1 to 255; -1 is for ever, 0 gives a job up at the first loss",
        unit="lost workers",
        about="After how many lost workers a job is given up with WORK_FAIL; -1 never gives up.",
        reason="A job that was acknowledged is not dropped unless asked for.",
    )
    exceptions: bool = _setting(
        False,
        parse.flag,
        "true or false",
        about="Send WORK_EXCEPTION to every client, also to those that did not ask with OPTION_REQ.",
        reason="gearmand's default: old clients understand only WORK_FAIL.",
    )
    remote_shutdown: bool = _setting(
        False,
        parse.flag,
        "true or false",
        about="Obey the admin command shutdown from other machines too, not only over loopback.",
        reason="Gearman has no authentication.",
    )
    max_packet_bytes: int = _setting(
        64 * 1024**2,
        _SIZE,
        _SIZE_ALLOWED,
        unit="bytes",
        about="A longer packet is refused with ERROR before it is buffered.",
        reason="Bounds the memory one connection can take, far above the payloads that queues carry.",
    )
    output_buffer_bytes: int = _setting(
        64 * 1024**2,
        _SIZE,
        _SIZE_ALLOWED,
        unit="bytes",
        about="A connection with this much unsent output is closed as too slow.",
        reason="One packet of the greatest size fits; a peer that reads nothing does not eat the server's memory.",
    )
    submit_timeout_seconds: float = _setting(
        10.0,
        parse.seconds(0, 86400),
        "seconds from 0 to 86400",
        unit="seconds",
        about="How long a background submit waits for a database that is away before it gets ERROR.",
        reason="Outlasts a restart or a quick failover of the database, and is below the time-outs that clients use.",
    )
    require_sync: bool = _setting(
        False,
        parse.flag,
        "true or false",
        about="Acknowledge background submits only while a synchronous standby is connected; else they wait, then get ERROR.",
        reason="Where a standby is configured PostgreSQL waits for it anyway; this is for queues that must not go on when the "
        "configuration is taken away. It costs a round trip to the database for each batch.",
    )
    lease_seconds: float = _setting(
        20.0,
        parse.seconds(2, 3600),
        "seconds from 2 to 3600",
        unit="seconds",
        about="After how long without a heartbeat others take over this server's jobs though PostgreSQL still sees its session.",
        reason="For servers that hang or are cut off; a killed one is noticed by its lost session within 3 s. Outlasts a stall.",
    )
    drain_seconds: float = _setting(
        10.0,
        parse.seconds(0, 3600),
        "seconds from 0 to 3600",
        unit="seconds",
        about="How long SIGTERM may take: claims are released and acknowledgements sent, then the server exits.",
        reason="Below the 90 s of systemd and the 30 s of Kubernetes with room to spare.",
    )
    keepalive: bool = _setting(
        False,
        parse.flag,
        "true or false",
        about="Let the kernel probe silent connections (TCP keepalive).",
        reason="gearmand's default. Turn it on where firewalls forget connections.",
    )
    keepalive_idle_seconds: int = _setting(
        0,
        _KEEPALIVE,
        "seconds from 0 to 32767; 0 leaves the kernel's own",
        unit="seconds",
        about="Silence before the first probe (TCP_KEEPIDLE); 0 leaves the kernel's own.",
        reason="The kernel's setting is the administrator's.",
    )
    keepalive_interval_seconds: int = _setting(
        0,
        _KEEPALIVE,
        "seconds from 0 to 32767; 0 leaves the kernel's own",
        unit="seconds",
        about="Time between probes (TCP_KEEPINTVL); 0 leaves the kernel's own.",
        reason="The kernel's setting is the administrator's.",
    )
    keepalive_count: int = _setting(
        0,
        parse.integer(0, 127),
        "a number from 0 to 127; 0 leaves the kernel's own",
        unit="probes",
        about="Unanswered probes until the connection counts as lost (TCP_KEEPCNT); 0 leaves the kernel's own.",
        reason="The kernel's setting is the administrator's.",
    )
    log_level: str = _setting(
        "INFO",
        parse.choice(*LEVELS),
        "one of " + ", ".join(LEVELS),
        about="The least severe events that are logged.",
        reason="INFO is what an operator acts on or wants to know; DEBUG adds what helps to find a fault.",
    )
    log_format: str = _setting(
        "text",
        parse.choice("text", "json"),
        "text or json",
        about="key=value text, or one JSON object a line.",
        reason="People read logs first; json is for collectors.",
    )
    log_file: str | None = _setting(
        None,
        parse.log_file,
        "a file, stderr, or none",
        about="Where the log goes; `none` drops it, `stderr` is standard error. SIGHUP reopens the file.",
        reason="systemd and containers collect standard error.",
        shown="standard error",
    )
    pid_file: str | None = _setting(
        None,
        parse.path,
        "a file",
        about="A file that holds the server's process id while it runs.",
        reason="Only old init scripts need one.",
    )
    user: str | None = _setting(
        None,
        parse.token(256),
        "the name of a user",
        about="The user to become after start, when started as root.",
        reason="systemd does this by itself.",
    )
    file_descriptors: int | None = _setting(
        None,
        parse.integer(1, 2**31 - 1),
        "a number from 1 on",
        unit="descriptors",
        about="The limit of open files to set; each connection takes one.",
        reason="The limit of the process is the administrator's.",
        shown="the process's own",
    )


def load(
    flags: Mapping[str, object],
    environ: Mapping[str, str],
    toml_path: str | None = None,
    *,
    defaults: Mapping[str, object] | None = None,
) -> Config:
    """Return the settings: flags over environment over TOML file over *defaults* over the fields' own defaults.

    flags: by field name; None means "not given".
    toml_path: None takes POSTGEAR_CONFIG, else ./postgear.toml if there is one.
    Raises ConfigError, naming the key, its source and what is allowed. Variables POSTGEAR_… that are no field are
    left alone: container platforms invent some for a service of that name.
    """
    known = {each.name: each for each in fields(Config)}
    values: dict[str, object] = {}
    for key, given in (defaults or {}).items():
        values[key] = _parse(known, key, given, f"default of {key}")
    path = toml_path if toml_path is not None else environ.get(ENVIRONMENT_PREFIX + "CONFIG")
    if path is None and os.path.exists(DEFAULT_FILE):
        path = DEFAULT_FILE
    if path is not None:
        for key, given in _read_toml(path).items():
            values[key] = _parse(known, key, given, f"{key} in {path}")
    for key in known:
        variable = ENVIRONMENT_PREFIX + key.upper()
        if variable in environ:
            values[key] = _parse(known, key, environ[variable], variable)
    for key, given in flags.items():
        if given is not None:
            values[key] = _parse(known, key, given, "--" + key.replace("_", "-"))
    if "dsn" not in values and any(variable in environ for variable in _LIBPQ_ENVIRONMENT):
        values["dsn"] = ""
    return Config(**values)  # type: ignore[arg-type]


def _parse(known: Mapping[str, Field[Any]], key: str, given: object, source: str) -> object:
    if key not in known:
        near = difflib.get_close_matches(key, known, n=1)
        raise ConfigError(f"{source}: no such setting; " + (f"{near[0]}?" if near else f"there are {', '.join(known)}"))
    metadata = known[key].metadata
    try:
        return metadata["parse"](given)
    except (ValueError, TypeError) as error:
        # Not the DSN itself: it may hold a password.
        wrong = error if key == "dsn" and isinstance(given, str) else f"{_written(given)} given"
        raise ConfigError(f"{source}: {wrong}, must be {metadata['allowed']}") from None


def _written(given: object) -> str:
    """Return a value as people write it."""
    if isinstance(given, list | tuple):
        return ", ".join(map(_written, given))
    return str(given).lower() if isinstance(given, bool) else repr(given)


def _read_toml(path: str) -> dict[str, object]:
    import tomllib

    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: not TOML: {error}") from None


def shown_default(each: Field[Any]) -> str:
    """Return a field's default in words, the same on every machine."""
    if each.metadata["shown"]:
        return str(each.metadata["shown"])
    assert each.default is not MISSING
    default = each.default
    if default is None:
        return "none"
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, tuple):
        return ", ".join(default)
    if each.metadata["unit"] == "bytes":
        return f"{default // 1024**2}MiB"
    return f"{default:g}" if isinstance(default, float) else str(default)


def reference() -> str:
    """Return the page docs/config.md."""
    lines = [
        "# Settings",
        "",
        "Each setting can be given as a flag of `postgear serve`, as an environment variable, or as a key of a TOML file;",
        "flags win over the environment, the environment over the file. That is `--config FILE`, else `POSTGEAR_CONFIG`, else",
        "`postgear.toml` in the current folder if there is one. A wrong value stops the server with exit code 2.",
        "",
        "This page is printed by `python -m postgear.config`; a test compares.",
        "",
    ]
    for each in fields(Config):
        about = each.metadata
        flag = "--" + each.name.replace("_", "-")
        unit = f" ({about['unit']})" if about["unit"] else ""
        lines += [
            f"## `{each.name}`",
            "",
            about["help"],
            "",
            f"- flag `{flag}`, environment `{ENVIRONMENT_PREFIX}{each.name.upper()}`, TOML `{each.name}`",
            f"- default: {shown_default(each)}{unit}",
            f"- allowed: {about['allowed']}",
            f"- why this default: {about['reason']}",
            "",
        ]
    return "\n".join(lines[:-1]) + "\n"


if __name__ == "__main__":
    print(reference(), end="")
