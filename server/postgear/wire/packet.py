"""Packet types, their arguments, and how packets are written.

A packet is a header of 12 bytes (magic, type, body length; big endian) and a body: arguments joined by one NUL.
Only the last argument may hold NULs. Source: Gearman PROTOCOL, "Binary Packet"; numbers seen on gearmand 1.1.20.
"""

from __future__ import annotations

from enum import IntEnum
from struct import Struct
from typing import Final

REQUEST_MAGIC: Final = b"\0REQ"
RESPONSE_MAGIC: Final = b"\0RES"
HEADER: Final = Struct(">4sII")
HEADER_BYTES: Final = HEADER.size

UNIQUE_MAX_BYTES: Final = 64
"""gearmand refuses a unique of 65 bytes."""
FUNCTION_MAX_BYTES: Final = 512
"""libgearman's GEARMAN_FUNCTION_MAX_SIZE."""
HANDLE_MAX_BYTES: Final = 63
"""libgearman's GEARMAND_JOB_HANDLE_SIZE less its NUL."""


class PacketType(IntEnum):
    """The packet types, named as in PROTOCOL."""

    CAN_DO = 1
    CANT_DO = 2
    RESET_ABILITIES = 3
    PRE_SLEEP = 4
    NOOP = 6
    SUBMIT_JOB = 7
    JOB_CREATED = 8
    GRAB_JOB = 9
    NO_JOB = 10
    JOB_ASSIGN = 11
    WORK_STATUS = 12
    WORK_COMPLETE = 13
    WORK_FAIL = 14
    GET_STATUS = 15
    ECHO_REQ = 16
    ECHO_RES = 17
    SUBMIT_JOB_BG = 18
    ERROR = 19
    STATUS_RES = 20
    SUBMIT_JOB_HIGH = 21
    SET_CLIENT_ID = 22
    CAN_DO_TIMEOUT = 23
    ALL_YOURS = 24
    WORK_EXCEPTION = 25
    OPTION_REQ = 26
    OPTION_RES = 27
    WORK_DATA = 28
    WORK_WARNING = 29
    GRAB_JOB_UNIQ = 30
    JOB_ASSIGN_UNIQ = 31
    SUBMIT_JOB_HIGH_BG = 32
    SUBMIT_JOB_LOW = 33
    SUBMIT_JOB_LOW_BG = 34
    SUBMIT_JOB_SCHED = 35
    SUBMIT_JOB_EPOCH = 36
    SUBMIT_REDUCE_JOB = 37
    SUBMIT_REDUCE_JOB_BACKGROUND = 38
    GRAB_JOB_ALL = 39
    JOB_ASSIGN_ALL = 40
    GET_STATUS_UNIQUE = 41
    STATUS_RES_UNIQUE = 42


ARGUMENT_COUNT: Final = {
    PacketType.CAN_DO: 1,
    PacketType.CANT_DO: 1,
    PacketType.RESET_ABILITIES: 0,
    PacketType.PRE_SLEEP: 0,
    PacketType.NOOP: 0,
    PacketType.SUBMIT_JOB: 3,
    PacketType.JOB_CREATED: 1,
    PacketType.GRAB_JOB: 0,
    PacketType.NO_JOB: 0,
    PacketType.JOB_ASSIGN: 3,
    PacketType.WORK_STATUS: 3,
    PacketType.WORK_COMPLETE: 2,
    PacketType.WORK_FAIL: 1,
    PacketType.GET_STATUS: 1,
    PacketType.ECHO_REQ: 1,
    PacketType.ECHO_RES: 1,
    PacketType.SUBMIT_JOB_BG: 3,
    PacketType.ERROR: 2,
    PacketType.STATUS_RES: 5,
    PacketType.SUBMIT_JOB_HIGH: 3,
    PacketType.SET_CLIENT_ID: 1,
    PacketType.CAN_DO_TIMEOUT: 2,
    PacketType.ALL_YOURS: 0,
    PacketType.WORK_EXCEPTION: 2,
    PacketType.OPTION_REQ: 1,
    PacketType.OPTION_RES: 1,
    PacketType.WORK_DATA: 2,
    PacketType.WORK_WARNING: 2,
    PacketType.GRAB_JOB_UNIQ: 0,
    PacketType.JOB_ASSIGN_UNIQ: 4,
    PacketType.SUBMIT_JOB_HIGH_BG: 3,
    PacketType.SUBMIT_JOB_LOW: 3,
    PacketType.SUBMIT_JOB_LOW_BG: 3,
    PacketType.SUBMIT_JOB_SCHED: 8,
    PacketType.SUBMIT_JOB_EPOCH: 4,
    PacketType.SUBMIT_REDUCE_JOB: 5,
    PacketType.SUBMIT_REDUCE_JOB_BACKGROUND: 5,
    PacketType.GRAB_JOB_ALL: 0,
    PacketType.JOB_ASSIGN_ALL: 5,
    PacketType.GET_STATUS_UNIQUE: 1,
    PacketType.STATUS_RES_UNIQUE: 6,
}
"""How many arguments each type has; gearmand's real forms where they differ from PROTOCOL."""


def encode_request(packet_type: int, *arguments: bytes) -> bytes:
    """Write a packet that goes to a server."""
    return _encode(REQUEST_MAGIC, packet_type, arguments)


def encode_response(packet_type: int, *arguments: bytes) -> bytes:
    """Write a packet that a server sends."""
    return _encode(RESPONSE_MAGIC, packet_type, arguments)


def _encode(magic: bytes, packet_type: int, arguments: tuple[bytes, ...]) -> bytes:
    body = b"\0".join(arguments)
    return HEADER.pack(magic, packet_type, len(body)) + body


def split_reduce(body: bytes) -> list[bytes] | None:
    """Split the body of a reduce job into function, unique, reducer, aggregator flag, data.

    Real clients send these five; PROTOCOL documents four, without the flag. The flag is one character or empty, so a
    longer fourth field is taken as the start of the data of the documented form. None: separators are missing.
    """
    fields = body.split(b"\0", 4)
    if len(fields) == 5 and len(fields[3]) <= 1:
        return fields
    fields = body.split(b"\0", 3)
    if len(fields) < 4:
        return None
    return [*fields[:3], b"", fields[3]]
