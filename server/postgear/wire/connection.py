"""Bytes in, messages out: the parser for one connection.

``PacketReader.feed`` takes whatever the socket gave and returns the messages completed by it, as ``(kind, arguments)``.
*kind* is a packet type (also one that does not exist: the body length keeps the stream in step), or one of the
negative kinds below. It never raises: what is wrong with the peer's bytes is a message too, so that it is answered in
its place among the replies.

Source: PROTOCOL; the first byte of each message decides between a packet (NUL) and an admin line (anything else).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from .packet import ARGUMENT_COUNT, HEADER, HEADER_BYTES, REQUEST_MAGIC, RESPONSE_MAGIC, PacketType, split_reduce

Message = tuple[int, Sequence[bytes]]

TEXT: Final = -1
"""An admin line; arguments: the line without its end."""
INVALID: Final = -2
"""Answer with ERROR; arguments: code, text. The stream is still in step."""
FATAL: Final = -3
"""Answer with ERROR, then close; arguments: code, text. What follows cannot be understood."""
FATAL_TEXT: Final = -4
"""Answer with an admin ERR line, then close; arguments: code, text."""

TEXT_MAX_BYTES: Final = 8192
"""gearmand's receive buffer: no longer admin line exists."""
DEFAULT_MAX_PACKET_BYTES: Final = 64 * 1024 * 1024

_SPLITS = {int(kind): count - 1 for kind, count in ARGUMENT_COUNT.items()}
_REDUCE = (int(PacketType.SUBMIT_REDUCE_JOB), int(PacketType.SUBMIT_REDUCE_JOB_BACKGROUND))
_DATA_MAY_LACK = (int(PacketType.WORK_COMPLETE), int(PacketType.WORK_DATA), int(PacketType.WORK_WARNING))
"""Perl's worker leaves the separator out when the data is empty (Gearman::Worker 2.004)."""
_NONE: tuple[bytes, ...] = ()


class PacketReader:
    """Parse one direction of one connection.

    magic: the magic this side expects (requests at a server, responses at a client).
    max_packet_bytes: a longer body is refused as soon as its header is seen and skipped as it arrives, never buffered.
    max_text_bytes: of an admin line; an answer may have longer ones than a command.
    """

    def __init__(
        self,
        magic: bytes = REQUEST_MAGIC,
        max_packet_bytes: int = DEFAULT_MAX_PACKET_BYTES,
        max_text_bytes: int = TEXT_MAX_BYTES,
    ) -> None:
        self._max_text_bytes = max_text_bytes
        self._magic = magic
        self._max_packet_bytes = max_packet_bytes
        self._chunks: list[bytes] = []
        self._have = 0  # bytes in _chunks
        self._need = 0  # no message can be complete below this many bytes; spares joining a large body again and again
        self._skip = 0  # bytes of a refused body still to come
        self._dead = False

    def feed(self, data: bytes) -> list[Message]:
        """Return the messages completed by *data*, in order."""
        if self._dead:
            return []
        if self._have:
            self._chunks.append(data)
            self._have += len(data)
            if self._have < self._need:
                return []
            data = b"".join(self._chunks)
            self._chunks.clear()
            self._have = 0
        messages: list[Message] = []
        append = messages.append
        unpack = HEADER.unpack_from
        splits = _SPLITS
        magic_expected = self._magic
        maximum = self._max_packet_bytes
        position = 0
        end = len(data)
        self._need = 0
        while position < end:
            if self._skip:
                skipped = min(self._skip, end - position)
                self._skip -= skipped
                position += skipped
                continue
            if data[position]:
                newline = data.find(b"\n", position, position + self._max_text_bytes + 1)
                if newline < 0:
                    if end - position > self._max_text_bytes:
                        text = b"A line may have %d bytes" % self._max_text_bytes
                        return self._die(messages, FATAL_TEXT, b"LINE_TOO_LONG", text)
                    break
                append((TEXT, (data[position:newline].rstrip(b"\r"),)))
                position = newline + 1
                continue
            if end - position < HEADER_BYTES:
                if data[position : position + 4] != magic_expected[: end - position] and self._is_garbage(data, position):
                    return self._die(messages, FATAL, b"INVALID_MAGIC", b"Request magic expected")
                break
            magic, kind, length = unpack(data, position)
            if magic != magic_expected:
                if magic not in (REQUEST_MAGIC, RESPONSE_MAGIC):
                    return self._die(messages, FATAL, b"INVALID_MAGIC", b"Request magic expected")
                append((INVALID, (b"INVALID_MAGIC", b"Request magic expected")))
                position += HEADER_BYTES
                self._skip = length
                continue
            if length > maximum:
                text = b"A packet may have %d bytes, this one has %d" % (maximum, length)
                append((INVALID, (b"ARGUMENT_TOO_LARGE", text)))
                position += HEADER_BYTES
                self._skip = length
                continue
            start = position + HEADER_BYTES
            stop = start + length
            if stop > end:
                self._need = stop - position
                break
            position = stop
            split = splits.get(kind, -1)
            if split < 0:
                append((kind, _NONE))
                continue
            if split == 0:
                append((kind, (data[start:stop],)))
                continue
            if kind in _REDUCE:
                fields = split_reduce(data[start:stop])
            else:
                fields = data[start:stop].split(b"\0", split)
                if len(fields) == split and kind in _DATA_MAY_LACK:
                    fields.append(b"")
                elif len(fields) <= split:
                    fields = None
            if fields is None:
                text = b"%s needs %d arguments" % (PacketType(kind).name.encode(), split + 1)
                append((INVALID, (b"INVALID_PACKET", text)))
            else:
                append((kind, fields))
        if position < end:
            rest = data[position:] if position else data
            self._chunks.append(rest)
            self._have = len(rest)
        return messages

    def _is_garbage(self, data: bytes, position: int) -> bool:
        start = data[position : position + 4]
        return not (REQUEST_MAGIC.startswith(start) or RESPONSE_MAGIC.startswith(start))

    def _die(self, messages: list[Message], kind: int, code: bytes, text: bytes) -> list[Message]:
        self._dead = True
        messages.append((kind, (code, text)))
        return messages
