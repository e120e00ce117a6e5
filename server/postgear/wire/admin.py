"""The admin text protocol: how its replies are written.

A command is one line of words; a reply is lines, closed by ``.`` where there may be many. Bytes as gearmand 1.1.20 sends them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

END: Final = b".\n"
OK: Final = b"OK\r\n"
UNKNOWN_JOB: Final = b"ERR UNKNOWN_JOB\r\n"
UNKNOWN_SHOW: Final = b"ERR UNKNOWN_SHOW_ARGUMENTS\r\n"
UNKNOWN_CANCEL: Final = b"ERR UNKNOWN_ERROR\r\n"
FUNCTION_NOT_FOUND: Final = b"ERR function not found\r\n"
FUNCTION_IN_USE: Final = b"ERR there are still connected workers or executing clients\r\n"
MAX_WORDS: Final = 5
"""gearmand splits a line into at most five words and drops the connection at a sixth; here that is an ERR line."""


def unknown_command(word: bytes) -> bytes:
    """Answer a word that is no command."""
    return b"ERR UNKNOWN_COMMAND Unknown+server+command" + word + b"\r\n"


def incomplete(word: bytes) -> bytes:
    """Answer a command with missing or wrong words."""
    return b"ERR INVALID_ARGUMENTS An+incomplete+set+of+arguments+was+sent+to+this+command+" + word + b"\r\n"


def too_many_words() -> bytes:
    """Answer a line of more than five words."""
    return b"ERR INVALID_ARGUMENTS A+command+has+at+most+%d+words\r\n" % MAX_WORDS


def store_error(text: str) -> bytes:
    """Answer a command that the database could not serve."""
    return b"ERR QUEUE_ERROR " + "+".join(text.split()).encode("ascii", "replace") + b"\r\n"


def table(rows: Iterable[Sequence[bytes | int]]) -> bytes:
    """Write rows of tab-separated columns (bytes or numbers)."""
    return b"".join(b"\t".join(value if isinstance(value, bytes) else b"%d" % value for value in row) + b"\n" for row in rows)


def worker_line(fd: int, address: bytes, client_id: bytes, functions: Sequence[bytes]) -> bytes:
    """Write one line of ``workers``; a connection without abilities has no space after its colon."""
    names = b"".join(b" " + name for name in functions)
    return b"%d %s %s :%s\n" % (fd, address, client_id, names)
