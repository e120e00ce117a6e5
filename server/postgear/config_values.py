"""How the text of a setting becomes its value.

Each parser takes what a flag, an environment variable (both text) or a TOML file (text, number, boolean, list) gave and
returns the value, or raises ValueError or TypeError; ``config`` turns that into a message that says what is allowed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, Final

Parser = Callable[[object], Any]

_SIZE_UNITS: Final = {"B": 1, "KB": 1000, "MB": 1000**2, "GB": 1000**3, "KIB": 1024, "MIB": 1024**2, "GIB": 1024**3}
_TRUE: Final = ("1", "true", "yes", "on")
_FALSE: Final = ("0", "false", "no", "off")


def parse_address(text: str, default_port: int | None = None) -> tuple[str, int]:
    """Split ``HOST:PORT`` (``[::1]:4730`` for IPv6); raise ValueError if it is not one.

    default_port: the port of a text that names none; None means that the port may not be left out.
    """
    host, colon, port = text.rpartition(":")
    if default_port is not None and (not colon or text.endswith("]")):
        host, port = text, str(default_port)
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(text)
    if not host or not (port.isascii() and port.isdigit() and int(port) <= 65535):
        raise ValueError(text)
    return host, int(port)


def format_address(host: str, port: int) -> str:
    """Write an address as ``parse_address`` reads it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def text(value: object) -> str:
    """Take a text without NUL."""
    if not isinstance(value, str) or "\0" in value:
        raise ValueError(value)
    return value


def dsn(value: object) -> str:
    """Take what libpq reads as a connection string or URL; its reason is in the ValueError."""
    word = text(value)
    if word:
        # Only here: most commands need no database.
        from psycopg import ProgrammingError
        from psycopg.conninfo import conninfo_to_dict

        try:
            conninfo_to_dict(word)
        except ProgrammingError as error:
            raise ValueError(str(error).strip()) from None
    return word


def path(value: object) -> str:
    """Take a file or folder; ``~`` is the user's home."""
    if not text(value):
        raise ValueError(value)
    return os.path.expanduser(text(value))


def log_file(value: object) -> str | None:
    """Take a file, ``none``, or ``stderr``, which is no file."""
    return None if value == "stderr" else path(value)


def flag(value: object) -> bool:
    """Take a boolean, or a word for one."""
    if isinstance(value, bool):
        return value
    word = text(value).strip().lower()
    if word not in _TRUE + _FALSE:
        raise ValueError(value)
    return word in _TRUE


def listen(value: object) -> tuple[str, ...]:
    """Take addresses: a list, or a text with commas or blanks between them."""
    words = value.replace(",", " ").split() if isinstance(value, str) else value
    if not isinstance(words, Sequence) or not words:
        raise ValueError(value)
    return tuple(format_address(*parse_address(text(word))) for word in words)


def address(value: object) -> str:
    """Take one address."""
    return format_address(*parse_address(text(value)))


def token(maximum_bytes: int) -> Parser:
    """Take printable ASCII without spaces: what may stand in a handle and in an admin line."""

    def parse(value: object) -> str:
        word = text(value)
        if not 0 < len(word) <= maximum_bytes or not all("!" <= character <= "~" for character in word):
            raise ValueError(value)
        return word

    return parse


def integer(minimum: int, maximum: int) -> Parser:
    """Take a whole number."""

    def parse(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise TypeError(value)
        number = int(value)
        if not minimum <= number <= maximum:
            raise ValueError(value)
        return number

    return parse


def seconds(minimum: float, maximum: float) -> Parser:
    """Take a duration in seconds, with a fraction if wanted."""

    def parse(value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise TypeError(value)
        number = float(value)
        if not minimum <= number <= maximum:
            raise ValueError(value)
        return number

    return parse


def parse_size(value: object) -> int:
    """Return the bytes meant by ``1048576``, ``64MiB`` or ``1GB``; raise ValueError if it is no size."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    word = text(value).strip()
    digits = word.rstrip("BKMGIbkmgi ")
    unit = word[len(digits) :].strip().upper() or "B"
    if unit not in _SIZE_UNITS:
        raise ValueError(value)
    return int(digits) * _SIZE_UNITS[unit]


def size(minimum: int, maximum: int) -> Parser:
    """Take a size in bytes, as ``parse_size`` reads it."""

    def parse(value: object) -> int:
        number = parse_size(value)
        if not minimum <= number <= maximum:
            raise ValueError(value)
        return number

    return parse


def choice(*words: str) -> Parser:
    """Take one of *words*, in any case."""

    def parse(value: object) -> str:
        for word in words:
            if text(value).lower() == word.lower():
                return word
        raise ValueError(value)

    return parse
