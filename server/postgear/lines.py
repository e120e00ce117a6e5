"""Workloads from standard input, a line each, as they come: not all at once, and without waiting while others can be served."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterator
from queue import Empty, SimpleQueue
from typing import Final

from postgear.errors import PostgearError

_CHUNK_BYTES: Final = 65536
_CHUNKS_AHEAD: Final = 16


class Lines:
    """The lines of a file descriptor, without their ends; the last one may have none.

    A thread reads ahead, but no more than a few chunks, so that input of any size needs little memory.
    """

    def __init__(self, descriptor: int, separator: bytes) -> None:
        self.is_ended = False  # all lines have been taken
        self._taken: deque[bytes] = deque()
        self._read: SimpleQueue[list[bytes] | OSError | None] = SimpleQueue()
        self._ahead = threading.Semaphore(_CHUNKS_AHEAD)
        # A daemon: nobody can end its read, and the command may have to end first.
        threading.Thread(target=self._read_all, args=(descriptor, separator), daemon=True).start()

    def take(self) -> bytes | None:
        """Return the next line, or None if there is none at the moment. Raises PostgearError if it cannot be read."""
        if not self._taken:
            try:
                self._put(self._read.get_nowait())
            except Empty:
                return None
        return self._taken.popleft() if self._taken else None

    def wait(self) -> bool:
        """Wait until there is a line to take; false if there will be none. Raises PostgearError."""
        while not self._taken and not self.is_ended:
            self._put(self._read.get())
        return bool(self._taken)

    def batches(self) -> Iterator[list[bytes]]:
        """Yield lines in the lists in which they come."""
        while self.wait():
            batch = list(self._taken)
            self._taken.clear()
            yield batch

    def _put(self, read: list[bytes] | OSError | None) -> None:
        if read is None:
            self._read.put(None)  # for the next who looks
            self.is_ended = True
        elif isinstance(read, OSError):
            raise PostgearError(f"the input cannot be read: {read.strerror}") from read
        else:
            self._ahead.release()
            self._taken.extend(read)

    def _read_all(self, descriptor: int, separator: bytes) -> None:
        try:
            for lines in _split(descriptor, separator):
                self._ahead.acquire()
                self._read.put(lines)
        except OSError as error:
            self._read.put(error)
        self._read.put(None)


def _split(descriptor: int, separator: bytes) -> Iterator[list[bytes]]:
    begun: list[bytes] = []  # the parts of a line whose end has not come
    while data := os.read(descriptor, _CHUNK_BYTES):
        lines = data.split(separator)
        if len(lines) == 1:
            begun.append(data)
            continue
        lines[0] = b"".join((*begun, lines[0]))
        begun = [lines.pop()]
        yield lines
    if rest := b"".join(begun):
        yield [rest]
