"""The parser: vectors, chunks of every size, admin lines among packets, and bytes that are not Gearman."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from postgear.wire.connection import (
    DEFAULT_MAX_PACKET_BYTES,
    FATAL,
    FATAL_TEXT,
    INVALID,
    TEXT,
    TEXT_MAX_BYTES,
    PacketReader,
)
from postgear.wire.packet import REQUEST_MAGIC, RESPONSE_MAGIC, PacketType, encode_request, encode_response

VECTORS: list[dict[str, Any]] = json.loads((Path(__file__).parent.parent / "vectors" / "packets.json").read_text())
ECHO = encode_request(PacketType.ECHO_REQ, b"still here")
ECHOED = (PacketType.ECHO_REQ, (b"still here",))


def vector_id(vector: dict[str, Any]) -> str:
    return f"{vector['magic']}-{vector['name']}-{VECTORS.index(vector)}"


def read(reader: PacketReader, *chunks: bytes) -> list[tuple[int, tuple[bytes, ...]]]:
    """Feed *chunks* and return all messages in a form that compares."""
    return [(kind, tuple(arguments)) for chunk in chunks for kind, arguments in reader.feed(chunk)]


def one_by_one(data: bytes) -> list[bytes]:
    return [data[index : index + 1] for index in range(len(data))]


def expected_of(vector: dict[str, Any]) -> tuple[int, tuple[bytes, ...]]:
    arguments = vector.get("read_as", vector["arguments"])
    return vector["type"], tuple(argument.encode("latin-1") for argument in arguments)


def reader_of(vector: dict[str, Any]) -> PacketReader:
    return PacketReader(REQUEST_MAGIC if vector["magic"] == "REQ" else RESPONSE_MAGIC)


@pytest.mark.parametrize("vector", VECTORS, ids=vector_id)
def test_a_vector_is_read_back(vector: dict[str, Any]) -> None:
    assert read(reader_of(vector), bytes.fromhex(vector["hex"])) == [expected_of(vector)]


@pytest.mark.parametrize("vector", VECTORS, ids=vector_id)
def test_a_vector_is_read_back_byte_by_byte(vector: dict[str, Any]) -> None:
    assert read(reader_of(vector), *one_by_one(bytes.fromhex(vector["hex"]))) == [expected_of(vector)]


@pytest.mark.parametrize("magic", ["REQ", "RES"])
def test_all_vectors_in_one_chunk_come_out_in_order(magic: str) -> None:
    vectors = [vector for vector in VECTORS if vector["magic"] == magic]
    stream = b"".join(bytes.fromhex(vector["hex"]) for vector in vectors)

    assert read(reader_of(vectors[0]), stream) == [expected_of(vector) for vector in vectors]


def test_half_a_packet_gives_nothing_until_the_rest_comes() -> None:
    reader = PacketReader()

    assert read(reader, ECHO[:14]) == []
    assert read(reader, ECHO[14:] + ECHO[:5]) == [ECHOED]
    assert read(reader, ECHO[5:]) == [ECHOED]


def test_an_empty_chunk_changes_nothing() -> None:
    assert read(PacketReader(), b"", ECHO[:3], b"", ECHO[3:], b"") == [ECHOED]


def test_lines_and_packets_mix_on_one_connection() -> None:
    stream = b"version\r\n" + ECHO + b"status\n\n" + ECHO + b"workers\n"
    expected = [(TEXT, (b"version",)), ECHOED, (TEXT, (b"status",)), (TEXT, (b"",)), ECHOED, (TEXT, (b"workers",))]

    assert read(PacketReader(), stream) == expected
    assert read(PacketReader(), *one_by_one(stream)) == expected


def test_a_line_may_hold_any_byte_but_lf() -> None:
    assert read(PacketReader(), b"show \0\xff\rjobs\r\n") == [(TEXT, (b"show \0\xff\rjobs",))]


def test_a_line_of_8192_bytes_is_read_and_a_longer_one_ends_the_connection() -> None:
    assert read(PacketReader(), b"v" * TEXT_MAX_BYTES + b"\n") == [(TEXT, (b"v" * TEXT_MAX_BYTES,))]
    reader = PacketReader()
    ((kind, (code, _)),) = read(reader, b"v" * (TEXT_MAX_BYTES + 1))
    assert (kind, code) == (FATAL_TEXT, b"LINE_TOO_LONG")
    assert read(reader, b"\n", ECHO) == []


@pytest.mark.parametrize("kind", [0, 5, 43, 255, 0xFFFFFFFF])
def test_an_unknown_type_is_passed_on_and_its_body_skipped(kind: int) -> None:
    packet = b"\0REQ" + kind.to_bytes(4, "big") + b"\0\0\0\3a\0b"

    assert read(PacketReader(), packet + ECHO) == [(kind, ()), ECHOED]


def test_a_body_where_none_belongs_is_ignored() -> None:
    assert read(PacketReader(), b"\0REQ\0\0\0\x09\0\0\0\3abc" + ECHO) == [(PacketType.GRAB_JOB, ()), ECHOED]


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("SUBMIT_JOB", b""),
        ("SUBMIT_JOB", b"reverse"),
        ("SUBMIT_JOB_BG", b"reverse\0unique"),
        ("SUBMIT_JOB_HIGH", b"reverse\0unique"),
        ("SUBMIT_JOB_EPOCH", b"reverse\0unique\x001700000000"),
        ("SUBMIT_REDUCE_JOB", b"reverse\0unique\0fold"),
        ("WORK_STATUS", b"H:lap:1\x001"),
        ("CAN_DO_TIMEOUT", b"reverse"),
    ],
)
def test_missing_separators_are_an_error_and_the_stream_stays_in_step(name: str, body: bytes) -> None:
    bad, good = read(PacketReader(), encode_request(PacketType[name], body) + ECHO)

    assert bad[0] == INVALID
    assert bad[1][0] == b"INVALID_PACKET"
    assert name.encode() in bad[1][1]
    assert good == ECHOED


@pytest.mark.parametrize("name", ["WORK_COMPLETE", "WORK_DATA", "WORK_WARNING"])
def test_a_worker_may_leave_the_separator_before_empty_data_out(name: str) -> None:
    packet = encode_request(PacketType[name], b"H:lap:1")

    assert read(PacketReader(), packet + ECHO) == [(PacketType[name], (b"H:lap:1", b"")), ECHOED]


@pytest.mark.parametrize("start", [b"\0BAD", b"\0req", b"\0\0\0\0", b"\0REX", b"\0X", b"\0RX"])
def test_bytes_without_a_magic_are_fatal_at_the_first_wrong_one(start: bytes) -> None:
    for chunks in ([start + b"\0" * 8], one_by_one(start)):
        reader = PacketReader()
        assert read(reader, *chunks) == [(FATAL, (b"INVALID_MAGIC", b"Request magic expected"))]
        assert read(reader, ECHO) == []


def test_the_other_direction_s_magic_is_an_error_and_the_stream_stays_in_step() -> None:
    stray = encode_response(PacketType.NOOP) + encode_response(PacketType.ECHO_RES, b"x" * 100)
    error = (INVALID, (b"INVALID_MAGIC", b"Request magic expected"))

    assert read(PacketReader(), stray + ECHO) == [error, error, ECHOED]
    assert read(PacketReader(), *one_by_one(stray + ECHO)) == [error, error, ECHOED]


def test_a_packet_too_large_is_refused_at_its_header() -> None:
    reader = PacketReader(max_packet_bytes=100)

    ((kind, (code, text)),) = read(reader, b"\0REQ\0\0\0\x10\0\0\0\x65")

    assert (kind, code) == (INVALID, b"ARGUMENT_TOO_LARGE")
    assert b"100" in text
    assert b"101" in text


def test_the_body_of_a_refused_packet_is_skipped_however_it_arrives() -> None:
    body = b"\0REQversion\n" * 1000
    stream = b"\0REQ\0\0\0\x10" + len(body).to_bytes(4, "big") + body + ECHO + b"version\n"
    for size in (1, 7, 11, 12, 13, 1000, len(stream)):
        reader = PacketReader(max_packet_bytes=100)
        messages = read(reader, *(stream[start : start + size] for start in range(0, len(stream), size)))
        assert [kind for kind, _ in messages] == [INVALID, PacketType.ECHO_REQ, TEXT], size


def test_a_packet_of_the_largest_size_is_read() -> None:
    packet = encode_request(PacketType.ECHO_REQ, b"x" * 100)

    assert read(PacketReader(max_packet_bytes=100), packet) == [(PacketType.ECHO_REQ, (b"x" * 100,))]


def test_a_refused_packet_is_not_buffered() -> None:
    reader = PacketReader()
    read(reader, b"\0REQ\0\0\0\x10\xff\xff\xff\xff")
    for _ in range(1000):
        assert read(reader, b"\0" * 65536) == []

    held = sum(len(value) for value in vars(reader).values() if isinstance(value, bytes | bytearray))
    held += sum(len(chunk) for value in vars(reader).values() if isinstance(value, list) for chunk in value)
    assert held < DEFAULT_MAX_PACKET_BYTES // 1000


def test_a_large_body_in_small_chunks_is_joined_once() -> None:
    data = bytes(range(256)) * 4096
    packet = encode_request(PacketType.SUBMIT_JOB, b"f", b"", data)
    reader = PacketReader()

    messages = read(reader, *(packet[start : start + 1000] for start in range(0, len(packet), 1000)))

    assert messages == [(PacketType.SUBMIT_JOB, (b"f", b"", data))]
